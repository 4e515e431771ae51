"""A LoRA adapter as a model: the base with scale · B A added to some of its matrices as they are read."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from typing_extensions import override

from fusion.core.text_files import read_object
from fusion.merging.files.checkpoint import Checkpoint
from fusion.merging.files.safetensors_file import SafetensorsFile, TensorEntry
from fusion.merging.methods.tiles import TensorReader
from fusion.models.checkpoint_files import ADAPTER_CONFIG, refuse_pickles

ADAPTER_WEIGHTS = "adapter_model.safetensors"
PREFIX = "base_model.model."
REQUIRED_SETTINGS = {"use_dora": False, "bias": "none", "lora_bias": False, "megatron_config": None}
"""Settings of an adapter that with other values would mean more than B A; each has this value, or is absent."""


@dataclass(frozen=True)
class LowRankUpdate:
    """The update scale · B A of one matrix, as its factors."""

    lora_b: Tensor
    lora_a: Tensor
    scale: float
    transposed: bool
    """Whether the base stores the transpose, as for embeddings and `fan_in_fan_out`."""

    @property
    def shape(self) -> tuple[int, int]:
        """Shape of the matrix as the base stores it."""
        rows, columns = self.lora_b.shape[0], self.lora_a.shape[1]
        return (columns, rows) if self.transposed else (rows, columns)

    def rows(self, first: int, last: int) -> Tensor:
        """Rows `first` to `last` of the update, in float64."""
        if self.transposed:
            return self.scale * (self.lora_b @ self.lora_a[:, first:last]).T
        return self.scale * (self.lora_b[first:last] @ self.lora_a)


@dataclass(frozen=True)
class LoraCheckpoint(Checkpoint):
    """The base with an adapter added in float64: nothing is rounded to the base's type on the way."""

    base: Checkpoint
    updates: dict[str, LowRankUpdate]

    @staticmethod
    def is_adapter(folder: Path) -> bool:
        """Whether the folder is an adapter rather than a whole model."""
        return (folder / ADAPTER_CONFIG).is_file() and not (folder / "config.json").is_file()

    @staticmethod
    def from_adapter(base: Checkpoint, folder: Path) -> LoraCheckpoint:
        """Open an adapter. Raises ValueError where it does not fit this base, or is more than low-rank matrices."""
        settings = read_object(folder / ADAPTER_CONFIG)
        _check_supported(folder, settings)
        if not (folder / ADAPTER_WEIGHTS).is_file():
            refuse_pickles(folder)
            raise FileNotFoundError(f"{folder} has {ADAPTER_CONFIG} but no {ADAPTER_WEIGHTS}; copy it there.")
        entries = SafetensorsFile(folder / ADAPTER_WEIGHTS).entries()
        stored = {name.removeprefix(PREFIX): entry for name, entry in entries.items()}
        b_names = [name for name in stored if ".lora_B." in name or ".lora_embedding_B" in name]
        updates = dict(_read_update(base, folder, settings, stored=stored, b_name=name) for name in b_names)
        factors = {*b_names, *map(_a_name, b_names)}
        whole = {name.replace(".modules_to_save", ""): e for name, e in stored.items() if name not in factors}
        for name, entry in whole.items():
            if name not in base.entries or base.entries[name].shape != entry.shape:
                raise ValueError(f"{folder}: {name} is neither low-rank nor a tensor of the base {base.folder}.")
        return LoraCheckpoint(folder, base.config, base.entries | whole, base, updates)

    @property
    @override
    def files(self) -> list[Path]:
        """The adapter's own two files, without the base's."""
        return [self.folder / ADAPTER_CONFIG, self.folder / ADAPTER_WEIGHTS]

    @override
    def reader(self, name: str, base: TensorReader, size: int) -> TensorReader:
        entry, update = self.entry(name), self.updates.get(name)
        if update is None:
            return TensorReader(str(self.folder), entry.torch_dtype, entry.read, entry.release)
        return TensorReader(str(self.folder), torch.float64, _read_with_update(entry, update), entry.release)


def _read_with_update(entry: TensorEntry, update: LowRankUpdate) -> Callable[[int, int], Tensor]:
    columns = entry.shape[1]

    def read(start: int, stop: int) -> Tensor:
        return entry.read(start, stop).double() + update.rows(start // columns, stop // columns).reshape(-1)

    return read


def _read_update(
    base: Checkpoint, folder: Path, settings: dict[str, Any], *, stored: dict[str, TensorEntry], b_name: str
) -> tuple[str, LowRankUpdate]:
    """The name of the base's tensor that the factor `b_name` belongs to, and its update."""
    a_name, module = _a_name(b_name), re.split(r"\.lora_(?:embedding_)?B", b_name)[0]
    name, is_embedding = f"{module}.weight", ".lora_embedding_B" in b_name
    if a_name not in stored:
        raise ValueError(f"{folder}: {b_name} has no {a_name} beside it; save or copy the adapter again.")
    b, a = (_read_whole(stored[factor]) for factor in (b_name, a_name))
    # peft stores the factors of an embedding transposed
    rank, transposed = a.shape[0], is_embedding or settings.get("fan_in_fan_out", False)
    update = LowRankUpdate(b, a, _scale(settings, module, rank), transposed)
    entry = base.entries.get(name)
    if entry is None:
        raise ValueError(
            f"{folder}: the base {base.folder} has no {name} for the adapter's {b_name}; give its own base."
        )
    if entry.shape != update.shape:
        raise ValueError(
            f"{folder}: its update of {name} has shape {update.shape}, the base {base.folder} has {entry.shape}."
        )
    return name, update


def _read_whole(entry: TensorEntry) -> Tensor:
    """The tensor in its shape, as float64."""
    return entry.read(0, entry.size).double().view(entry.shape)


def _scale(settings: dict[str, Any], module: str, rank: int) -> float:
    """alpha / rank, or alpha / √rank for rank-stabilized adapters; alpha may differ by module."""
    patterns = settings.get("alpha_pattern") or {}
    matching = (alpha for pattern, alpha in patterns.items() if re.match(rf"(?:.*\.)?(?:{pattern})$", module))
    alpha = next(matching, settings["lora_alpha"])
    return alpha / (math.sqrt(rank) if settings.get("use_rslora") else rank)


def _check_supported(folder: Path, settings: dict[str, Any]) -> None:
    if settings.get("peft_type") != "LORA":
        raise ValueError(f"{folder}: peft_type is {settings.get('peft_type')!r}; only LORA adapters can be folded in.")
    for name, value in REQUIRED_SETTINGS.items():
        if settings.get(name, value) != value:
            raise ValueError(
                f"{folder}: {name} is {settings[name]!r}, which is more than low-rank matrices. Fold the adapter into "
                "its model first (merge_and_unload in peft) and merge the result."
            )


def _a_name(b_name: str) -> str:
    """The name of the factor A that belongs to a factor B."""
    return b_name.replace(".lora_B.", ".lora_A.").replace(".lora_embedding_B", ".lora_embedding_A")
