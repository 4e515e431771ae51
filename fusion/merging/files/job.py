"""What is to be merged, by which method, checked before anything is read."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from fusion.merging.files import merge_record
from fusion.merging.files.adapter import Adapted
from fusion.merging.files.auxiliary_files import beside
from fusion.merging.files.checkpoint import Checkpoint, check_mergeable, raise_all
from fusion.merging.files.token_check import disagreements
from fusion.merging.methods.base import Method

LETTERS = {"float32": "F32", "bfloat16": "BF16", "float16": "F16"}

Progress = Callable[[str, int, int], None]
Vocabulary = Literal["refuse", "pad"]


@dataclass(frozen=True)
class Job:
    """What is to be done, checked."""

    base: Checkpoint
    models: list[Checkpoint]
    method: Method
    methods: dict[str, Method]
    """With the numbers that hold for each floating tensor."""
    dtype: str | None
    vocabulary: Vocabulary
    report: Progress

    def decided(self) -> dict[str, Any]:
        """What decides the result besides the inputs."""
        settings = {"method": self.method.model_dump(), "dtype": self.dtype, "vocabulary": self.vocabulary}
        return {"version": merge_record.VERSION, **settings}

    @property
    def files(self) -> list[tuple[Path, list[Path]]]:
        """Every folder with those of its files that decide the result."""
        base = (self.base.folder, [*self.base.files, *beside(self.base.folder)])
        return [base, *((model.folder, model.files) for model in self.models)]

    def letters(self, name: str) -> str:
        """The type of the merged tensor, as safetensors write it."""
        entry = self.base.entries[name]
        return LETTERS[self.dtype] if self.dtype and entry.floating else entry.dtype


def checked(
    base: Path | None,
    models: Sequence[Path],
    method: Method,
    dtype: str | None,
    vocabulary: Vocabulary,
    report: Progress,
) -> Job:
    """Raises ValueError or FileNotFoundError, before any weight is read, where the inputs do not fit together."""
    if dtype is not None and dtype not in LETTERS:
        raise ValueError(f"dtype must be one of {', '.join(LETTERS)}, or left out to keep the base's; got {dtype!r}.")
    method.check(len(models))
    if base is None and (method.needs_base or getattr(method, "origin", "zero") == "base"):
        raise ValueError(f"{method.name} compares the models with the model they grew from; name it with --base.")
    source = Checkpoint.open(base or models[0])
    others = [Adapted.of(source, model) if Adapted.folds(model) else Checkpoint.open(model) for model in models]
    pad = vocabulary == "pad"
    raise_all([line for model in models for line in disagreements(source.folder, model, pad=pad)])
    check_mergeable(source, others, pad=pad)
    methods = {name: method.at(name, source.layers) for name, entry in source.entries.items() if entry.floating}
    return Job(source, others, method, methods, dtype, vocabulary, report)
