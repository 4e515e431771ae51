"""A LoRA adapter as a model: the base with scale · B A added to some of its matrices, never written out in between."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fusion.merging.files.checkpoint import Checkpoint, refuse_pickles
from fusion.merging.files.mapped import Entry, Mapped
from fusion.merging.methods.tiles import Part

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
PREFIX = "base_model.model."
UNKNOWN = {"use_dora": False, "bias": "none", "lora_bias": False, "megatron_config": None}
"""Settings of an adapter that would need more than B A; each has to have this value, or be absent."""


@dataclass(frozen=True)
class LowRank:
    """A change B A of one matrix, as its factors and its factor."""

    up: Tensor
    down: Tensor
    scale: float
    transposed: bool
    """Whether the base stores the matrix the other way round."""

    @property
    def shape(self) -> tuple[int, int]:
        """Of the matrix it belongs to."""
        rows, columns = self.up.shape[0], self.down.shape[1]
        return (columns, rows) if self.transposed else (rows, columns)

    def rows(self, first: int, last: int) -> Tensor:
        """These rows of the change, in float64."""
        if self.transposed:
            return self.scale * (self.up @ self.down[:, first:last]).T
        return self.scale * (self.up[first:last] @ self.down)


@dataclass(frozen=True)
class Adapted(Checkpoint):
    """The base with an adapter folded in, in float64: nothing is rounded to the base's type on the way."""

    base: Checkpoint
    changes: dict[str, LowRank]

    @staticmethod
    def folds(folder: Path) -> bool:
        """Whether the folder is an adapter rather than a whole model."""
        return (folder / CONFIG).is_file() and not (folder / "config.json").is_file()

    @staticmethod
    def of(base: Checkpoint, folder: Path) -> Adapted:
        """Raises ValueError where the adapter does not fit this base, or is more than low-rank matrices."""
        settings = json.loads((folder / CONFIG).read_bytes())
        _supported(folder, settings)
        if not (folder / WEIGHTS).is_file():
            refuse_pickles(folder)
            raise FileNotFoundError(f"{folder} has {CONFIG} but no {WEIGHTS}; copy it there.")
        stored = {name.removeprefix(PREFIX): entry for name, entry in Mapped(folder / WEIGHTS).entries().items()}
        ups = [name for name in stored if ".lora_B." in name or ".lora_embedding_B" in name]
        changes = dict(_change(base, folder, settings, stored, name) for name in ups)
        pairs = {half for name in ups for half in (name, _other(name))}
        whole = {name.replace(".modules_to_save", ""): e for name, e in stored.items() if name not in pairs}
        for name, entry in whole.items():
            if name not in base.entries or base.entries[name].shape != entry.shape:
                raise ValueError(f"{folder}: {name} is neither low-rank nor a tensor of the base {base.folder}.")
        return Adapted(folder, base.config, base.entries | whole, base, changes)

    @property
    def files(self) -> list[Path]:
        """The adapter's own two files; the base's are the base's."""
        return [self.folder / CONFIG, self.folder / WEIGHTS]

    def part(self, name: str, base: Part, size: int) -> Part:
        """The base's entries plus the change, row by row."""
        entry, change = self.entry(name), self.changes.get(name)
        if change is None:
            return Part(str(self.folder), entry.kind, entry.read, entry.release)
        return Part(str(self.folder), torch.float64, _folded(entry, change), entry.release)


def _folded(entry: Entry, change: LowRank) -> Callable[[int, int], Tensor]:
    columns = entry.shape[1]

    def read(start: int, stop: int) -> Tensor:
        return entry.read(start, stop).double() + change.rows(start // columns, stop // columns).reshape(-1)

    return read


def _change(
    base: Checkpoint, folder: Path, settings: dict[str, Any], stored: dict[str, Entry], up: str
) -> tuple[str, LowRank]:
    """The tensor of the base that `up` belongs to, and its change. An embedding's factors are stored transposed."""
    down, module = _other(up), re.split(r"\.lora_(?:embedding_)?B", up)[0]
    name, embedding = f"{module}.weight", ".lora_embedding_B" in up
    if down not in stored:
        raise ValueError(f"{folder}: {up} has no {down} beside it; save or copy the adapter again.")
    b, a = (stored[half].read(0, stored[half].size).double().view(stored[half].shape) for half in (up, down))
    rank, transposed = a.shape[0], embedding or settings.get("fan_in_fan_out", False)
    change = LowRank(b, a, _scale(settings, module, rank), transposed)
    entry = base.entries.get(name)
    if entry is None:
        raise ValueError(f"{folder}: the base {base.folder} has no {name} for the adapter's {up}; give its own base.")
    if entry.shape != change.shape:
        raise ValueError(
            f"{folder}: its change of {name} has shape {change.shape}, the base {base.folder} has {entry.shape}."
        )
    return name, change


def _scale(settings: dict[str, Any], module: str, rank: int) -> float:
    """alpha / rank, or alpha / √rank for rank-stabilised adapters; alpha may differ by module."""
    patterns = settings.get("alpha_pattern") or {}
    fits = (alpha for pattern, alpha in patterns.items() if re.match(rf"(?:.*\.)?(?:{pattern})$", module))
    alpha = next(fits, settings["lora_alpha"])
    return alpha / (math.sqrt(rank) if settings.get("use_rslora") else rank)


def _supported(folder: Path, settings: dict[str, Any]) -> None:
    if settings.get("peft_type") != "LORA":
        raise ValueError(f"{folder}: peft_type is {settings.get('peft_type')!r}; only LORA adapters can be folded in.")
    for name, value in UNKNOWN.items():
        if settings.get(name, value) != value:
            raise ValueError(
                f"{folder}: {name} is {settings[name]!r}, which is more than low-rank matrices. Fold the adapter into "
                "its model first (merge_and_unload in peft) and merge the result."
            )


def _other(up: str) -> str:
    """Name of the A that belongs to a B."""
    return up.replace(".lora_B.", ".lora_A.").replace(".lora_embedding_B", ".lora_embedding_A")
