"""Lines of padded and of packed texts: every token once, every row at the token before the one it predicts."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fusion.data.batching import first_fit_decreasing, length_grouped_batches, pack_texts, pad_texts
from fusion.data.encode import Encoded


def texts_of(lengths):
    """Text b has tokens 100 b, 100 b + 1, ..., of which the first third is prompt."""
    found = []
    for b, length in enumerate(lengths):
        start = max(1, length // 3)
        found.append(Encoded([100 * b + i for i in range(length)], start, list(range(length - start)), False))
    return found


LENGTHS = [7, 12, 3, 9, 2, 5]


@pytest.mark.parametrize("length", [12, 15, 38, 1])
def test_packing_keeps_every_row_and_its_place(length):
    texts = texts_of(LENGTHS)
    padded, at, about = pad_texts(texts, "cpu", 999)
    packed, packed_at, packed_about = pack_texts(texts, "cpu", length, 999)
    for name in ("token", "prefix", "example"):
        assert torch.equal(getattr(about, name), getattr(packed_about, name))
    before = padded["input_ids"].flatten()[at]
    assert torch.equal(packed["input_ids"].flatten()[packed_at], before)
    assert torch.equal(before + 1, about.token)
    assert packed["input_ids"].shape[1] <= max(length, max(LENGTHS))


def test_positions_start_over_with_each_text():
    packed, _, _ = pack_texts(texts_of(LENGTHS), "cpu", 15, 999)
    ids, position = packed["input_ids"].flatten(), packed["position_ids"].flatten()
    real = ids != 999
    assert torch.equal(position[real], ids[real] % 100)
    assert (position[~real] == 0).all()
    assert sorted(ids[real].tolist()) == sorted(i for text in texts_of(LENGTHS) for i in text.input_ids)
    assert "attention_mask" not in packed


def test_packing_needs_fewer_lines():
    assert len(pad_texts(texts_of(LENGTHS), "cpu")[0]["input_ids"]) == 6
    assert len(pack_texts(texts_of(LENGTHS), "cpu", 20)[0]["input_ids"]) == 2  # 38 tokens


@given(st.lists(st.integers(1, 50), min_size=1, max_size=40), st.integers(1, 80))
def test_groups_hold_everything_once_and_never_more_than_fits(lengths, capacity):
    groups = first_fit_decreasing(lengths, capacity)
    assert sorted(i for group in groups for i in group) == list(range(len(lengths)))
    assert all(len(group) == 1 or sum(lengths[i] for i in group) <= capacity for group in groups)
    assert len(groups) <= sum(lengths) * 2 // capacity + sum(length > capacity for length in lengths) + 1


@given(st.lists(st.integers(1, 50), min_size=1, max_size=40), st.integers(1, 200))
def test_batches_hold_everything_once_longest_first(lengths, tokens):
    found = list(length_grouped_batches(lengths, tokens))
    assert sorted(i for batch in found for i in batch) == list(range(len(lengths)))
    assert all(len(batch) == 1 or len(batch) * max(lengths[i] for i in batch) <= tokens for batch in found)
    order = [lengths[i] for batch in found for i in batch]
    assert order == sorted(order, reverse=True)
