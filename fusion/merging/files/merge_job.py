"""A merge of folders, checked before any weight is read: inputs, method, and type of the result."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from fusion.merging.adapters.model_reference import open_base, open_model
from fusion.merging.embedding_modules import module_notes
from fusion.merging.files import merge_record
from fusion.merging.files.checkpoint import Checkpoint
from fusion.merging.files.lone_tensors import is_buffer, unloaded
from fusion.merging.files.mergeable import check_mergeable
from fusion.merging.files.tokenizer_source import TokenizerSource
from fusion.merging.methods.base import MergeMethod
from fusion.merging.tokenizers.fit_tokenizers import fit_tokenizers
from fusion.models.auxiliary_files import find_auxiliary_files

RESULT_DTYPES = {"float32": "F32", "bfloat16": "BF16", "float16": "F16"}
"""Types a result may have, as torch names them, and as safetensors does."""

MergeProgress = Callable[[str, int, int], None]
"""Called with the stage, how much of it is done, and how much there is."""
VocabularyPolicy = Literal["refuse", "pad"]
"""Whether models may have more or fewer tokens than the base."""


@dataclass(frozen=True)
class MergeJob:
    """Checkpoints that fit together and the method that merges them; see `prepare_merge`."""

    base: Checkpoint
    models: list[Checkpoint]
    method: MergeMethod
    dtype: str | None
    """Type of the result's floating tensors, as torch names it; None for the base's."""
    vocabulary: VocabularyPolicy
    methods: dict[str, MergeMethod]
    """For each floating tensor that is merged, by name, the method with the numbers that hold there."""
    allow_different: tuple[str, ...] = ()
    """Keys of config.json that may differ though they change what weights compute; the base's hold."""
    tokenizer: TokenizerSource | None = None
    """The model whose tokenizer, chat template and generation settings the result has; None for the base's."""
    is_base_named: bool = False
    """Whether the base was named as the one whose tokenizer the result has, so that names of tokens may differ."""
    kept: frozenset[str] = frozenset()
    """Floating tensors that a model lacks since transformers does not load them; the base's are copied."""
    notes: tuple[str, ...] = ()
    """What differs between the models and is no problem, a sentence each."""

    def settings(self) -> dict[str, Any]:
        """What decides the result besides the inputs; goes into `merge.json`."""
        settings = {"method": self.method.model_dump(), "dtype": self.dtype, "vocabulary": self.vocabulary}
        if self.tokenizer is not None:
            settings["tokenizer_source"] = self.tokenizer.position
        return {"version": merge_record.VERSION, **settings}

    @property
    def options(self) -> dict[str, Any]:
        """The keyword arguments of `merge` that it was made with, also keys of a recipe."""
        options = {"dtype": self.dtype, "vocabulary": self.vocabulary, "allow_different": list(self.allow_different)}
        named = self.tokenizer.reference if self.tokenizer else self.base.folder if self.is_base_named else None
        return options | ({"tokenizer_source": str(named)} if named else {})

    @property
    def input_files(self) -> list[tuple[Path, list[Path]]]:
        """Every folder, the base's first, with those of its files that decide the result."""
        files = dict.fromkeys([*self.base.files, *find_auxiliary_files(self.base.folder)])
        base = (self.base.folder, list(files))
        models = [(model.reference, model.files) for model in self.models]
        if self.tokenizer is not None:
            reference, files = models[self.tokenizer.position]
            models[self.tokenizer.position] = reference, list(dict.fromkeys([*files, *self.tokenizer.files]))
        return [base, *models]

    def result_dtype(self, name: str) -> str:
        """Type of the merged tensor `name`, as safetensors names it."""
        entry = self.base.entries[name]
        return RESULT_DTYPES[self.dtype] if self.dtype and name in self.methods else entry.dtype


def prepare_merge(
    base: Path | None,
    models: Sequence[Path],
    method: MergeMethod,
    *,
    dtype: str | None,
    vocabulary: VocabularyPolicy,
    allow_different: Sequence[str] = (),
    tokenizer_source: Path | None = None,
) -> MergeJob:
    """Open the folders, headers only, and check that `method` can merge them.

    Raises ValueError or FileNotFoundError where they do not fit together.
    """
    if dtype is not None and dtype not in RESULT_DTYPES:
        raise ValueError(
            f"dtype must be one of {', '.join(RESULT_DTYPES)}, or left out to keep the base's; got {dtype!r}."
        )
    method.check_models(len(models))
    if base is None and _compares_with_base(method):
        raise ValueError(
            f"{method.name} compares the models with the model they grew from; name it as base_model (--base-model)."
        )
    base_checkpoint = open_base(base, models)
    checkpoints = [open_model(model, None if base is None else base_checkpoint) for model in models]
    if _compares_with_base(method):
        _refuse_base_among_models(base_checkpoint, checkpoints)
    pad = vocabulary == "pad"
    fitted = fit_tokenizers(base_checkpoint, checkpoints, tokenizer_source, pad=pad)
    base_checkpoint, folders = fitted.base, [checkpoint.tokenizer_folder for checkpoint in checkpoints]
    notes = [*fitted.notes, *module_notes(base_checkpoint.folder, folders)]
    notes += check_mergeable(base_checkpoint, checkpoints, pad=pad, allow_different=allow_different)
    entries = base_checkpoint.entries.items()
    kept = {name for model in checkpoints for name in unloaded(base_checkpoint, model)[0]}
    floating = [
        name for name, entry in entries if entry.is_floating and not is_buffer(name, entry) and name not in kept
    ]
    methods = {name: method.for_tensor(name, base_checkpoint.num_layers) for name in floating}
    return MergeJob(
        base_checkpoint, checkpoints, method, dtype=dtype, vocabulary=vocabulary, methods=methods, tokenizer=fitted.source,
        allow_different=tuple(allow_different), notes=tuple(notes), kept=frozenset(kept),
        is_base_named=fitted.is_base_named,
    )  # fmt: skip


def _compares_with_base(method: MergeMethod) -> bool:
    return method.needs_base or getattr(method, "origin", "zero") == "base"


def _refuse_base_among_models(base: Checkpoint, models: Sequence[Checkpoint]) -> None:
    """Raise ValueError where the base would count as one more model, which differs from itself in nothing."""
    if any(model.reference.resolve() == base.folder.resolve() for model in models):
        raise ValueError(
            f"{base.folder} is the base, and among the models too: it differs from itself in nothing, and would still count as "
            "one more model. Leave it out of models."
        )
