"""Spans of text against a slow version that looks at bytes, and what they must cover."""

from __future__ import annotations

import pytest
import torch

from fusion.alignment import align_spans, match_prefixes
from fusion.core.rows import LogitRows, Pairs


def rows(boundaries) -> LogitRows:
    """Rows at these (example, prefixes), whose gold is minus the bytes up to the next prefix."""
    example = torch.tensor([e for e, prefixes in boundaries for _ in prefixes], dtype=torch.long)
    prefix = torch.tensor([b for _, prefixes in boundaries for b in prefixes], dtype=torch.long)
    gold = torch.tensor([float(b - a) for _, p in boundaries for a, b in zip(p, [*p[1:], p[-1] + 7], strict=True)])
    nothing = torch.empty(len(example), 0)
    return LogitRows(nothing, nothing.long(), -gold.abs(), gold, gold, prefix=prefix, example=example)


def cuts(length, seed):
    generator = torch.Generator().manual_seed(seed)
    inner = [b for b in range(1, length) if torch.rand((), generator=generator) < 0.5]
    return [0, *inner, length]


@pytest.mark.parametrize("seed", range(6))
def test_both_sides_of_a_span_have_read_the_same_bytes(seed):
    pivot = rows([(e, cuts(20 + e, 10 * seed + e)) for e in range(4)])
    source = rows([(e, cuts(20 + e, 100 + 10 * seed + e)) for e in range(4)])
    pairs = match_prefixes(pivot, source)
    found = align_spans(pivot, source, pairs)
    torch.testing.assert_close(
        found.sum_rows(pivot.gold, found.pivot_span), found.sum_rows(source.gold, found.source_span)
    )
    assert len(found) == len(pairs)
    assert (found.pivot_span >= 0).all()
    assert (found.source_span >= 0).all()
    assert found.pivot_span.unique().numel() == found.source_span.unique().numel() == len(pairs)
    assert torch.equal(found.pair, torch.arange(len(pairs)))


def test_equal_tokenizers_give_one_token_a_span():
    pivot = rows([(0, [0, 2, 5, 9]), (3, [0, 1, 2])])
    found = align_spans(pivot, pivot, match_prefixes(pivot, pivot))
    assert found.pivot_span.tolist() == found.source_span.tolist() == list(range(7))


def test_a_worked_example():
    pivot, source = rows([(0, [0, 2, 4, 6])]), rows([(0, [0, 1, 4, 5, 6])])
    found = align_spans(pivot, source, match_prefixes(pivot, source))
    assert found.pivot_span.tolist() == [0, 0, 1, 2]
    assert found.source_span.tolist() == [0, 0, 1, 1, 2]


def test_text_after_the_last_shared_boundary_of_a_cut_example_is_no_span():
    pivot, source = rows([(0, [0, 2, 4, 6]), (1, [0, 3])]), rows([(0, [0, 1, 4, 5]), (1, [0, 3])])
    found = align_spans(pivot, source, match_prefixes(pivot, source))
    assert found.pivot_span.tolist() == [0, 0, -1, -1, 1, 2]
    assert found.source_span.tolist() == [0, 0, -1, -1, 1, 2]
    assert found.pair.tolist() == [0, 2, 3]


def test_rows_before_the_first_pair_and_examples_without_one_lie_in_no_span():
    pivot, source = rows([(0, [0, 2, 6]), (1, [0, 3])]), rows([(0, [1, 2, 6])])
    found = align_spans(pivot, source, match_prefixes(pivot, source))
    assert found.pivot_span.tolist() == [-1, 0, 1, -1, -1]
    assert found.source_span.tolist() == [-1, 0, 1]


def test_pairs_in_any_order_and_none_at_all():
    pivot, source = rows([(0, [0, 2, 4, 6])]), rows([(0, [0, 1, 4, 5, 6])])
    pairs = match_prefixes(pivot, source)
    turned = align_spans(pivot, source, Pairs(pairs.pivot.flip(0), pairs.source.flip(0)))
    assert torch.equal(turned.sum_rows(pivot.gold, turned.pivot_span), turned.sum_rows(source.gold, turned.source_span))
    none = align_spans(pivot, source, Pairs(torch.empty(0).long(), torch.empty(0).long()))
    assert len(none) == 0
    assert (none.pivot_span == -1).all()
