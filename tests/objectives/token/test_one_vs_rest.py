"""One binary question a token: definition, bounds by KL, and the constant weight."""

from __future__ import annotations

import pytest
import torch
from pydantic import ValidationError

from fusion.objectives import ForwardKL, OneVsRest
from fusion.objectives.span.span_likelihood import two_outcomes
from fusion.objectives.token.outcomes import compare
from tests.helpers import reference_outcomes as slow
from tests.helpers.mapped_rows import mapped
from tests.helpers.rows import as_mapped, query, rows_of


@pytest.mark.parametrize(("M", "K", "V"), [(30, 4, 11), (1, 1, 3), (40, 16, 257)])
@pytest.mark.parametrize(("top_k", "beta"), [(None, 1.0), (2, 0.0), (None, 2.5)])
def test_one_vs_rest_matches_the_definition(M, K, V, top_k, beta):
    pivot, source = mapped(M, K, V)
    ours = OneVsRest(top_k=top_k, beta=beta)(pivot, source)
    known = slow.each_row(slow.outcomes(pivot, source, top_k), lambda p, q: slow.one_vs_rest(p, q, beta))
    torch.testing.assert_close(ours, known)


def test_of_two_outcomes_it_is_twice_the_kl():
    mine, theirs = torch.randn(2, 9, 2, dtype=torch.float64) * 3
    source = as_mapped(rows_of(theirs, 1))
    pivot = query(mine, source.ids, source)
    torch.testing.assert_close(OneVsRest(beta=0.0)(pivot, source), 2 * ForwardKL()(pivot, source))


def test_unweighted_it_is_never_below_the_kl():
    pivot, source = mapped(200, 6, 40)
    assert (OneVsRest(beta=0.0)(pivot, source) >= ForwardKL()(pivot, source) - 1e-12).all()


def test_the_weights_are_the_same_with_the_roles_exchanged_and_constant_for_the_gradient():
    logits = torch.randn(9, 20, dtype=torch.float64, requires_grad=True)
    source = as_mapped(rows_of(torch.randn(9, 20, dtype=torch.float64), 6))
    pivot = query(logits, source.ids, source)
    (ours,) = torch.autograd.grad(OneVsRest()(pivot, source).sum(), logits, retain_graph=True)
    both = compare(pivot, source).with_other()
    weight = (both.source.exp() - both.pivot.exp()).abs().detach()
    torch.testing.assert_close(weight, (both.pivot.exp() - both.source.exp()).abs().detach())
    (known,) = torch.autograd.grad((weight * two_outcomes(both.source, both.pivot)).sum(), logits)
    torch.testing.assert_close(ours, known)


def test_raw_logits_are_refused_by_name():
    with pytest.raises(ValidationError, match="mode: raw compares the logits themselves.*Use mode: logodds"):
        OneVsRest.model_validate({"mode": "raw"})
