"""Random choices: the stream against its reference, chances by counting."""

import itertools

import numpy as np
import pytest
import torch
from scipy.stats import chisquare

from fusion.merging.methods.registry import DARELinear, DARETies, DELLALinear
from fusion.merging.methods.stateless_random import uniform
from tests.helpers import reference_merge as reference
from tests.helpers.merge_examples import base_and_models


def test_random_numbers_depend_on_their_place_alone_and_follow_the_reference():
    whole = uniform("a stream", 0, 5000)
    assert torch.equal(torch.cat([uniform("a stream", 0, 1234), uniform("a stream", 1234, 5000)]), whole)
    assert whole[:200].tolist() == [reference.draw("a stream", i) for i in range(200)]
    late = 2**32 - 3
    assert uniform("a stream", late, late + 6).tolist() == [reference.draw("a stream", late + i) for i in range(6)]


def test_random_numbers_are_uniform_and_streams_are_independent():
    one, two = (uniform(name, 0, 1 << 18).numpy() for name in ("one", "two"))
    counts, _ = np.histogram(one, bins=64, range=(0, 1))
    assert chisquare(counts).pvalue > 1e-4
    assert abs(np.corrcoef(one, two)[0, 1]) < 0.01
    assert abs(np.corrcoef(one[1:], one[:-1])[0, 1]) < 0.01


@pytest.mark.parametrize("method", [DARELinear(density=0.2, weights=[1.0]), DELLALinear(density=0.4, weights=[1.0])])
def test_what_is_dropped_at_random_is_made_up_for_on_average(method):
    base, change = torch.zeros(400, 1000), torch.linspace(0.5, 1.5, 1000).expand(400, 1000)
    merged = method(base, [change])
    torch.testing.assert_close(merged.mean(0).mean(), torch.tensor(1.0), rtol=0.02, atol=0)
    assert abs((merged != 0).double().mean() - method.density) < 0.005


def test_della_keeps_the_large_more_often_than_the_small():
    change = torch.linspace(0, 1, 1000).expand(500, 1000)
    kept = (DELLALinear(density=0.5, epsilon=0.3)(torch.zeros(500, 1000), [change]) != 0).double().mean(0)
    assert abs(kept[10:110].mean() - 0.236) < 0.01
    assert abs(kept[890:990].mean() - 0.764) < 0.01


def test_each_tensor_and_each_seed_drops_other_entries():
    base, models = base_and_models((30, 30))
    merged = {(name, seed): DARETies(seed=seed)(base, models, name) for name in "ab" for seed in (0, 1)}
    for first, second in itertools.combinations(merged.values(), 2):
        assert not torch.equal(first, second)
    assert torch.equal(merged["a", 0], DARETies()(base, models, "a"))
