"""Thresholds against a sort, and the edge below them against rounding."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fusion.merging.methods.threshold import STRIDE, largest_below, thresholds
from tests.helpers import reference_merge as reference


def each_of(numbers, size=7):
    def each(do):
        for piece in numbers.split(size):
            do(piece)

    return each


def threshold(numbers, fraction, **options):
    (found,) = thresholds(each_of(numbers), lambda piece: [piece], [fraction], **options)
    return found


@settings(deadline=None)
@given(values=st.lists(st.floats(0, 2.0**127, width=32), min_size=1, max_size=60), fraction=st.floats(0.01, 1))
def test_the_threshold_is_the_one_a_sort_finds(values, fraction):
    numbers = torch.tensor(values, dtype=torch.float32)
    count = reference.kept(fraction, len(values))
    assert threshold(numbers, fraction) == sorted(numbers.tolist(), reverse=True)[count - 1]


def test_several_sequences_have_each_their_own_threshold():
    numbers = torch.rand(3, 1000, generator=torch.Generator().manual_seed(0))
    found = thresholds(each_of(numbers.T, 100), lambda piece: list(piece.T.contiguous()), [0.1, 0.5, 0.999])
    assert found == [sorted(row.tolist())[-n] for row, n in zip(numbers, (100, 500, 999), strict=True)]


def test_the_threshold_reads_its_fraction_as_the_decimal_that_was_written():
    numbers = torch.arange(1, 101, dtype=torch.float32)
    assert 0.29 * 100 < 29
    assert threshold(numbers, 0.29) == 72.0


def test_the_threshold_among_nonzero_numbers_ignores_zeros():
    numbers = torch.tensor([0.0] * 90 + [float(x) for x in range(1, 11)])
    assert threshold(numbers, 0.2, nonzero=True) == 9.0
    assert threshold(numbers, 0.2) == 0.0
    assert threshold(torch.zeros(5), 0.2, nonzero=True) == math.inf


@given(st.floats(2.0**-140, 2.0**120, width=32), st.floats(-3, 3))
def test_what_lies_above_the_edge_is_what_rounds_to_the_threshold_or_more(limit, ulps):
    apart, edge = float(np.spacing(np.float32(limit))), largest_below(limit)
    for value in (limit + ulps * apart, edge, math.nextafter(edge, math.inf), limit, limit - apart / 2):
        assert (value > edge) == (float(np.float32(value)) >= limit)


def counted(each):
    """`each`, and a list that grows by one with every pass."""
    passes = []

    def counting(do):
        passes.append(do)
        each(do)

    return counting, passes


@pytest.mark.parametrize("fraction", [0.1, 0.3, 0.6])
@pytest.mark.parametrize("nonzero", [False, True])
def test_many_numbers_are_looked_at_twice(fraction, nonzero):
    numbers = torch.randn(400_000, generator=torch.Generator().manual_seed(0)).abs()
    each, passes = counted(each_of(numbers, 50_000))
    (found,) = thresholds(each, lambda piece: [piece], [fraction], nonzero=nonzero)
    assert found == numbers.sort(descending=True).values[reference.kept(fraction, len(numbers)) - 1]
    assert len(passes) == 2


@pytest.mark.parametrize("fraction", [0.1, 0.6, 0.999])
@pytest.mark.parametrize("nonzero", [False, True])
def test_the_threshold_of_many_numbers_that_tie_is_the_one_a_sort_finds(fraction, nonzero):
    numbers = torch.randn(400_000, generator=torch.Generator().manual_seed(0)).mul(4).round().abs()
    (found,) = thresholds(each_of(numbers, 50_000), lambda piece: [piece], [fraction], nonzero=nonzero)
    counting = int((numbers > 0).sum()) if nonzero else len(numbers)
    assert found == numbers.sort(descending=True).values[reference.kept(fraction, counting) - 1]


def test_a_sample_that_misleads_costs_two_more_passes_and_changes_nothing():
    numbers = torch.rand(70_000, generator=torch.Generator().manual_seed(0)) + 1
    numbers[::STRIDE] *= 100
    each, passes = counted(each_of(numbers, 10 * STRIDE))
    (found,) = thresholds(each, lambda piece: [piece], [0.5])
    assert found == numbers.sort(descending=True).values[35_000 - 1]
    assert len(passes) > 2


@given(st.floats(2.0**-140, 2.0**120, width=32))
def test_the_edge_in_float32_is_the_number_before(limit):
    assert largest_below(limit, torch.float32) < limit
    assert np.nextafter(np.float32(largest_below(limit, torch.float32)), np.float32(np.inf)) == np.float32(limit)
