"""Rows drawn at random: which terms have, on average, the gradient of the whole row. Averages are exact: over all outcomes."""

import dataclasses
import itertools
import math

import pytest
import torch

from fusion.alignment import map_entries
from fusion.core.rows import MappedRows
from fusion.objectives import ForwardKL, MappedObjective, Mixture
from tests.helpers.contract import EXAMPLES
from tests.helpers.rows import as_mapped, query, rows_of

V, D = 4, 3  # tokens, draws

MAPPED = [objective for objective in EXAMPLES if isinstance(objective, MappedObjective | Mixture)]
COUNTS = torch.tensor([c for c in itertools.product(range(D + 1), repeat=V) if sum(c) == D])  # every outcome of D draws


def chance(q):
    """Probability of each outcome, by the multinomial formula."""
    ways = torch.tensor([math.factorial(D) / math.prod(map(math.factorial, c)) for c in COUNTS.tolist()]).double()
    return ways * (q**COUNTS).prod(-1)


def drawn(p, tau=1.0):
    """A row for each outcome, and its probability. `p` are probabilities in float64."""
    q = p**tau / (p**tau).sum()
    there = COUNTS > 0
    logprobs = torch.where(there, (COUNTS / D).double().log() + (p / q).log(), -torch.inf)
    whole = rows_of(p.log().expand(len(COUNTS), V), V, torch.zeros(len(COUNTS), dtype=torch.long))
    ids = torch.where(there, torch.arange(V), -1)
    return as_mapped(whole, logprobs=logprobs, ids=ids, sample_counts=COUNTS), chance(q)


def gradient(objective, logits, source, weight):
    """Gradient, with respect to the pivot's logits [V], of the weighted sum of values over the source's rows."""
    logits = logits.clone().requires_grad_()
    pivot = query(logits.expand(len(source), -1), source.ids, source)
    if isinstance(objective, Mixture):
        values = objective(pivot, {"a": source}, torch.ones(1, len(source), dtype=logits.dtype))
    else:
        values = objective(pivot, source)
    (weight * values).sum().backward()
    return logits.grad


@pytest.fixture
def p():
    return torch.tensor([0.55, 0.05, 0.15, 0.25], dtype=torch.float64)


@pytest.fixture
def logits():
    return torch.tensor([0.3, -1.0, 1.5, 0.2], dtype=torch.float64)


def test_the_outcomes_have_probability_one_and_the_right_mean(p):
    rows, weight = drawn(p, tau=0.7)
    assert weight.sum() == pytest.approx(1)
    torch.testing.assert_close((weight[:, None] * rows.logprobs.exp()).sum(0), p)


@pytest.mark.parametrize("objective", MAPPED, ids=repr)
def test_a_term_accepts_drawn_rows_exactly_if_its_gradient_is_that_of_the_whole_row_on_average(objective, p, logits):
    required = objective.requirements
    if required.whole_batch or required.source_fields or required.source_top_k is None:
        assert required.exact_entries  # one row says nothing of it; or it reads what mapped rows only estimate
        return
    whole = as_mapped(rows_of(p.log()[None], V, torch.zeros(1, dtype=torch.long)))
    exact = gradient(objective, logits, whole, torch.ones(1, dtype=torch.float64))
    right = [torch.allclose(gradient(objective, logits, *drawn(p, tau)), exact, rtol=1e-5) for tau in (1.0, 0.7)]
    assert all(right) == (not required.exact_entries)


@pytest.mark.parametrize("tau", [1.0, 1.4])
def test_the_gradient_on_the_logits_is_the_mass_of_the_target_times_q_minus_the_target(tau, p, logits):
    rows, _ = drawn(p, tau)
    for row in range(len(rows)):
        one = rows.select(slice(row, row + 1))
        target = one.logprobs[0].exp()
        expected = target.sum() * logits.softmax(-1) - target
        torch.testing.assert_close(gradient(ForwardKL(), logits, one, torch.ones(1).double()), expected)


def test_at_tau_one_the_value_is_a_divergence_from_the_sample():
    p, q = torch.tensor([0.5, 0.3, 0.1, 0.1]).double(), torch.tensor([0.2, 0.3, 0.4, 0.1]).double()
    rows, _ = drawn(p)
    share = COUNTS / D
    expected = torch.special.xlogy(share, share) - share * q.log()
    values = ForwardKL()(query(q.log().expand(len(rows), V), rows.ids, rows), rows)
    torch.testing.assert_close(values, expected.sum(-1).double())
    assert (values >= 0).all()


def test_a_row_that_was_not_drawn_keeps_its_tail_beside_others(p, logits):
    """Such as one that spells the pivot's token in the source's: one exact entry."""
    rows, _ = drawn(p)
    exact = as_mapped(rows_of(p.log()[None], 1), sample_counts=torch.zeros(1, 1, dtype=torch.long))
    wide = dataclasses.replace(
        exact,
        logprobs=torch.cat([exact.logprobs, torch.full((1, V - 1), -torch.inf)], 1),
        ids=torch.cat([exact.ids, torch.full((1, V - 1), -1)], 1),
        sample_counts=torch.zeros(1, V, dtype=torch.long),
    )
    both = MappedRows.cat([rows.select(slice(0, 1)), wide])
    weight = torch.tensor([0.0, 1.0], dtype=torch.float64)
    alone = dataclasses.replace(exact, sample_counts=None)
    torch.testing.assert_close(
        gradient(ForwardKL(), logits, both, weight), gradient(ForwardKL(), logits, alone, torch.ones(1).double())
    )


MAP = torch.tensor([2, 0, 2, -1])  # two tokens to one, one to none


def under_the_map(rows):
    ids, logprobs, counts = map_entries(rows, MAP)
    return dataclasses.replace(rows, ids=ids, logprobs=logprobs, sample_counts=counts)


@pytest.mark.parametrize("tau", [1.0, 0.7])
def test_drawn_rows_stay_right_on_average_under_a_map_of_many_to_one(tau, p, logits):
    rows, weight = drawn(p, tau)
    mapped = under_the_map(rows)
    estimate = torch.zeros(len(rows), V, dtype=torch.float64)
    estimate.scatter_add_(1, mapped.ids.clamp(min=0), mapped.logprobs.exp())
    expected = torch.tensor([p[1], 0, p[0] + p[2], 0], dtype=torch.float64)
    torch.testing.assert_close((weight[:, None] * estimate).sum(0), expected)
    found = gradient(ForwardKL(), logits, mapped, weight)
    torch.testing.assert_close(found, expected.sum() * logits.softmax(-1) - expected)


def test_dividing_what_was_mapped_by_its_sum_would_be_biased(p):
    """Away from tau 1, where a sum is not the share of the draws that were mapped."""
    rows, weight = drawn(p, tau=0.3)
    mapped = under_the_map(rows)
    at, sums = mapped.ids.clamp(min=0), mapped.logprobs.exp().sum(-1, keepdim=True)
    some = (sums > 0)[:, 0]
    ratio = torch.zeros(len(rows), V).double().scatter_add_(1, at, mapped.logprobs.exp() / sums.clamp(min=1e-9))
    mean = (weight[:, None] * ratio)[some].sum(0) / weight[some].sum()
    assert (mean[2] - (p[0] + p[2]) / p[:3].sum()).abs() > 1e-2


def test_a_mixture_of_drawn_sources_is_right_on_average(p, logits):
    """Of two sources drawn apart: expectations over both."""
    other = torch.tensor([0.1, 0.2, 0.3, 0.4], dtype=torch.float64)
    (one, chance_one), (two, chance_two) = drawn(p), drawn(other)
    n, m = len(one), len(two)
    left, right = torch.arange(n).repeat_interleave(m), torch.arange(m).repeat(n)
    sources = {"a": one.select(left), "b": two.select(right)}
    share = torch.tensor([[0.3], [0.7]], dtype=torch.float64).expand(2, n * m)
    free = logits.clone().requires_grad_()
    ids = torch.cat([rows.ids for rows in sources.values()], dim=1)
    pivot = query(free.expand(n * m, -1), ids, sources["a"])
    values = Mixture()(pivot, sources, share)
    (chance_one[left] * chance_two[right] * values).sum().backward()
    torch.testing.assert_close(free.grad, logits.softmax(-1) - (0.3 * p + 0.7 * other))
