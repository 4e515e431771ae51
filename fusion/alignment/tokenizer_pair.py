"""From one model's token ids to another's, made from their tokenizers."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from fusion.alignment.spelling_distance import Words
from fusion.alignment.token_map import Roles, exact_map, first_piece_map
from fusion.data.encode import Template, end_of_turn
from fusion.tokenizers import spellings, tokenize


def vocabulary_map(kind: str, source: Any, pivot: Any, templates: tuple[Template, Template]) -> Tensor:
    """Pivot id of each id of the source, -1 for none; shape [V_source].

    `exact` maps tokens that stand for the same bytes; `first_piece` maps every token to the first piece of what the pivot's
    tokenizer makes of its bytes. The end of turn of one (after its own template) is the end of turn of the other.
    """
    roles = _roles(source, pivot, templates)
    if kind == "exact":
        return exact_map(spellings(source), spellings(pivot), roles)

    def pieces(texts: list[str]) -> list[list[int]]:
        return tokenize(pivot, texts)

    return first_piece_map(spellings(source), spellings(pivot), pieces, roles)


def words(source: Any, pivot: Any, templates: tuple[Template, Template]) -> Words:
    """The tokens of both in one dictionary; the ends of turn are one word."""
    return Words.of(spellings(pivot), spellings(source), _roles(source, pivot, templates))


def _roles(source: Any, pivot: Any, templates: tuple[Template, Template]) -> Roles:
    theirs, ours = end_of_turn(source, templates[0]), end_of_turn(pivot, templates[1])
    return [] if theirs is None or ours is None else [(theirs, ours)]
