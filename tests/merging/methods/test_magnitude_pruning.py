"""TIES on paper, entries that tie, and the guess at RSAF."""

import itertools

import pytest
import torch

from fusion.merging.methods import tiles
from fusion.merging.methods.magnitude_pruning import adaptive_densities
from fusion.merging.methods.registry import TIES


def test_ties_gives_the_numbers_worked_on_paper():
    # Five entries, density 0.6: three of each model are kept, (those) are not.
    #   a         4    -3     2   (-1)  (0.5)
    #   b         2    (1)  (-1)    3    -6
    #   c        (0)  (0.5)   1    -3     2
    #   elected   +     -     +   none    -      the sums are 6, -3, 3, 0, -4
    #   mean      3    -3    1.5    0    -6      of a and b, a, a and c, nobody, b
    base = torch.tensor([10.0, 20.0, 30.0, 40.0, 50.0])
    a = torch.tensor([4.0, -3.0, 2.0, -1.0, 0.5])
    b = torch.tensor([2.0, 1.0, -1.0, 3.0, -6.0])
    c = torch.tensor([0.0, 0.5, 1.0, -3.0, 2.0])
    merged = TIES(density=0.6)(base, [base + a, base + b, base + c])
    assert merged.tolist() == [13.0, 17.0, 31.5, 40.0, 44.0]


def test_ties_weights_both_the_election_and_the_mean():
    # 1·3 - 2·2 = -1 elects minus in the first entry; (1·2 + 2·8) / 3 = 6 in the second
    merged = TIES(density=1, weights=[1, 2])(torch.zeros(2), [torch.tensor([3.0, 2.0]), torch.tensor([-2.0, 8.0])])
    torch.testing.assert_close(merged, torch.tensor([-2.0, 6.0]))


def test_an_adaptive_density_is_the_density_where_all_changes_are_normal_and_equal_in_size():
    draw = torch.Generator().manual_seed(3)
    models = [torch.randn(100_000, generator=draw) for _ in range(2)]
    kept = (TIES(adaptive=True, density=0.3)(torch.zeros(100_000), models) != 0).double().mean()
    fixed = (TIES(density=0.3)(torch.zeros(100_000), models) != 0).double().mean()
    assert abs(kept - fixed) < 0.01


def test_an_adaptive_density_keeps_more_of_what_changed_more_and_less_of_what_is_skewed():
    draw = torch.Generator().manual_seed(3)
    normal = torch.randn(50_000, generator=draw)
    stack_ = tiles.TensorStack.from_tensors(
        torch.zeros(50_000), [normal, 3 * normal, normal**3 * normal.abs().mean() / (normal**3).abs().mean()]
    )
    small, large, skewed = adaptive_densities(stack_, [0.2] * 3)
    assert large == pytest.approx(3 * small, rel=1e-3)
    assert skewed < 0.5 * small


def test_entries_that_tie_with_the_last_kept_are_kept_too():
    merged = TIES(density=0.5)(torch.zeros(4), [torch.tensor([1.0, -1.0, 1.0, 0.5])])
    assert merged.tolist() == [1.0, -1.0, 1.0, 0.0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
def test_an_election_is_decided_by_what_float32_would_round_away(dtype):
    changes = [torch.tensor([x], dtype=dtype) for x in (1, 2**-30, -1)]
    for order in itertools.permutations(changes):
        merged = TIES(density=1)(torch.zeros(1, dtype=dtype), order)
        torch.testing.assert_close(merged, torch.tensor([0.5]))
