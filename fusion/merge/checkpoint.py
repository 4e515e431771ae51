"""A model folder of safetensors, read tensor by tensor; and whether several of them can be merged."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

FLOATS = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
WHOLE = ("BOOL", "U8", "I8", "I16", "I32", "I64", "U16", "U32", "U64")
PICKLED = ("*.bin", "*.pt", "*.pth", "*.ckpt")
INDEX, SINGLE = "model.safetensors.index.json", "model.safetensors"
HEAD = "lm_head.weight"
EMBEDDINGS = ("embed_tokens.weight", "wte.weight", "embed_in.weight", "word_embeddings.weight")
STRUCTURE = (
    "num_hidden_layers", "hidden_size", "intermediate_size", "num_attention_heads", "num_key_value_heads", "head_dim",
    "hidden_act", "vocab_size", "rope_theta", "quantization_config",
)  # fmt: skip
"""Settings of config.json that change what the same weights compute; compared where both files state them."""


@dataclass(frozen=True)
class Entry:
    """Where one tensor lies, and what it is; `dtype` in safetensors' letters, such as BF16."""

    file: Path
    dtype: str
    shape: tuple[int, ...]

    @property
    def floating(self) -> bool:
        """Whether the tensor is merged; integers and booleans have to be equal everywhere."""
        return self.dtype in FLOATS

    @property
    def size(self) -> int:
        """Number of values."""
        return torch.Size(self.shape).numel()


@dataclass(frozen=True)
class Checkpoint:
    """A model folder: its config.json and what is in its weight files. Opening it reads headers only."""

    folder: Path
    config: dict[str, Any]
    entries: dict[str, Entry]

    @staticmethod
    def open(folder: Path) -> Checkpoint:
        """Raises FileNotFoundError or ValueError where the folder is no model in safetensors."""
        if not (folder / "config.json").is_file():
            raise FileNotFoundError(f"{folder} is not a model folder: it has no config.json.")
        config = json.loads((folder / "config.json").read_bytes())
        entries: dict[str, Entry] = {}
        for file in _weight_files(folder):
            entries |= _header(file)
        _agree_with_index(folder, entries)
        return Checkpoint(folder, config, entries)

    @property
    def files(self) -> list[Path]:
        """What decides the model's answers: config.json and the weights."""
        return [self.folder / "config.json", *sorted({entry.file for entry in self.entries.values()})]

    def find(self, name: str) -> Entry | None:
        """The tensor of that name; for an output head that is not stored because it is tied, the embedding."""
        if name in self.entries or not name.endswith(HEAD) or self.tie_setting is False:
            return self.entries.get(name)
        embeddings = [n for n in self.entries if n.endswith(EMBEDDINGS)]
        return self.entries[embeddings[0]] if len(embeddings) == 1 else None

    def read(self, name: str) -> Tensor:
        """One tensor, from disk. Raises ValueError where a float in it is NaN or infinite."""
        entry = self.find(name)
        assert entry is not None, f"{name} was checked to be in {self.folder}"
        stored = next(n for n, e in self.entries.items() if e is entry)
        with safe_open(entry.file, framework="pt") as file:
            tensor = file.get_tensor(stored)
        if entry.floating and not torch.isfinite(tensor).all():
            bad = int((~torch.isfinite(tensor)).sum())
            raise ValueError(
                f"{name} in {self.folder} has {bad} values that are NaN or infinite. Its training had diverged "
                "before it was saved, or the file is damaged; give an earlier checkpoint."
            )
        return tensor

    @property
    def tie_setting(self) -> bool | None:
        """What config.json says about tied embeddings; None where it is silent, for defaults differ by architecture."""
        return self.config.get("tie_word_embeddings", self.config.get("text_config", {}).get("tie_word_embeddings"))


def check_mergeable(base: Checkpoint, models: Sequence[Checkpoint]) -> None:
    """Raises ValueError with every mismatch of names, shapes, kinds and architecture.

    Reads no weights, except where a model stores a head that the base ties.
    """
    problems = [problem for name, entry in base.entries.items() for problem in _of_kind(base, name, entry)]
    for model in models:
        problems += _architecture(base, model) or _tensors(base, model)
    if problems:
        shown = problems[:20] + ([f"... and {len(problems) - 20} more"] if len(problems) > 20 else [])
        raise ValueError("These checkpoints cannot be merged:\n  " + "\n  ".join(shown))


def _weight_files(folder: Path) -> list[Path]:
    single, index = folder / SINGLE, folder / INDEX
    if single.is_file() and index.is_file():
        raise ValueError(f"{folder} has both {SINGLE} and {INDEX}; remove the one that is not meant.")
    if single.is_file():
        return [single]
    if index.is_file():
        return [_shard(folder, name) for name in sorted(set(json.loads(index.read_bytes())["weight_map"].values()))]
    pickled = sorted(file.name for pattern in PICKLED for file in folder.glob(pattern))
    if pickled:
        raise ValueError(
            f"{folder} has pickled weights only ({pickled[0]}), and a pickle can run code. Load the model where you "
            "trust it and save it again with save_pretrained, which writes safetensors."
        )
    others = sorted(file.name for file in folder.glob("*.safetensors"))
    hint = f"found {', '.join(others)} (merge an adapter into its model first)" if others else "found no weights"
    raise FileNotFoundError(f"{folder} has neither {SINGLE} nor {INDEX}: {hint}.")


def _shard(folder: Path, name: str) -> Path:
    file = folder / name
    if Path(name).name != name or not file.is_file():
        raise FileNotFoundError(f"{folder / INDEX} names the shard {name}, which is not in the folder; copy it there.")
    return file


def _header(file: Path) -> dict[str, Entry]:
    try:
        with safe_open(file, framework="pt") as opened:
            slices = {name: opened.get_slice(name) for name in opened.keys()}  # noqa: SIM118
            return {name: Entry(file, part.get_dtype(), tuple(part.get_shape())) for name, part in slices.items()}
    except SafetensorError as error:
        raise ValueError(f"{file} is damaged or no safetensors file: {error}. Copy it again.") from error


def _agree_with_index(folder: Path, entries: dict[str, Entry]) -> None:
    if not (folder / INDEX).is_file():
        return
    listed = json.loads((folder / INDEX).read_bytes())["weight_map"]
    wrong = [name for name, file in listed.items() if name not in entries or entries[name].file.name != file]
    if wrong or len(listed) != len(entries):
        name = (wrong or sorted(entries.keys() - listed.keys()))[0]
        raise ValueError(f"{folder / INDEX} and its shards disagree about {name}; save or copy the model again.")


def _of_kind(base: Checkpoint, name: str, entry: Entry) -> list[str]:
    if entry.floating or entry.dtype in WHOLE:
        return []
    return [
        f"{base.folder}: {name} is {entry.dtype}; only {', '.join(FLOATS)} and integers can merge; dequantize first"
    ]


def _architecture(base: Checkpoint, model: Checkpoint) -> list[str]:
    ours, theirs = base.config, model.config
    names = [n for n in ("model_type", "architectures") if ours.get(n) != theirs.get(n)]
    names += [n for n in STRUCTURE if n in ours and n in theirs and ours[n] != theirs[n]]
    return [f"{model.folder}: {n} is {theirs.get(n)!r}, the base {base.folder} has {ours.get(n)!r}" for n in names]


def _tensors(base: Checkpoint, model: Checkpoint) -> list[str]:
    problems = []
    for name, entry in base.entries.items():
        found = model.find(name)
        if found is None:
            problems.append(f"{model.folder}: {name} is missing; the base {base.folder} has it")
        elif found.shape != entry.shape:
            problems.append(f"{model.folder}: {name} has shape {found.shape}, the base {base.folder} has {entry.shape}")
        elif found.dtype != entry.dtype and not (found.floating and entry.floating):
            problems.append(f"{model.folder}: {name} is {found.dtype}, the base {base.folder} has {entry.dtype}")
    extra = [name for name in model.entries if name not in base.entries and not _repeats_embedding(base, model, name)]
    return problems + [f"{model.folder}: {name} is extra; the base {base.folder} lacks it" for name in extra]


def _repeats_embedding(base: Checkpoint, model: Checkpoint, name: str) -> bool:
    """Whether `name` is a head the base ties and the model stores once more, equal to the model's embedding."""
    tied = base.find(name)
    twin = next((n for n, entry in base.entries.items() if entry is tied), None)
    if twin is None or twin not in model.entries or model.entries[twin].shape != model.entries[name].shape:
        return False
    return torch.equal(model.read(name), model.read(twin))
