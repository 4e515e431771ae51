"""Packed rows against the rows they were made from: errors within what is stated, ids and places exact."""

import dataclasses
import functools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fusion.cache.bit_packing import pack, row_bytes, unpack
from fusion.cache.codec import bytes_per_row, decode, encode
from fusion.cache.value_scales import GAP, GOLD, MEAN, STD, TOP, Scale
from fusion.core.rows import LogitRows
from fusion.objectives import ForwardKL, InfiFusion
from tests.helpers.rows import as_mapped

V = 152_064


def random_rows(*sizes, **more):
    """Rows as models give them: from nearly certain to nearly even, in examples of 50 rows with tokens of 1 to 20 bytes."""
    made = vars(drawn(*sizes, **more))
    return LogitRows(**{name: values if values is None else values.clone() for name, values in made.items()})


@functools.cache
def drawn(count=500, k=10, vocabulary=V, spread=4.0, seed=0):
    """Rows that no test may change."""
    generator = torch.Generator().manual_seed(seed)
    temperature = torch.rand(count, 1, generator=generator) * spread + 0.05
    logits = torch.randn(count, 3000, generator=generator).double() / temperature * 2
    full = logits.log_softmax(-1)
    logprobs, _ = full.float().topk(k)
    ids = torch.stack([torch.randperm(vocabulary, generator=generator)[:k] for _ in range(count)])
    prefix = torch.randint(1, 20, (count,), generator=generator).reshape(-1, 50).cumsum(1)
    prefix = (prefix - prefix[:, :1]).flatten()
    gold = full.gather(1, torch.randint(3000, (count, 1), generator=generator))[:, 0].float()
    mean, std = full.mean(-1).float(), full.std(-1, correction=0).float()
    return LogitRows(logprobs, ids, gold, mean, std, prefix=prefix, example=torch.arange(count) // 50)


def there_and_back(rows, vocabulary=V):
    return decode(encode(rows, "packed", vocabulary), rows.example, rows.k, vocabulary)


@pytest.mark.parametrize("widths", [[1], [18] * 10 + [9] * 10 + [11, 12, 11, 8], [32, 1, 31, 7, 8, 9], [5] * 3])
def test_numbers_of_any_width_come_back_from_bits(widths):
    rng = np.random.default_rng(0)
    columns = [rng.integers(0, 1 << width, 9001, dtype=np.uint64).astype(np.uint32) for width in widths]
    columns[0][:2] = 0, (1 << widths[0]) - 1
    packed = pack(columns, widths)
    assert packed.shape == (9001, row_bytes(widths))
    for column, again in zip(columns, unpack(packed, widths), strict=True):
        assert np.array_equal(column, again)


def test_bits_lie_where_a_loop_puts_them():
    widths, columns = [3, 18, 9], [np.array([5, 1]), np.array([200_000, 7]), np.array([300, 511])]
    for row, found in zip(zip(*columns, strict=True), pack(columns, widths), strict=True):
        whole = sum(int(number) << sum(widths[:i]) for i, number in enumerate(row))
        assert int.from_bytes(found.tobytes(), "little") == whole


@pytest.mark.parametrize("scale", [TOP, GAP, GOLD, MEAN, STD])
def test_a_scale_rises_and_is_as_fine_as_it_says(scale: Scale):
    table = scale.table[:-1].astype(np.float64)
    assert len(scale.table) == 1 << scale.bits
    assert np.isnan(scale.table[-1])
    assert (np.diff(table) > 0).all()
    assert table[-1] == pytest.approx(scale.maximum, rel=1e-5)
    values = np.geomspace(scale.floor, max(scale.knee, scale.floor * 2), 20_000).astype(np.float32)
    error = np.abs(scale.decode(scale.encode(values)) - values)
    if scale.step:
        assert (error <= np.maximum(scale.step / 2, 0) * 1.01).all()
        assert (error <= np.maximum((scale.ratio - 1) / 2 * values * 1.02, scale.floor / 2)).mean() > 0.3
    assert np.array_equal(scale.encode(scale.table), np.arange(len(scale.table)))  # a value is its own nearest


def test_the_stated_errors_hold_on_rows_of_every_sharpness():
    rows = random_rows()
    again = there_and_back(rows)
    assert (again.logprobs - rows.logprobs).abs().max() <= 0.0301
    for name, knee, allowed in (("gold", 40, 0.0151), ("mean", 56, 0.0081)):
        exact, read = getattr(rows, name), getattr(again, name)
        near = exact > -knee
        assert near.float().mean() > 0.9
        assert (read - exact)[near].abs().max() <= allowed
        assert ((read - exact) / exact).abs().max() < 0.03
    assert ((again.std - rows.std).abs() / rows.std).max() <= 0.005
    for name in ("ids", "prefix", "example"):
        assert torch.equal(getattr(again, name), getattr(rows, name))
    assert (again.logprobs.diff(dim=1) <= 0).all()


def test_probabilities_near_one_keep_their_remainder():
    rest = torch.logspace(-6, -1, 50)
    rows = random_rows(50)
    rows = LogitRows(**{**vars(rows), "logprobs": torch.log1p(-rest)[:, None] - torch.arange(10.0)})
    again = there_and_back(rows)
    assert ((-torch.expm1(again.logprobs[:, 0]) - rest).abs() / rest).max() < 0.04


@pytest.mark.parametrize(
    ("k", "vocabulary", "size"), [(10, V, 39), (10, 2**18, 39), (10, 2**18 + 1, 41), (1, 49_152, 9)]
)
def test_a_row_takes_the_bytes_that_are_said(k, vocabulary, size):
    rows = random_rows(50, k=k, vocabulary=vocabulary)
    (packed,) = encode(rows, "packed", vocabulary).values()
    assert packed.shape[1] == bytes_per_row(k, "packed", vocabulary) == size
    assert torch.equal(there_and_back(rows, vocabulary).ids, rows.ids)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.lists(st.integers(-1, 400), min_size=1, max_size=8), min_size=1, max_size=5))
def test_any_prefixes_come_back(examples):
    prefix = torch.tensor([p for example in examples for p in example])
    number = torch.tensor([n for n, example in enumerate(examples) for _ in example])
    rows = random_rows(50).select(torch.arange(len(prefix)))
    rows = LogitRows(**{**vars(rows), "prefix": prefix, "example": number})
    assert torch.equal(there_and_back(rows).prefix, prefix)


def test_empty_entries_and_unknown_numbers_stay_so():
    rows = random_rows(50)
    rows.logprobs[3, 4:], rows.ids[3, 4:] = -torch.inf, -1
    rows.logprobs[4], rows.ids[4] = -torch.inf, -1
    for name in ("gold", "mean", "std"):
        getattr(rows, name)[5] = torch.nan
    again = there_and_back(rows)
    assert torch.equal(again.ids, rows.ids)
    assert torch.equal(again.logprobs.isneginf(), rows.logprobs.isneginf())
    assert again.gold[5].isnan()
    assert again.mean[5].isnan()
    assert again.std[5].isnan()
    assert not again.gold[4].isnan()


@pytest.mark.parametrize("spoil", ["order", "low"])
def test_rows_that_do_not_fit_the_scales_are_refused(spoil):
    rows = random_rows(50)
    if spoil == "order":
        rows.logprobs[7] = rows.logprobs[7].flip(0)
    else:
        rows.logprobs[7] = -20.0
    with pytest.raises(ValueError, match="extract.value_format to float16"):
        encode(rows, "packed", V)


def test_no_other_format_is_advised_for_rows_that_are_no_numbers():
    rows = random_rows(50)
    rows.logprobs[7] = torch.nan
    with pytest.raises(ValueError, match="1 of 50 rows hold NaN, which no form of a cache can mend"):
        encode(rows, "packed", V)


@pytest.mark.parametrize("values", ["packed", "float16", "float32"])
def test_hidden_states_come_back_as_float16_holds_them(values):
    hidden = torch.randn(500, 24) * 30
    rows = dataclasses.replace(random_rows(), hidden=hidden)
    tensors = encode(rows, values, V)
    again = decode(tensors, rows.example, rows.k, V)
    assert torch.equal(again.hidden, hidden.half().float())
    assert torch.equal(again.ids, rows.ids)
    assert tensors["hidden"].dtype == torch.float16
    assert bytes_per_row(10, values, V, 24) - bytes_per_row(10, values, V) == tensors["hidden"].nbytes / 500 == 48
    del tensors["hidden"]
    assert decode(tensors, rows.example, rows.k, V).hidden is None


def test_hidden_states_beyond_float16_are_refused():
    hidden = torch.zeros(500, 4)
    hidden[7, 2], hidden[9, 0] = 7e4, -1e9
    with pytest.raises(ValueError, match=r"2 of these 500 go beyond it. Set extract.hidden_states to false"):
        encode(dataclasses.replace(random_rows(), hidden=hidden), "packed", V)


@pytest.mark.parametrize("values", ["packed", "float16"])
def test_an_id_outside_the_vocabulary_is_refused(values):
    rows = random_rows(50)
    with pytest.raises(ValueError, match=r"names the token \d+, but the vocabulary has 5000"):
        encode(rows, values, 5000)


def test_packing_moves_the_losses_by_less_than_one_percent():
    """Of their size on rows that differ as two models do; see docs/performance.md for real models."""
    pivot, source = random_rows(seed=1), random_rows(seed=2)
    again = there_and_back(source)
    source, again = (dataclasses.replace(rows, ids=source.ids) for rows in (source, again))
    for values in (
        [InfiFusion()(pivot, rows) for rows in (source, again)],
        [ForwardKL()(dataclasses.replace(pivot, ids=source.ids), as_mapped(rows)) for rows in (source, again)],
    ):
        exact, packed = (value.mean() for value in values)
        assert (packed - exact).abs() < 0.01 * exact
