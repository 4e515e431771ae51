"""Positions of several models over one text: what each expected there, and which of them are compared."""

import dataclasses
import math

import pytest
import torch

from fusion.alignment.overlay import BYTES, ENTRIES, overlay
from fusion.core.rows import LogitRows


def rows(prefix: list[int], token: list[int] | None, ids: list[list[int]], p: list[list[float]], gold: list[float]):
    n, nan = len(prefix), torch.full((len(prefix),), torch.nan)
    found = LogitRows(
        torch.tensor(p).log(), torch.tensor(ids), torch.tensor(gold).log(), nan, nan,
        prefix=torch.tensor(prefix), example=torch.zeros(n, dtype=torch.long),
        token=None if token is None else torch.tensor(token),
    )  # fmt: skip
    return found


PIVOT = rows([0, 2, 4], [1, 2, 0], [[1], [3], [0]], [[0.5], [0.75], [0.25]], [0.5, 0.1, 0.25])
SOURCE = rows([0, 4], [7, 9], [[7, 8], [8, -1]], [[0.9, 0.05], [0.6, 0.0]], [0.9, 0.3])
SPELL = {"pivot": lambda id: f"p{id}", "s": lambda id: f"s{id}"}


def test_each_position_has_its_bytes_its_token_its_probability_and_what_was_likeliest():
    found = overlay("d", "?", "abcd", {"pivot": PIVOT, "s": SOURCE}, SPELL, "prefix")
    assert (found.domain, found.prompt, found.response) == ("d", "?", "abcd")
    pivot = [(p.start, p.end, p.text, p.gold, p.top) for p in found.positions["pivot"]]
    assert pivot == [
        (0, 2, "p1", 0.5, [("p1", 0.5)]),
        (2, 4, "p2", 0.1, [("p3", 0.75)]),
        (4, 4, "p0", 0.25, [("p0", 0.25)]),
    ]
    source = [(p.start, p.end, p.text, p.top) for p in found.positions["s"]]
    assert source == [(0, 4, "s7", [("s7", 0.9), ("s8", 0.05)]), (4, 4, "s9", [("s8", 0.6)])]  # -1 is an empty entry


def test_positions_with_equal_prefixes_are_pairs():
    assert overlay("d", "", "abcd", {"pivot": PIVOT, "s": SOURCE}, SPELL, "prefix").pairs == {"s": [(0, 0), (2, 1)]}


def test_another_alignment_makes_other_pairs():
    assert overlay("d", "", "abcd", {"pivot": PIVOT, "s": SOURCE}, SPELL, "truncate").pairs == {"s": [(0, 0), (1, 1)]}


def test_a_place_that_is_not_known_is_none():
    odd = dataclasses.replace(PIVOT, prefix=torch.tensor([0, -1, 4]))
    found = overlay("d", "", "abcd", {"pivot": odd}, SPELL, "prefix").positions["pivot"]
    assert [(p.start, p.end) for p in found] == [(0, 4), (None, None), (4, 4)]


def test_of_a_long_text_and_a_wide_row_the_beginning_is_kept_and_no_pair_points_beyond_it():
    n, k = BYTES + 7, ENTRIES + 3
    wide = rows(list(range(n)), [0] * n, [list(range(k))] * n, [[0.5 / (1 + i) for i in range(k)]] * n, [0.5] * n)
    found = overlay("d", "", "x" * n, {"pivot": wide, "s": wide}, SPELL, "prefix")
    assert len(found.positions["pivot"]) == len(found.positions["s"]) == len(found.pairs["s"]) == BYTES
    assert len(found.positions["pivot"][0].top) == ENTRIES


def test_entries_come_largest_first_also_where_the_rows_have_another_order():
    mixed = rows([0], [1], [[1, 2, 3]], [[0.1, 0.6, 0.2]], [0.1])
    top = overlay("d", "", "ab", {"pivot": mixed}, SPELL, "prefix").positions["pivot"][0].top
    assert [text for text, _ in top] == ["p2", "p3", "p1"]
    assert [p for _, p in top] == pytest.approx([0.6, 0.2, 0.1])


def test_rounding_makes_no_probability_above_one():
    sure = dataclasses.replace(PIVOT, gold=torch.full((3,), 1e-4))
    assert {p.gold for p in overlay("d", "", "abcd", {"pivot": sure}, SPELL, "prefix").positions["pivot"]} == {1.0}
    assert math.exp(1e-4) > 1


def test_rows_that_do_not_know_their_tokens_are_refused():
    blind = dataclasses.replace(PIVOT, token=None)
    with pytest.raises(ValueError, match="rows of pivot do not say which token follows"):
        overlay("d", "", "abcd", {"pivot": blind}, SPELL, "prefix")
