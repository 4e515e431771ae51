"""What is said of two tokenizers whose tokens agree: what could not be compared, and what differs all the same."""

from __future__ import annotations

from fnmatch import fnmatchcase
from pathlib import Path

from fusion.merging.files.tokenizer_check import BASE, MERGES, is_one_vocabulary, token_differences
from fusion.merging.tokenizers.splitting import splitting_differences
from fusion.merging.tokenizers.vocabulary import WHOLE, is_same_file, read_vocabulary, vocabulary_files
from fusion.models.checkpoint_files import shown

OTHER_READERS = ("tekken.json", "*.model", "*.model.v*", "*.tiktoken")
"""Files that some programs read though there is a tokenizer.json."""
LISTED = 12
"""How many tokens a line lists."""


def tokenizer_notes(base: Path, model: Path, *, role: str = BASE) -> list[str]:
    """Describe what is no problem between two tokenizers and may be of interest, a sentence or two each.

    `base` is the folder whose tokenizer the result has, and `role` what messages call it.
    """
    first, second = vocabulary_files(base), vocabulary_files(model)
    if not first or not second or base == model:
        return []
    names = f"{role} {base}"
    return [
        *_token_notes(base, model, names),
        *([] if set(first) & set(second) else [_uncompared(base, model, names)]),
        *_splitting_notes(base, model, names),
        *_other_files_notes(base, model, names),
    ]


def _token_notes(base: Path, model: Path, names: str) -> list[str]:
    """List the tokens that have two names, and those of which one folder says nothing."""
    if is_one_vocabulary(base, model):
        return []
    found, notes = token_differences(read_vocabulary(base), read_vocabulary(model)), []
    if renamed := [f"{index} is {other!r} ({one!r})" for index, (one, other) in found.renamed.items()]:
        notes.append(
            f"{model} calls tokens by other names than {names} does (in brackets): {shown(renamed, LISTED)}. They are merged "
            f"by their ids, and the result has the names of {base}."
        )
    if unlisted := [f"{index} is {token!r}" for index, token in found.unlisted.items()]:
        notes.append(
            f"Of {model} and {names} only one lists these tokens, and the other has no {WHOLE}: {shown(unlisted, LISTED)}. "
            f"They are taken to be the same in both; the result has the tokenizer of {base}."
        )
    return notes


def _uncompared(base: Path, model: Path, names: str) -> str:
    own, other = (shown(vocabulary_files(folder)) for folder in (model, base))
    return (
        f"{model} has {own}, and {names} has {other}: whether these mean the same tokens by the same ids could not be "
        f"compared. They are taken to, and the result has the tokenizer of {base}."
    )


def _splitting_notes(base: Path, model: Path, names: str) -> list[str]:
    """Say by which parts, or files, two tokenizers of the same tokens may split texts differently."""
    files = [base / WHOLE, model / WHOLE]
    if all(file.is_file() for file in files):
        parts = [] if is_same_file(*files) else splitting_differences(*files)
    else:
        shared = [name for name in MERGES if all((folder / name).is_file() for folder in (base, model))]
        parts = [name for name in shared if not is_same_file(base / name, model / name)]
    if not parts:
        return []
    return [
        f"{model} may split texts into other tokens than {names} does: they differ in {', '.join(parts)}. The result has the "
        f"tokenizer of {base}."
    ]


def _other_files_notes(base: Path, model: Path, names: str) -> list[str]:
    """Say which files differ that are not looked at where there is a tokenizer.json, and that other programs read."""
    if not all((folder / WHOLE).is_file() for folder in (base, model)):
        return []
    read = [name for name in vocabulary_files(base) if any(fnmatchcase(name, each) for each in OTHER_READERS)]
    differing = [name for name in read if (model / name).is_file() and not is_same_file(base / name, model / name)]
    return [
        f"{model} has another {name} than {names}, though the tokens of {WHOLE} agree; the result has that of {base}."
        for name in differing
    ]
