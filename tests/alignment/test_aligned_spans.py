"""Stretches of text against a slow version that looks at bytes, and what they must cover."""

from __future__ import annotations

import pytest
import torch

from fusion.alignment import join, stretches
from fusion.core.rows import LogitRows, Pairs


def rows(boundaries) -> LogitRows:
    """Rows at these (example, prefixes), whose gold is minus the bytes up to the next prefix."""
    example = torch.tensor([e for e, prefixes in boundaries for _ in prefixes], dtype=torch.long)
    prefix = torch.tensor([b for _, prefixes in boundaries for b in prefixes], dtype=torch.long)
    gold = torch.tensor([float(b - a) for _, p in boundaries for a, b in zip(p, [*p[1:], p[-1] + 7], strict=True)])
    nothing = torch.empty(len(example), 0)
    return LogitRows(nothing, nothing.long(), -gold.abs(), gold, gold, prefix, example)


def cuts(length, seed):
    generator = torch.Generator().manual_seed(seed)
    inner = [b for b in range(1, length) if torch.rand((), generator=generator) < 0.5]
    return [0, *inner, length]


@pytest.mark.parametrize("seed", range(6))
def test_both_sides_of_a_stretch_have_read_the_same_bytes(seed):
    pivot = rows([(e, cuts(20 + e, 10 * seed + e)) for e in range(4)])
    source = rows([(e, cuts(20 + e, 100 + 10 * seed + e)) for e in range(4)])
    pairs = join(pivot, source)
    found = stretches(pivot, source, pairs)
    torch.testing.assert_close(found.sums(pivot.gold, found.pivot), found.sums(source.gold, found.source))
    assert len(found) == len(pairs)
    assert (found.pivot >= 0).all()
    assert (found.source >= 0).all()
    assert found.pivot.unique().numel() == found.source.unique().numel() == len(pairs)
    assert torch.equal(found.at, torch.arange(len(pairs)))


def test_equal_tokenizers_give_one_token_a_stretch():
    pivot = rows([(0, [0, 2, 5, 9]), (3, [0, 1, 2])])
    found = stretches(pivot, pivot, join(pivot, pivot))
    assert found.pivot.tolist() == found.source.tolist() == list(range(7))


def test_a_worked_example():
    pivot, source = rows([(0, [0, 2, 4, 6])]), rows([(0, [0, 1, 4, 5, 6])])
    found = stretches(pivot, source, join(pivot, source))
    assert found.pivot.tolist() == [0, 0, 1, 2]
    assert found.source.tolist() == [0, 0, 1, 1, 2]


def test_text_after_the_last_shared_boundary_of_a_cut_example_is_no_stretch():
    pivot, source = rows([(0, [0, 2, 4, 6]), (1, [0, 3])]), rows([(0, [0, 1, 4, 5]), (1, [0, 3])])
    found = stretches(pivot, source, join(pivot, source))
    assert found.pivot.tolist() == [0, 0, -1, -1, 1, 2]
    assert found.source.tolist() == [0, 0, -1, -1, 1, 2]
    assert found.at.tolist() == [0, 2, 3]


def test_rows_before_the_first_pair_and_examples_without_one_lie_in_no_stretch():
    pivot, source = rows([(0, [0, 2, 6]), (1, [0, 3])]), rows([(0, [1, 2, 6])])
    found = stretches(pivot, source, join(pivot, source))
    assert found.pivot.tolist() == [-1, 0, 1, -1, -1]
    assert found.source.tolist() == [-1, 0, 1]


def test_pairs_in_any_order_and_none_at_all():
    pivot, source = rows([(0, [0, 2, 4, 6])]), rows([(0, [0, 1, 4, 5, 6])])
    pairs = join(pivot, source)
    turned = stretches(pivot, source, Pairs(pairs.pivot.flip(0), pairs.source.flip(0)))
    assert torch.equal(turned.sums(pivot.gold, turned.pivot), turned.sums(source.gold, turned.source))
    none = stretches(pivot, source, Pairs(torch.empty(0).long(), torch.empty(0).long()))
    assert len(none) == 0
    assert (none.pivot == -1).all()
