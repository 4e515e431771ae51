"""Which tokenizer the result of a merge has, and whether the inputs' tokens are those of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from fusion.merging.files.checkpoint import Checkpoint
from fusion.merging.files.mergeable import raise_all
from fusion.merging.files.tokenizer_check import BASE, tokenizer_problems
from fusion.merging.files.tokenizer_source import (
    TokenizerSource,
    check_rows,
    extend_vocabulary,
    open_tokenizer_source,
    template_notes,
)
from fusion.merging.tokenizers.tokenizer_notes import tokenizer_notes
from fusion.merging.tokenizers.vocabulary import vocabulary_files
from fusion.models.hub_folder import hub_folder

SOURCE = "the source of the tokenizer"


@dataclass(frozen=True)
class FittedTokenizers:
    """The tokenizer of the result, which those of all inputs agree with; see `fit_tokenizers`."""

    base: Checkpoint
    """The base, with the rows of tokens that it lacks and the tokenizer has."""
    source: TokenizerSource | None = None
    """The model whose tokenizer the result has; None for the base's."""
    is_base_named: bool = False
    """Whether the base was asked for as the source."""
    notes: tuple[str, ...] = ()
    """What differs, or could not be compared, and is no problem, a sentence each."""


def fit_tokenizers(
    base: Checkpoint, models: Sequence[Checkpoint], tokenizer_source: Path | None, *, pad: bool
) -> FittedTokenizers:
    """Hold the tokenizers of all inputs against the one of the result: the base's, or that of `tokenizer_source`.

    Where a source is named, the base or a model, added tokens may have other names elsewhere; ids count. With `pad` tokenizers
    may have more or fewer tokens. Raises ValueError where ids mean different tokens, or the source is none of the models.
    """
    folders = [model.tokenizer_folder for model in models]
    check = partial(tokenizer_problems, pad=pad, allow_renamed=tokenizer_source is not None)
    raise_all([line for folder in folders for line in check(base.folder, folder)])
    if tokenizer_source is None or hub_folder(tokenizer_source).resolve() == base.folder.resolve():
        notes = [*_notes(base.folder, folders, BASE), *template_notes(base.folder, folders)]
        return FittedTokenizers(base, is_base_named=tokenizer_source is not None, notes=tuple(notes))
    source = open_tokenizer_source(tokenizer_source, models)
    raise_all([line for folder in folders for line in check(source.folder, folder, role=SOURCE)])
    extended = extend_vocabulary(base, models[source.position]) if pad else base
    check_rows(source, extended)
    return FittedTokenizers(extended, source, notes=tuple(_notes(source.folder, [base.folder, *folders], SOURCE)))


def _notes(taken: Path, folders: Sequence[Path], role: str) -> list[str]:
    """What is said of the tokenizers beside the one that is taken, each once."""
    having = [folder for folder in dict.fromkeys(folders) if vocabulary_files(folder)]
    if having and not vocabulary_files(taken):
        return [
            f"{taken} has no tokenizer, and neither has the result; --tokenizer-source {having[0]} takes the one there."
        ]
    lines = [line for folder in having for line in tokenizer_notes(taken, folder, role=role)]
    lacking = [str(folder) for folder in dict.fromkeys(folders) if folder not in having]
    if lacking and vocabulary_files(taken):
        lines.append(f"{' and '.join(lacking)}: without tokenizer; the tokens are taken to be those of {role} {taken}.")
    return lines
