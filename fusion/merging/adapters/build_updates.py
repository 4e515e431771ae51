"""The updates of an adapter, from its tensors and settings, checked against the base that they belong to."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import Tensor

from fusion.merging.adapters.adapter_settings import AdapterSettings
from fusion.merging.adapters.adapter_tensors import AdapterTensors
from fusion.merging.adapters.tensor_updates import (
    BiasUpdate,
    LowRankUpdate,
    TensorUpdate,
    TokenUpdate,
    WeightDecomposedUpdate,
)
from fusion.merging.adapters.tied_weights import check_tied
from fusion.merging.files.checkpoint import Checkpoint
from fusion.merging.files.safetensors_file import TensorEntry

CONV1D_MODEL_TYPES = ("gpt2", "openai-gpt", "imagegpt", "decision_transformer")
"""Architectures whose matrices are transformers' Conv1D, which stores the transpose."""


def build_updates(
    base: Checkpoint, settings: AdapterSettings, tensors: AdapterTensors, *, entries: Mapping[str, TensorEntry]
) -> dict[str, TensorUpdate]:
    """The update of each tensor, by the base's names.

    `entries` are the base's tensors with those that the adapter replaces. Raises ValueError where an update fits no
    tensor, or two of them one.
    """
    found: dict[str, dict[str, TensorUpdate]] = {}
    for module in tensors.parts:
        builder = _Builder(base, settings, tensors, entries, module)
        for parameter, update in builder.updates().items():
            saved_name = f"{module}.{parameter}"
            found.setdefault(base.stored_name(saved_name) or saved_name, {})[saved_name] = update
    check_tied(base, tensors, found)
    return {name: next(iter(updates.values())) for name, updates in found.items()}


@dataclass(frozen=True)
class _Builder:
    """Makes the updates of one module."""

    base: Checkpoint
    settings: AdapterSettings
    tensors: AdapterTensors
    entries: Mapping[str, TensorEntry]
    module: str

    def updates(self) -> dict[str, TensorUpdate]:
        """The update of its weight, and of its bias where it has one."""
        parts = self.tensors.parts[self.module]
        if "tokens" in parts:
            if len(parts) > 1:
                raise self._error("weight", "has both low-rank factors and rows of tokens; save them as two adapters")
            return {"weight": self._tokens()}
        updates: dict[str, TensorUpdate] = {"weight": self._weight()}
        if "bias" in parts:
            update = BiasUpdate(self._part("bias", (None,)), self.settings.scale(self.module))
            self._check_shape("bias", update)
            updates["bias"] = update
        return updates

    def _weight(self) -> TensorUpdate:
        low_rank = self._low_rank()
        has_magnitude = "magnitude" in self.tensors.parts[self.module]
        if has_magnitude != bool(self.settings.followed.use_dora):
            has = "has a magnitude" if has_magnitude else "has no magnitude"
            raise self._error(
                "weight",
                f"{has}, and use_dora is {self.settings.followed.use_dora}; copy both files of the adapter again",
            )
        if not has_magnitude:
            return low_rank
        outputs = low_rank.shape[1] if low_rank.transposed else low_rank.shape[0]
        return WeightDecomposedUpdate(low_rank, self._part("magnitude", (outputs,)), self._read_rows())

    def _low_rank(self) -> LowRankUpdate:
        parts = self.tensors.parts[self.module]
        for one, other in (("a", "B"), ("b", "A")):
            if one not in parts:
                raise self._error(
                    "weight", f"has a factor {other} and no {one.upper()}; save or copy the adapter again"
                )
        rank = self.settings.rank(self.module)
        b, a = self._part("b", (None, rank)), self._part("a", (rank, None))
        update = LowRankUpdate(b, a, self.settings.scale(self.module), self._is_transposed(b, a))
        self._check_shape("weight", update)
        return update

    def _is_transposed(self, b: Tensor, a: Tensor) -> bool:
        if self.module in self.tensors.embeddings:
            return True
        entry = self._entry("weight")
        if len(b) == a.shape[1]:  # a square tells nothing; nor does fan_in_fan_out, which peft sets by the last module
            is_known = self.base.config.get("model_type") in CONV1D_MODEL_TYPES
            return is_known or bool(self.settings.followed.fan_in_fan_out)
        return entry.shape == (a.shape[1], len(b))

    def _tokens(self) -> TokenUpdate:
        indices, num_rows = self.settings.token_indices(self.module), self._entry("weight").shape[0]
        values = self._part("tokens", (len(indices), None))
        if outside := [index for index in indices if not 0 <= index < num_rows]:
            raise self._error(
                "weight", f"has rows of the tokens {outside}, the base has {num_rows} tokens; give its own base"
            )
        update = TokenUpdate(indices, values, num_rows)
        self._check_shape("weight", update)
        return update

    def _part(self, name: str, shape: tuple[int | None, ...]) -> Tensor:
        return self.tensors.part(self.module, name, shape)

    def _read_rows(self) -> Callable[[int, int], Tensor]:
        entry = self._entry("weight")
        columns = entry.shape[1]
        return lambda first, last: entry.read(first * columns, last * columns).double().view(-1, columns)

    def _entry(self, parameter: str) -> TensorEntry:
        name = f"{self.module}.{parameter}"
        stored = self.base.stored_name(name)
        if stored is None:
            hint = "; lora_bias cannot be folded into a layer without bias" if parameter == "bias" else ""
            raise ValueError(
                f"{self.tensors.folder}: the base {self.base.folder} has no {name}, which the adapter changes{hint}. Give the "
                "base that it was trained on, in the layout that it had then."
            )
        return self.entries[stored]

    def _check_shape(self, parameter: str, update: TensorUpdate) -> None:
        entry = self._entry(parameter)
        if entry.shape != update.shape:
            is_vocabulary = len(entry.shape) == 2 and entry.shape[1:] == update.shape[1:]
            hint = "; where tokens were added, save it with save_embedding_layers=True" if is_vocabulary else ""
            raise ValueError(
                f"{self.tensors.folder}: its update of {self.module}.{parameter} has shape {update.shape}, the base "
                f"{self.base.folder} has {entry.shape}{hint}. Give the base that it was trained on."
            )

    def _error(self, parameter: str, problem: str) -> ValueError:
        return ValueError(f"{self.tensors.folder}: the update of {self.module}.{parameter} {problem}.")
