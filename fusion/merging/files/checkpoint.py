"""A model folder of safetensors, opened without reading weights; and whether several of them can be merged."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from fusion.core.text_files import read_object
from fusion.merging.files.safetensors_file import DTYPE_BYTES, FLOAT_DTYPES, SafetensorsFile, TensorEntry
from fusion.merging.methods.tiles import TensorReader
from fusion.models.checkpoint_files import INDEX, weight_files, weight_map

HEAD_NAME = "lm_head.weight"
OTHER_HEAD_NAMES = ("embed_out.weight", "output.weight", "output_layer.weight", "head.weight")
LAYER = re.compile(r"(?:^|\.)(?:layers|h|blocks)\.(\d+)\.")
"""The number of a layer in the name of a tensor."""
EMBEDDING_NAMES = ("embed_tokens.weight", "wte.weight", "embed_in.weight", "word_embeddings.weight")
STRUCTURE_KEYS = (
    "num_hidden_layers", "hidden_size", "intermediate_size", "num_attention_heads", "num_key_value_heads", "head_dim",
    "hidden_act", "vocab_size", "rope_theta", "quantization_config",
)  # fmt: skip
"""Keys of config.json that change what the same weights compute; compared where both files have them."""


@dataclass(frozen=True)
class Checkpoint:
    """A model folder: its config.json and the tensors of its weight files. Opening it reads headers only."""

    folder: Path
    config: dict[str, Any]
    entries: dict[str, TensorEntry]

    @staticmethod
    def open(folder: Path) -> Checkpoint:
        """Open a folder. Raises FileNotFoundError or ValueError where it is no model in safetensors."""
        if not (folder / "config.json").is_file():
            raise FileNotFoundError(
                f"{folder} is not a model folder: it has no config.json. A model on a hub is downloaded first: "
                "hf download NAME --local-dir FOLDER."
            )
        config = read_object(folder / "config.json")
        entries: dict[str, TensorEntry] = {}
        for file in weight_files(folder):
            entries |= SafetensorsFile(file).entries()
        _check_index(folder, entries)
        return Checkpoint(folder, config, entries)

    @property
    def files(self) -> list[Path]:
        """The files that decide the model's answers: config.json, the weights, and any generation_config.json."""
        configs = [self.folder / "config.json", self.folder / "generation_config.json"]
        weights = {entry.file.path for entry in self.entries.values()}
        return [*(file for file in configs if file.is_file()), *sorted(weights)]

    @property
    def reference(self) -> Path:
        """What names this model in a recipe."""
        return self.folder

    @property
    def tokenizer_folder(self) -> Path:
        """Where its tokenizer lies."""
        return self.folder

    @property
    def num_layers(self) -> int:
        """Number of layers by config.json; 1 where it does not say."""
        return self.config.get("num_hidden_layers", self.config.get("text_config", {}).get("num_hidden_layers", 1))

    def stored_name(self, name: str) -> str | None:
        """The name under which `name` is stored, or None; for a head that is not stored as it is tied, the embedding's."""
        if name in self.entries or not name.endswith(HEAD_NAME) or self.tie_setting is False:
            return name if name in self.entries else None
        embeddings = [n for n in self.entries if n.endswith(EMBEDDING_NAMES)]
        return embeddings[0] if len(embeddings) == 1 else None

    def find(self, name: str) -> TensorEntry | None:
        """The tensor `name`, or None; for an output head that is not stored because it is tied, the embedding."""
        stored = self.stored_name(name)
        return None if stored is None else self.entries[stored]

    def entry(self, name: str) -> TensorEntry:
        """The tensor `name`, which `check_mergeable` has checked to be there."""
        entry = self.find(name)
        assert entry is not None, f"{name} was checked to be in {self.folder}"
        return entry

    def reader(self, name: str, base: TensorReader, size: int) -> TensorReader:
        """A reader of the tensor `name` as `size` entries: rows it lacks are read from `base`, more are left out."""
        entry = self.entry(name)
        if entry.size >= size:
            return TensorReader(str(self.folder), entry.torch_dtype, entry.read, entry.release)

        dtype = torch.promote_types(entry.torch_dtype, base.dtype)

        def read(start: int, stop: int) -> torch.Tensor:
            own = entry.read(start, min(stop, entry.size)).to(dtype)
            if stop <= entry.size:
                return own
            return torch.cat([own, base.read(max(start, entry.size), stop).to(dtype)])

        def release(start: int, stop: int) -> None:
            entry.release(min(start, entry.size), min(stop, entry.size))

        return TensorReader(str(self.folder), dtype, read, release)

    @property
    def tie_setting(self) -> bool | None:
        """`tie_word_embeddings` of config.json; None where it does not say, for defaults differ by architecture."""
        return self.config.get("tie_word_embeddings", self.config.get("text_config", {}).get("tie_word_embeddings"))


def check_mergeable(base: Checkpoint, models: Sequence[Checkpoint], *, pad: bool = False) -> None:
    """Raise ValueError with every mismatch of names, shapes, types and architecture.

    With `pad` the number of rows of embeddings and heads may differ. Reads no weights, except where a model stores a
    head that the base ties.
    """
    problems = [problem for name, entry in base.entries.items() for problem in _dtype_problems(base, name, entry)]
    problems += _config_problems(base)  # the others have to have the base's tensors, and so has the result
    for model in models:
        problems += _architecture_problems(base, model, pad) or _tensor_problems(base, model, pad)
    raise_all(problems)


def raise_all(problems: Sequence[str]) -> None:
    """Raise ValueError with up to twenty of the problems, if there are any."""
    if problems:
        shown = [*problems[:20], *([f"... and {len(problems) - 20} more"] if len(problems) > 20 else [])]
        raise ValueError("These checkpoints cannot be merged:\n  " + "\n  ".join(shown))


def _check_index(folder: Path, entries: dict[str, TensorEntry]) -> None:
    """Raise ValueError where the index, if there is one, names other tensors or files than there are."""
    if not (folder / INDEX).is_file():
        return
    listed = weight_map(folder / INDEX)
    wrong = [name for name, file in listed.items() if name not in entries or entries[name].file.path.name != file]
    if wrong or len(listed) != len(entries):
        name = (wrong or sorted(entries.keys() - listed.keys()))[0]
        raise ValueError(f"{folder / INDEX} and its shards disagree about {name}; save or copy the model again.")


def _dtype_problems(base: Checkpoint, name: str, entry: TensorEntry) -> list[str]:
    if entry.dtype in DTYPE_BYTES:
        return []
    return [
        f"{base.folder}: {name} is {entry.dtype}; only {', '.join(FLOAT_DTYPES)} and integers can merge; dequantize first"
    ]


def _config_problems(base: Checkpoint) -> list[str]:
    """What the base's config.json says that it has, and it has not: layers, and a head of its own."""
    held = {int(match[1]) for name in base.entries if (match := LAYER.search(name))}
    lost = [layer for layer in range(base.num_layers) if held and layer not in held]
    problems = (
        [f"{base.folder}: config.json has {base.num_layers} layers, and {lost[0]} has no tensors"] if lost else []
    )
    causal = any(name.endswith("ForCausalLM") for name in base.config.get("architectures") or [])
    heads = [name for name in base.entries if name.endswith((HEAD_NAME, *OTHER_HEAD_NAMES))]
    if causal and base.tie_setting is False and not heads:
        problems.append(f"{base.folder}: config.json has tie_word_embeddings: false, and there is no {HEAD_NAME}")
    return problems


def _architecture_problems(base: Checkpoint, model: Checkpoint, pad: bool) -> list[str]:
    expected, actual = base.config, model.config
    keys = [key for key in ("model_type", "architectures") if expected.get(key) != actual.get(key)]
    stated = [key for key in STRUCTURE_KEYS if key in expected and key in actual and not (pad and key == "vocab_size")]
    keys += [key for key in stated if expected[key] != actual[key]]
    return [f"{model.folder}: {k} is {actual.get(k)!r}, the base {base.folder} has {expected.get(k)!r}" for k in keys]


def _tensor_problems(base: Checkpoint, model: Checkpoint, pad: bool) -> list[str]:
    problems = [problem for name in base.entries if (problem := _tensor_problem(base, model, name, pad=pad))]
    extra = [name for name in model.entries if name not in base.entries and not _repeats_embedding(base, model, name)]
    return problems + [f"{model.folder}: {name} is extra; the base {base.folder} lacks it" for name in extra]


def _tensor_problem(base: Checkpoint, model: Checkpoint, name: str, *, pad: bool) -> str | None:
    """Why the model's tensor cannot be merged with the base's, or None where it can."""
    expected, actual = base.entries[name], model.find(name)
    if actual is None:
        return f"{model.folder}: {name} is missing; the base {base.folder} has it"
    if actual.shape != expected.shape:
        rows_differ = _differs_in_vocabulary_only(name, actual, expected)
        hint = "; --vocabulary pad lets rows of tokens differ" if rows_differ else ""
        shapes = f"has shape {actual.shape}, the base {base.folder} has {expected.shape}"
        if not (pad and rows_differ):
            return f"{model.folder}: {name} {shapes}{hint}"
    if actual.dtype != expected.dtype and not (actual.is_floating and expected.is_floating):
        return f"{model.folder}: {name} is {actual.dtype}, the base {base.folder} has {expected.dtype}"
    return None


def _differs_in_vocabulary_only(name: str, actual: TensorEntry, expected: TensorEntry) -> bool:
    has_token_rows = name.endswith((HEAD_NAME, *EMBEDDING_NAMES)) and actual.is_floating and expected.is_floating
    return has_token_rows and len(expected.shape) == 2 and actual.shape[1:] == expected.shape[1:]


def _repeats_embedding(base: Checkpoint, model: Checkpoint, name: str) -> bool:
    """Whether `name` is a head the base ties and the model stores once more, equal to the model's embedding."""
    tied = base.find(name)
    twin = next((n for n, entry in base.entries.items() if entry is tied), None)
    if twin is None or twin not in model.entries or model.entries[twin].shape != model.entries[name].shape:
        return False
    first, second = model.entries[twin], model.entries[name]
    return first.dtype == second.dtype and torch.equal(
        first.read_bytes(0, first.size), second.read_bytes(0, second.size)
    )
