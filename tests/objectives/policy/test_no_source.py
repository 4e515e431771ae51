"""Controls that know nothing: which tokens they choose, and by how much they move them."""

from __future__ import annotations

import math

import pytest
import torch

from fusion.core.example import ExampleInfo
from fusion.objectives import OPSA, LeastLikely, RolloutTargets
from fusion.objectives.policy.no_source import least_likely
from fusion.objectives.policy.rollouts import rollout_rows
from tests.helpers.rollouts import inputs_of
from tests.helpers.rows import rows_of


@pytest.mark.parametrize("fraction", [0.07, 0.2, 0.5, 1.0])
def test_the_least_likely_share_of_each_text_is_chosen_and_at_least_one_token(fraction):
    lengths = [15, 1, 4, 100, 0, 7]
    example = torch.cat([torch.full((n,), e) for e, n in enumerate(lengths)])
    logprobs = -torch.rand(len(example), generator=torch.Generator().manual_seed(0)) * 9
    chosen = least_likely(logprobs, example, fraction)
    for e, length in enumerate(lengths):
        own = logprobs[example == e].tolist()
        number = math.ceil(round(fraction * length, 9))
        expected = sorted(own)[:number]
        assert sorted(logprobs[chosen & (example == e)].tolist()) == expected
    assert chosen[example == 1].tolist() == [True]


def batch(old, logits, example):
    pivot = rows_of(logits, logits.shape[1], None, example)
    infos = [ExampleInfo("d", f"e{n}", "rollouts") for n in range(int(example.max()) + 1)]
    return inputs_of(pivot, {}, infos, RolloutTargets(old, torch.zeros(len(infos))))


def test_the_tokens_that_the_writer_found_least_likely_get_a_fixed_advantage():
    old = torch.tensor([-1.0, -5.0, -0.1, -2.0, -3.0, -9.0])
    inputs = batch(old, torch.randn(6, 4), torch.tensor([0, 0, 0, 0, 0, 1]))
    assert LeastLikely().compute_advantages(rollout_rows(inputs)).tolist() == [0, -0.5, 0, 0, 0, -0.5]
    wider = LeastLikely(fraction=0.4, advantage=-2.0)
    assert wider.compute_advantages(rollout_rows(inputs)).tolist() == [0, -2, 0, 0, -2, -2]
    with pytest.raises(ValueError, match="less than 0"):
        LeastLikely(advantage=0.5)


def test_opsa_moves_the_chosen_tokens_by_their_entropy_between_the_least_and_the_largest_of_the_text():
    """Entropies of two, four and one likely tokens: log 2, log 4 and 0."""
    logits = torch.tensor([[0.0, 0, -1e3, -1e3], [0, 0, 0, 0], [0, -1e3, -1e3, -1e3], [0, 0, 0, 0], [0, 0, 0, 0]])
    old, example = torch.tensor([-4.0, -5.0, -6.0, -0.1, -3.0]), torch.tensor([0, 0, 0, 0, 1])
    found = OPSA(fraction=0.75).compute_advantages(rollout_rows(batch(old, logits, example)))
    assert found.tolist() == pytest.approx([-0.75, -1.0, -0.5, 0.0, -0.5])


def test_opsa_reads_the_whole_distribution_of_the_pivot_and_nothing_of_sources():
    assert OPSA().requirements.pivot_top_k is None
    assert OPSA().requirements.source_top_k == 0
    assert not OPSA().requirements.sources
