"""A model folder of safetensors, opened without reading weights."""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from fusion.core.text_files import read_object
from fusion.merging.architecture import ties_embeddings
from fusion.merging.files.safetensors_file import SafetensorsFile, TensorEntry
from fusion.merging.layer_count import layer_count
from fusion.merging.methods.tiles import TensorReader
from fusion.models.auxiliary_files import GENERATION_CONFIG, MODULE_SETTINGS, TOKENIZER_PATTERNS, find_module_files
from fusion.models.checkpoint_files import (
    ADAPTER_CONFIG,
    INDEX,
    refuse_broken_links,
    refuse_stand_in,
    weight_files,
    weight_map,
)

HEAD_NAME = "lm_head.weight"
OTHER_HEAD_NAMES = ("embed_out.weight", "output.weight", "output_layer.weight", "head.weight")
HEAD_BIASES = ("lm_head.bias", "embed_out.bias")
EMBEDDING_NAMES = ("embed_tokens.weight", "wte.weight", "embed_in.weight", "word_embeddings.weight")
LAYER = re.compile(r"(?:^|\.)(?:layers|h|blocks)\.(\d+)\.")
"""The number of a layer in the name of a tensor."""
PREFIXES = (
    *(("", prefix) for prefix in ("model.", "transformer.", "gpt_neox.", "bert.", "roberta.", "_orig_mod.", "module.")),
    ("model.language_model.", "language_model.model."),
    ("model.language_model.", "model."),
    ("lm_head.", "language_model.lm_head."),
)
"""Beginnings of names that stand for each other: without a head or a wrapper and with it; of models that see, in memory and in
files."""


@dataclass(frozen=True)
class Checkpoint:
    """A model folder: its config.json and the tensors of its weight files. Opening it reads headers only."""

    folder: Path
    config: dict[str, Any]
    entries: dict[str, TensorEntry]

    @staticmethod
    def open(folder: Path) -> Checkpoint:
        """Open a folder. Raises FileNotFoundError or ValueError where it is no model in safetensors."""
        _refuse_absent(folder)
        if (folder / "fused" / "config.json").is_file() and not (folder / "config.json").is_file():
            raise FileNotFoundError(f"{folder} is the folder of a run; its model is {folder / 'fused'}.")
        refuse_broken_files(folder)
        if not (folder / "config.json").is_file():
            raise FileNotFoundError(
                f"{folder} is not a model folder: it has no config.json. Name a folder that save_pretrained wrote, or a hub id."
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
        """Number of layers by config.json, or by the names of the tensors where it does not say; at least 1."""
        stated = layer_count(self.config)
        if stated is not None:
            return stated
        return max((int(match[1]) + 1 for name in self.entries if (match := LAYER.search(name))), default=1)

    def stored_name(self, name: str) -> str | None:
        """The name under which `name` is stored, perhaps behind another prefix, or None.

        For a head that is not stored as it is tied, the embedding's.
        """
        stored = next((each for each in (name, *other_names(name)) if each in self.entries), None)
        if stored is not None or not name.endswith(HEAD_NAME) or self.is_tied is False:
            return stored
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

    @cached_property
    def is_tied(self) -> bool | None:
        """Whether embedding and head are one tensor, by config.json or its class; None where neither is known."""
        return ties_embeddings(self.config)


def other_names(name: str) -> list[str]:
    """What a tensor may be called in a file that another program, or another version of it, has written."""
    turned = [pair for first, second in PREFIXES for pair in ((second, first), (first, second))]
    return [new + name.removeprefix(old) for old, new in turned if name.startswith(old)]


def _refuse_absent(folder: Path) -> None:
    """Raise FileNotFoundError where there is no such folder, with the names beside it that are like it."""
    refuse_broken_links(folder)
    if folder.is_dir():
        return
    if folder.exists():
        raise FileNotFoundError(
            f"{folder} is a file, and a model is the folder around its files; name that, or a hub id."
        )
    name, _, revision = str(folder).partition("@")
    if revision and Path(name).is_dir():
        raise FileNotFoundError(
            f"{name} is a folder here, which has no revision {revision}: write it without @{revision}."
        )
    beside = [path.name for path in folder.parent.iterdir() if path.is_dir()] if folder.parent.is_dir() else []
    close = [str(folder.with_name(each)) for each in difflib.get_close_matches(folder.name, beside)]
    hint = f"Did you mean {' or '.join(close)}?" if close else "Name a folder that save_pretrained wrote, or a hub id."
    raise FileNotFoundError(f"There is no folder {folder}. {hint}")


def refuse_broken_files(folder: Path) -> None:
    """Raise FileNotFoundError or ValueError where what is read or handed on is a link to nothing, or a pointer or a web page.

    The weights are looked at when they are opened.
    """
    names = ("config.json", ADAPTER_CONFIG, GENERATION_CONFIG, *MODULE_SETTINGS, *TOKENIZER_PATTERNS)
    files = sorted(path for path in folder.iterdir() if any(fnmatchcase(path.name, name) for name in names))
    refuse_broken_links(*files)
    for file in [*filter(Path.is_file, files), *find_module_files(folder)]:
        refuse_stand_in(file)


def _check_index(folder: Path, entries: dict[str, TensorEntry]) -> None:
    """Raise ValueError where the index, if there is one, names other tensors or files than there are."""
    if not (folder / INDEX).is_file():
        return
    listed = weight_map(folder / INDEX)
    wrong = [name for name, file in listed.items() if name not in entries or entries[name].file.path.name != file]
    if wrong or len(listed) != len(entries):
        name = (wrong or sorted(entries.keys() - listed.keys()))[0]
        raise ValueError(f"{folder / INDEX} and its shards disagree about {name}; save or copy the model again.")
