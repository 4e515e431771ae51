"""The divergence family against slow references, its bounds, and the divergences that its members become."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch

from fusion.objectives import L1, ForwardKL, JensenShannon, ReverseKL, SkewedKL
from fusion.objectives.token.divergences import mix
from tests.helpers import reference_outcomes as slow
from tests.helpers.mapped_rows import agreeing, mapped
from tests.helpers.rows import as_mapped, query, rows_of

MEMBERS = [
    (ForwardKL(), slow.kl),
    (ReverseKL(), lambda p, q: slow.kl(q, p)),
    (JensenShannon(), lambda p, q: slow.jensen_shannon(p, q, 0.5)),
    (JensenShannon(source_share=0.9), lambda p, q: slow.jensen_shannon(p, q, 0.9)),
    (SkewedKL(), lambda p, q: slow.kl(p, slow.mixed(p, q, 0.1))),
    (SkewedKL(skew=0.4, direction="reverse"), lambda p, q: slow.kl(q, slow.mixed(q, p, 0.4))),
    (L1(), slow.l1),
]
every_member = pytest.mark.parametrize(("objective", "definition"), MEMBERS, ids=[repr(o) for o, _ in MEMBERS])


@every_member
@pytest.mark.parametrize(("M", "K", "V"), [(5, 4, 11), (1, 1, 3), (40, 16, 257), (4, 3, 4)])
@pytest.mark.parametrize("top_k", [None, 1, 3])
def test_every_member_matches_its_definition(objective, definition, M, K, V, top_k):
    pivot, source = mapped(M, K, V)
    ours = objective.model_copy(update={"top_k": top_k})(pivot, source)
    torch.testing.assert_close(ours, slow.each_row(slow.outcomes(pivot, source, top_k), definition))


@every_member
def test_fewer_entries_never_raise_a_divergence(objective, definition):
    pivot, source = mapped(60, 12, 40)
    values = [objective.model_copy(update={"top_k": k})(pivot, source) for k in (1, 2, 5, 12)]
    assert all((fewer <= more + 1e-12).all() for fewer, more in pairwise(values))


def swapped(objective, a, b):
    """What the objective says with the roles of two whole rows of logits exchanged."""
    source, other = (as_mapped(rows_of(each, each.shape[1])) for each in (a, b))
    return objective(query(b, source.ids, source), source), objective(query(a, other.ids, other), other)


@pytest.mark.parametrize("objective", [JensenShannon(), L1()])
def test_jensen_shannon_and_l1_do_not_care_which_is_which(objective):
    one, other = swapped(objective, *torch.randn(2, 9, 13, dtype=torch.float64) * 2)
    torch.testing.assert_close(one, other)


def test_reverse_kl_is_forward_kl_with_the_roles_exchanged():
    a, b = torch.randn(2, 9, 13, dtype=torch.float64) * 2
    torch.testing.assert_close(swapped(ReverseKL(), a, b)[0], swapped(ForwardKL(), a, b)[1])


def test_jensen_shannon_never_exceeds_log_2_and_l1_never_2():
    apart = torch.tensor([[40.0, 0, 0, 0], [0, 0, 0, 40.0]], dtype=torch.float64)
    source = as_mapped(rows_of(apart, 4))
    pivot = query(apart.flip(0), source.ids, source)
    torch.testing.assert_close(JensenShannon()(pivot, source), torch.full((2,), math.log(2), dtype=torch.float64))
    torch.testing.assert_close(L1()(pivot, source), torch.full((2,), 2.0, dtype=torch.float64))


@pytest.mark.parametrize(("direction", "plain"), [("forward", ForwardKL()), ("reverse", ReverseKL())])
def test_without_skew_the_skewed_kl_is_the_plain_one(direction, plain):
    rows = mapped(20, 6, 40)
    torch.testing.assert_close(SkewedKL(skew=0.0, direction=direction)(*rows), plain(*rows))


def test_the_skewed_kl_is_at_most_the_log_of_the_inverse_of_its_skew():
    apart = torch.tensor([[400.0, 0, 0, 0]], dtype=torch.float64)
    source = as_mapped(rows_of(apart, 2))
    pivot = query(apart.flip(1), source.ids, source)
    assert ForwardKL()(pivot, source).item() > 100
    assert SkewedKL(skew=0.2)(pivot, source).item() == pytest.approx(math.log(5))


def test_l1_is_never_below_the_l1_of_the_sorted_probabilities():
    mine, theirs = torch.randn(2, 30, 12, dtype=torch.float64) * 2
    by_token, _ = swapped(L1(), mine, theirs)
    p, q = mine.softmax(-1).sort(-1).values, theirs.softmax(-1).sort(-1).values
    assert ((p - q).abs().sum(-1) <= by_token + 1e-12).all()


def test_the_log_of_a_mixture_has_a_finite_gradient_where_both_are_impossible():
    log_p = torch.tensor([[-math.inf, math.log(0.5), -math.inf]], requires_grad=True)
    log_q = torch.tensor([[-math.inf, -math.inf, math.log(0.25)]], requires_grad=True)
    found = mix(log_p, log_q, 0.2)
    torch.testing.assert_close(found.exp(), torch.tensor([[0.0, 0.1, 0.2]]))
    found[:, 1:].sum().backward()
    assert log_p.grad.isfinite().all()
    assert log_q.grad.isfinite().all()


@every_member
def test_every_member_is_positive_where_the_two_differ(objective, definition):
    pivot, source = mapped(50, 6, 40)
    assert (objective(pivot, source) > 1e-6).all()
    assert objective(*agreeing(torch.randn(5, 20, dtype=torch.float64), 6)).abs().max() < 1e-12
