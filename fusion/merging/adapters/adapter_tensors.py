"""The tensors of an adapter file, by what they do: parts of a module's update, or tensors that replace the base's."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from fusion.merging.files.safetensors_file import SafetensorsFile, TensorEntry
from fusion.models.checkpoint_files import ADAPTER_CONFIG, LFS_POINTER, refuse_pickles

ADAPTER_WEIGHTS = "adapter_model.safetensors"
PREFIX = "base_model.model."
PART_SUFFIXES = {
    ".lora_A.weight": "a", ".lora_B.weight": "b", ".lora_embedding_A": "a", ".lora_embedding_B": "b",
    ".lora_B.bias": "bias", ".lora_magnitude_vector": "magnitude", ".lora_magnitude_vector.weight": "magnitude",
    ".token_adapter.trainable_tokens_delta": "tokens",
}  # fmt: skip
"""How names of parts of an update end, and which part that is."""
OF_TRAINING = (".lora_velora_embed", ".original_module.")
"""What is in names of tensors that take no part in the result: a projection for gradients, the base's own module."""
WRAPPERS = (".token_adapter.base_layer.", ".base_layer.", ".modules_to_save.")
"""What peft puts into the names of tensors that it saves whole."""


@dataclass
class AdapterTensors:
    """All that an adapter file holds, by the names of the model."""

    folder: Path
    parts: dict[str, dict[str, TensorEntry]] = field(default_factory=lambda: defaultdict(dict))
    """For each module the parts of its update."""
    embeddings: set[str] = field(default_factory=set)
    """Modules whose factors are an embedding's."""
    whole: dict[str, TensorEntry] = field(default_factory=dict)
    """Tensors that replace the base's."""
    frozen: set[str] = field(default_factory=set)
    """Those of `whole` that are copies of what the base had in training, beside an update."""
    saved_as: dict[str, str] = field(default_factory=dict)
    """The names in the file, for messages."""

    @staticmethod
    def read(folder: Path) -> AdapterTensors:
        """Sort the tensors by their names; no weights are read.

        Raises FileNotFoundError where there are none, ValueError where they are pickled or damaged.
        """
        found = AdapterTensors(folder)
        for saved_name, entry in _entries(folder).items():
            found._add(saved_name, entry)
        return found

    def part(self, module: str, name: str, shape: tuple[int | None, ...]) -> Tensor:
        """A part of an update, a view of the file.

        Raises ValueError where it has not this shape (None: any size), or values that are no finite numbers.
        """
        entry = self.parts[module][name]
        label = f"{self.folder}: {self.saved_as[f'{module} {name}']}"
        if len(entry.shape) != len(shape) or any(n not in (None, m) for n, m in zip(shape, entry.shape, strict=True)):
            expected = ", ".join("any" if n is None else str(n) for n in shape)
            raise ValueError(
                f"{label} has shape {entry.shape}, and ({expected}) would fit {ADAPTER_CONFIG} and its other half. Copy or "
                "save the adapter again; trained with ZeRO-3 or FSDP, gather its weights before."
            )
        if not entry.is_floating:
            raise ValueError(f"{label} is {entry.dtype}; save the adapter in float32, bfloat16 or float16.")
        values = entry.read(0, entry.size).view(entry.shape)
        if not torch.isfinite(values).all():
            raise ValueError(
                f"{label} has values that are NaN or infinite: its training diverged, or the file is damaged."
            )
        return values

    def _add(self, saved_name: str, entry: TensorEntry) -> None:
        name = saved_name.removeprefix(PREFIX)
        if any(text in name for text in OF_TRAINING):
            return
        for suffix, part in PART_SUFFIXES.items():
            if name.endswith(suffix):
                module = name.removesuffix(suffix)
                self.parts[module][part] = entry
                self.saved_as[f"{module} {part}"] = saved_name
                self.embeddings |= {module} if "_embedding_" in suffix else set()
                return
        target = name
        for wrapper in WRAPPERS:
            target = target.replace(wrapper, ".")
        self.saved_as.setdefault(target, saved_name)
        self.whole[target] = entry
        if ".base_layer." in name and not name.endswith(".bias"):
            self.frozen.add(target)


def _entries(folder: Path) -> Mapping[str, TensorEntry]:
    file = folder / ADAPTER_WEIGHTS
    if not file.is_file():
        refuse_pickles(folder)
        raise FileNotFoundError(f"{folder} has {ADAPTER_CONFIG} but no {ADAPTER_WEIGHTS}; copy it there.")
    with file.open("rb") as stream:
        if stream.read(len(LFS_POINTER)) == LFS_POINTER:
            raise ValueError(f"{file} is a Git LFS pointer and not the weights: run git lfs pull there.")
    return SafetensorsFile(file).entries()
