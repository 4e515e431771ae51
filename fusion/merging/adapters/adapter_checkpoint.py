"""An adapter as a model: its base with what the adapter changes, folded in as the tensors are read."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from typing_extensions import override

from fusion.merging.adapters.adapter_settings import AdapterSettings
from fusion.merging.adapters.adapter_tensors import ADAPTER_WEIGHTS, AdapterTensors
from fusion.merging.adapters.build_updates import build_updates
from fusion.merging.adapters.tensor_updates import TensorUpdate
from fusion.merging.adapters.tied_weights import whole_tensors
from fusion.merging.files.checkpoint import Checkpoint
from fusion.merging.methods.tiles import TensorReader
from fusion.merging.tokenizers.vocabulary import vocabulary_files
from fusion.models.checkpoint_files import ADAPTER_CONFIG


@dataclass(frozen=True)
class LoraCheckpoint(Checkpoint):
    """The base with an adapter folded in in float64: nothing is rounded to the base's type on the way."""

    base: Checkpoint
    updates: dict[str, TensorUpdate]
    has_own_base: bool = False
    """Whether it was given as BASE+ADAPTER, rather than as an adapter of the merge's base."""

    @staticmethod
    def from_adapter(base: Checkpoint, folder: Path, *, has_own_base: bool = False) -> LoraCheckpoint:
        """Open an adapter. Raises ValueError where it does not fit this base, or cannot be folded into weights."""
        settings, tensors = AdapterSettings.read(folder), AdapterTensors.read(folder)
        entries = base.entries | whole_tensors(base, tensors)
        updates = build_updates(base, settings, tensors, entries=entries)
        return LoraCheckpoint(folder, base.config, entries, base, updates, has_own_base)

    @property
    @override
    def files(self) -> list[Path]:
        """The adapter's own two files, with its base's where that is not the merge's."""
        own = [self.folder / ADAPTER_CONFIG, self.folder / ADAPTER_WEIGHTS]
        return [*own, *(self.base.files if self.has_own_base else [])]

    @property
    @override
    def reference(self) -> Path:
        return Path(f"{self.base.folder}+{self.folder}") if self.has_own_base else self.folder

    @property
    @override
    def tokenizer_folder(self) -> Path:
        """The adapter's folder where it has a tokenizer, else its base's."""
        return self.folder if vocabulary_files(self.folder) else self.base.folder

    @override
    def reader(self, name: str, base: TensorReader, size: int) -> TensorReader:
        stored, entry = super().reader(name, base, size), self.entry(name)
        update = self.updates.get(self.stored_name(name) or name)
        if update is None:
            return stored
        columns = math.prod(entry.shape[1:])
        read = _read_with_update(stored, update, num_rows=entry.shape[0], columns=columns)
        return TensorReader(str(self.folder), torch.float64, read, stored.release)


def _read_with_update(
    stored: TensorReader, update: TensorUpdate, *, num_rows: int, columns: int
) -> Callable[[int, int], Tensor]:
    """Read whole rows, changed; those from `num_rows` on are another model's and stay."""

    def read(start: int, stop: int) -> Tensor:
        first, last = start // columns, stop // columns
        rows = stored.read(start, stop).double().view(-1, columns)
        own = max(0, min(last, num_rows) - first)
        changed = update.apply(rows[:own], first) if own else rows[:0]
        return torch.cat([changed, rows[own:]]).reshape(-1)

    return read
