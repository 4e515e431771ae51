"""Quantisers against loops in float64 and their own properties; codes through bits and a file."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fusion.training import quantized_weights
from fusion.training.quantized_weights import (
    Codes,
    binary,
    grouped,
    pack_codes,
    straight_through,
    ternary,
    uniform,
    unpack_codes,
)

SIZES = [(5, 33), (1, 1), (3, 2), (2, 700)]


def weights(G, n):
    return torch.randn(G, n, generator=torch.Generator().manual_seed(G * n), dtype=torch.float64) * 0.02


def ternary_by_hand(row, threshold=0.7):
    limit = threshold * sum(map(abs, row)) / len(row)
    kept = [abs(w) > limit for w in row]
    scale = sum(abs(w) for w, k in zip(row, kept, strict=True) if k) / max(1, sum(kept))
    return [math.copysign(scale, w) if k else 0.0 for w, k in zip(row, kept, strict=True)]


@pytest.mark.parametrize(("G", "n"), SIZES)
def test_ternary_is_the_definition(G, n):
    w = weights(G, n)
    expected = torch.tensor([ternary_by_hand(row) for row in w.tolist()], dtype=torch.float64)
    torch.testing.assert_close(ternary(w).values(), expected)


@pytest.mark.parametrize(("G", "n"), SIZES)
def test_a_ternary_row_has_at_most_three_values_and_its_scale_is_the_least_squares_one(G, n):
    w = weights(G, n)
    q = ternary(w).values()
    assert all(len(row.unique()) <= 3 for row in q)
    assert ((w - q) * q).sum(-1).abs().max() < 1e-12


def test_ternary_done_twice_is_ternary_done_once():
    once = ternary(weights(5, 33))
    twice = ternary(once.values())
    assert torch.equal(twice.codes, once.codes)
    torch.testing.assert_close(twice.values(), once.values())


@pytest.mark.parametrize("quantiser", [ternary, binary])
@pytest.mark.parametrize("c", [0.5, 3.7, -1.0, -2.5])
def test_a_factor_on_the_weights_is_a_factor_on_what_becomes_of_them(quantiser, c):
    w = weights(5, 33)
    torch.testing.assert_close(quantiser(c * w).values(), c * quantiser(w).values())


@pytest.mark.parametrize("quantiser", [ternary, binary, uniform])
def test_rows_of_zeros_stay_zeros(quantiser):
    assert torch.equal(quantiser(torch.zeros(2, 5)).values(), torch.zeros(2, 5))


def test_binary_keeps_the_sign_and_the_mean_size():
    w = weights(5, 33)
    q = binary(w).values()
    assert torch.equal(q.sign(), w.sign())
    torch.testing.assert_close(q.abs(), w.abs().mean(-1, keepdim=True).expand_as(w))


def test_four_bits_keep_both_ends_and_err_by_half_a_step():
    w = weights(5, 33)
    q, step = uniform(w).values(), (w.amax(-1) - w.amin(-1)) / 15
    assert ((q - w).abs().amax(-1) <= step / 2 + 1e-12).all()
    torch.testing.assert_close(q.amin(-1), w.amin(-1))
    torch.testing.assert_close(q.amax(-1), w.amax(-1))
    assert max(len(row.unique()) for row in q) <= 16
    assert torch.equal(uniform(torch.full((1, 3), 0.7)).values(), torch.full((1, 3), 0.7))


def test_more_bits_err_less():
    w = weights(20, 200)
    errors = [float((quantiser(w).values() - w).square().sum()) for quantiser in (binary, ternary, uniform)]
    assert errors == sorted(errors, reverse=True)


@pytest.mark.parametrize(("per", "groups"), [("row", 6), ("tensor", 1), (4, 18), (12, 6)])
def test_groups_are_rows_the_whole_or_neighbours_in_a_row(per, groups):
    w = torch.arange(72.0).view(6, 12)
    cut = grouped(w, per)
    assert cut.shape == (groups, 72 // groups)
    assert torch.equal(cut.reshape(6, 12), w)


def test_groups_that_do_not_fill_a_row_are_refused():
    with pytest.raises(ValueError, match="rows of 12 weights cannot be cut into groups of 5"):
        grouped(torch.zeros(6, 12), 5)


def test_the_gradient_passes_bit_for_bit():
    w = weights(5, 33).float().requires_grad_()
    above = torch.randn(5, 33)
    q = straight_through(w, ternary(w.detach()).values())
    assert torch.equal(q, ternary(w.detach()).values())
    q.backward(above)
    assert torch.equal(w.grad, above)


@settings(deadline=None)
@given(st.data(), st.sampled_from([1, 2, 4]))
def test_codes_come_back_from_bits(data, bits):
    codes = torch.tensor(
        data.draw(st.lists(st.integers(0, (1 << bits) - 1), min_size=1, max_size=40)), dtype=torch.int8
    )
    packed = pack_codes(codes[None], bits)
    assert len(packed) == math.ceil(len(codes) * bits / 8)
    assert torch.equal(unpack_codes(packed, bits, len(codes)), codes)
    assert int(packed[0]) & ((1 << bits) - 1) == codes[0]  # lowest bits first


@pytest.mark.parametrize(("quantiser", "bits"), [(ternary, 2), (binary, 1), (uniform, 4)])
@pytest.mark.parametrize("per", ["row", "tensor", 7])
def test_a_file_of_codes_gives_exactly_the_weights(tmp_path, quantiser, bits, per):
    layers = {}
    for name, w in {"a.b": weights(6, 21).float(), "c": weights(3, 7).float()}.items():
        codes: Codes = quantiser(grouped(w, per))
        layers[name] = codes, codes.values().view_as(w)
    quantized_weights.save_codes(tmp_path / "new" / "codes.safetensors", layers, bits)
    again = quantized_weights.load_weights(tmp_path / "new" / "codes.safetensors")
    assert again.keys() == layers.keys()
    assert all(torch.equal(again[name], weight) for name, (_, weight) in layers.items())
