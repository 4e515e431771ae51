"""Whether two model folders mean the same tokens by the same ids."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from fusion.merging.tokenizers.vocabulary import (
    WHOLE,
    Vocabulary,
    is_same_file,
    read_vocabulary,
    stated_tokens,
    vocabulary_files,
)

MERGES = ("merges.txt", "bpe.codes", "vocab.bpe")
"""How pieces are put together. Where another file says which tokens there are, these say no more than how texts are split."""
BASE = "the base"


@dataclass(frozen=True)
class TokenDifferences:
    """The ids that mean other tokens in two folders: by id the token of the first and that of the second."""

    renamed: dict[int, tuple[str, str]] = field(default_factory=dict)
    """Added tokens whose names the other folder has nowhere: what was reserved got another name."""
    absent: dict[int, tuple[str | None, str | None]] = field(default_factory=dict)
    """Tokens that one of the two lacks."""
    other: dict[int, tuple[str, str]] = field(default_factory=dict)
    """Pieces of words, and tokens that have moved."""
    unlisted: dict[int, str] = field(default_factory=dict)
    """Added tokens of one of which the other, without a tokenizer.json, says nothing: no difference that is known."""


def tokenizer_problems(
    base: Path, model: Path, *, pad: bool = False, role: str = BASE, allow_renamed: bool = False
) -> list[str]:
    """Describe how the model's tokens differ from the base's; empty where they do not, or either folder has no tokenizer.

    `role` is what messages call the base. With `pad` either may have tokens the other lacks, but no id may mean two tokens,
    except, with `allow_renamed`, added ones that got another name.
    """
    files = [vocabulary_files(folder) for folder in (base, model)]
    if not all(files) or is_one_vocabulary(base, model):
        return []
    differing = [
        f"{model}: {name} differs from that of {role} {base}; merge models of one tokenizer"
        for name in _telling_files(*files)
        if not is_same_file(base / name, model / name)
    ]
    return differing or _token_problems(base, model, pad, role, allow_renamed)


def is_one_vocabulary(base: Path, model: Path) -> bool:
    """Whether two folders have one tokenizer.json, to the byte, and add the same tokens to it."""
    files = [base / WHOLE, model / WHOLE]
    return all(map(Path.is_file, files)) and is_same_file(*files) and stated_tokens(base) == stated_tokens(model)


def token_differences(first: Vocabulary, second: Vocabulary) -> TokenDifferences:
    """Sort the ids that mean other tokens, or may do so."""
    found = TokenDifferences()
    names = set(first.tokens.values()), set(second.tokens.values())
    for index in sorted(first.tokens.keys() | second.tokens.keys()):
        one, other = first.tokens.get(index), second.tokens.get(index)
        if one == other:
            continue
        if one is None or other is None:
            lacking, having = (first, second) if one is None else (second, first)
            if lacking.lacks(having.tokens[index]):
                found.absent[index] = one, other
            elif index in having.added and having.tokens[index] not in lacking.named:
                found.unlisted[index] = having.tokens[index]
        elif index in first.added & second.added and one not in names[1] and other not in names[0]:
            found.renamed[index] = one, other
        else:
            found.other[index] = one, other
    return found


def _telling_files(first: list[str], second: list[str]) -> list[str]:
    """The files of both that say which tokens there are: tokenizer.json, which is read, or others; merges for want of these."""
    shared = [name for name in first if name in second]
    if WHOLE in shared:
        return []
    return [name for name in shared if name not in MERGES] or shared


def _token_problems(base: Path, model: Path, pad: bool, role: str, allow_renamed: bool) -> list[str]:
    found = token_differences(read_vocabulary(base), read_vocabulary(model))
    absent, renamed = {} if pad else found.absent, {} if allow_renamed else found.renamed
    wrong = found.other | absent | renamed
    if not wrong:
        return []
    hints = ["--vocabulary pad lets one have tokens the other lacks"] if absent else []
    if renamed:
        hints += [
            f"--tokenizer-source {base} or {model} merges renamed tokens by their ids, with the names that one has"
        ]
    first = min(wrong)
    expected, actual = wrong[first]
    return [
        f"{model}: token {first} is {actual!r}, {role} {base} has {expected!r} ({len(wrong)} tokens differ)"
        + "".join(f"; {hint}" for hint in ([] if found.other else hints))
    ]
