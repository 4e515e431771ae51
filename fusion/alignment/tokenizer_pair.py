"""From one model's token ids to another's, made from their tokenizers."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from fusion.alignment.spelling_distance import SpellingDistance
from fusion.alignment.token_map import ControlTokenPairs, exact_map, first_piece_map
from fusion.data.answer_end import end_of_turn, stop_event
from fusion.data.prompt_format import PromptFormat
from fusion.tokenizers import tokenize, vocabulary_bytes


def vocabulary_map(kind: str, source: Any, pivot: Any, formats: tuple[PromptFormat, PromptFormat]) -> Tensor:
    """Pivot id of each id of the source, -1 for none; shape [V_source].

    `exact` maps tokens that stand for the same bytes; `first_piece` maps every token to the first piece of what the pivot's
    tokenizer makes of its bytes. Whatever ends an answer of the source (see `stop_event`) is the end of turn of the pivot.
    """
    control_tokens = _stop_pairs(source, pivot, formats)
    if kind == "exact":
        return exact_map(vocabulary_bytes(source), vocabulary_bytes(pivot), control_tokens)

    def pieces(texts: list[str]) -> list[list[int]]:
        return tokenize(pivot, texts)

    return first_piece_map(vocabulary_bytes(source), vocabulary_bytes(pivot), pieces, control_tokens)


def spelling_distance(source: Any, pivot: Any, formats: tuple[PromptFormat, PromptFormat]) -> SpellingDistance:
    """Build the distance of spellings of two tokenizers' tokens; the ends of turn count as one word."""
    return SpellingDistance.from_token_bytes(
        vocabulary_bytes(pivot), vocabulary_bytes(source), _end_of_turn_pair(source, pivot, formats)
    )


def _stop_pairs(source: Any, pivot: Any, formats: tuple[PromptFormat, PromptFormat]) -> ControlTokenPairs:
    pivot_id = end_of_turn(pivot, formats[1])
    return [] if pivot_id is None else [(source_id, pivot_id) for source_id in stop_event(source, formats[0])]


def _end_of_turn_pair(source: Any, pivot: Any, formats: tuple[PromptFormat, PromptFormat]) -> ControlTokenPairs:
    source_id, pivot_id = end_of_turn(source, formats[0]), end_of_turn(pivot, formats[1])
    return [] if source_id is None or pivot_id is None else [(source_id, pivot_id)]
