"""The composed source: its ends, its weight, and the reward that it stands for."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from pydantic import ValidationError

from fusion.objectives import AlignDistil, ReverseKL
from fusion.objectives.token.aligndistil import compose, extrapolation, logprobs_of
from tests.helpers.rows import as_mapped, query, rows_of

OBJECTIVE = AlignDistil(expert="dpo", opposite="reversed")


def logits(count, M=9, V=12):
    return torch.randn(count, M, V, dtype=torch.float64) * 2


def value(mine, sources, objective=OBJECTIVE, share=None):
    """With whole rows of the sources, by name."""
    rows = {name: as_mapped(rows_of(each, each.shape[1])) for name, each in sources.items()}
    ids = torch.cat([each.ids for each in rows.values()], dim=1)
    about = next(iter(rows.values()))
    share = torch.full((len(rows), len(mine)), 1 / len(rows), dtype=mine.dtype) if share is None else share
    return objective(query(mine, ids, about), rows, share)


def test_the_value_is_the_weighted_reverse_kl_to_the_composed_source():
    mine, dpo, opposite = logits(3)
    p, n, q = (each.log_softmax(-1) for each in (dpo, opposite, mine))
    a = 10 * (p.exp() - n.exp()).abs().sum(-1) / 2 + 1e-3
    teacher = (p + a[:, None] * (p - n)).log_softmax(-1)
    known = 0.1 / a * (q.exp() * (q - teacher)).sum(-1)
    torch.testing.assert_close(value(mine, {"dpo": dpo, "reversed": opposite}), known)
    third = {"else": logits(1)[0], "reversed": opposite, "dpo": dpo}
    torch.testing.assert_close(value(mine, third), known)


def test_where_expert_and_opposite_agree_it_is_the_reverse_kl_to_the_expert():
    mine, dpo = logits(2)
    source = as_mapped(rows_of(dpo, 12))
    plain = ReverseKL()(query(mine, source.ids, source), source)
    torch.testing.assert_close(value(mine, {"dpo": dpo, "reversed": dpo}), 0.1 / 1e-3 * plain, rtol=1e-6, atol=1e-9)


def test_a_pivot_that_says_what_the_composed_source_says_has_no_loss_and_no_gradient():
    dpo, opposite = logits(2)
    p, n = dpo.log_softmax(-1), opposite.log_softmax(-1)
    mine = compose(p, n, extrapolation(p, n, 10.0, 1e-3)).requires_grad_()
    loss = value(mine, {"dpo": dpo, "reversed": opposite}).sum()
    assert loss.abs() < 1e-9
    assert torch.autograd.grad(loss, mine)[0].abs().max() < 1e-9


def test_constants_on_any_logits_change_nothing():
    mine, dpo, opposite = logits(3)
    moved = value(mine + 3, {"dpo": dpo - 5, "reversed": opposite + torch.randn(9, 1).double()})
    torch.testing.assert_close(moved, value(mine, {"dpo": dpo, "reversed": opposite}))


def test_the_extrapolation_lies_between_eps_and_ratio_plus_eps():
    p, n = (each.log_softmax(-1) for each in logits(2, M=200) * 5)
    a = extrapolation(p, n, 10.0, 1e-3)
    assert (a >= 1e-3).all()
    assert (a <= 10.001 + 1e-9).all()
    far = torch.tensor([[200.0, 0.0], [0.0, 200.0]], dtype=torch.float64).log_softmax(-1)
    torch.testing.assert_close(
        extrapolation(far, far.flip(0), 10.0, 1e-3), torch.full((2,), 10.001, dtype=torch.float64)
    )


def test_the_composed_log_probabilities_are_the_linear_combination_up_to_a_constant():
    p, n = (each.log_softmax(-1) for each in logits(2))
    a = torch.rand(9, dtype=torch.float64) * 5
    rest = compose(p, n, a).log_softmax(-1) - ((1 + a[:, None]) * p - a[:, None] * n)
    assert (rest - rest[:, :1]).abs().max() < 1e-9


def test_differences_of_the_rlhf_objective_are_differences_of_the_divergence():
    """Reward b0 log(dpo / ref) under KL strength b against ref has as its optimum z_ref + (b0/b)(z_dpo - z_ref)."""
    reference, dpo, one, other = (each.log_softmax(-1) for each in logits(4))
    b0, b = 0.3, 0.2
    best = compose(reference, dpo, torch.full((9,), -b0 / b, dtype=torch.float64)).log_softmax(-1)

    def rlhf(q):
        return (q.exp() * (b0 * (dpo - reference) - b * (q - reference))).sum(-1)

    def divergence(q):
        return b * (q.exp() * (q - best)).sum(-1)

    torch.testing.assert_close(rlhf(one) - rlhf(other), divergence(other) - divergence(one))
    at_equality = compose(reference, dpo, torch.full((9,), -1.0, dtype=torch.float64)).log_softmax(-1)
    torch.testing.assert_close(at_equality, dpo)


def test_rows_where_either_is_missing_count_nothing():
    mine, dpo, opposite = logits(3)
    share = torch.full((2, 9), 0.5, dtype=torch.float64)
    share[:, 2] = torch.tensor([1.0, 0.0])
    values = value(mine, {"dpo": dpo, "reversed": opposite}, share=share)
    assert values[2] == 0
    assert (values[[0, 1, 3]] > 0).all()


def test_tokens_that_one_of_them_lacks_take_no_part():
    mine, dpo, opposite = logits(3)
    rows = {name: as_mapped(rows_of(each, 12)) for name, each in (("dpo", dpo), ("reversed", opposite))}
    gone = rows["reversed"].ids == 3
    lacking = dataclasses.replace(
        rows["reversed"],
        logprobs=rows["reversed"].logprobs.masked_fill(gone, -torch.inf),
        ids=rows["reversed"].ids.masked_fill(gone, -1),
    )
    assert logprobs_of(lacking, rows["dpo"].ids).isneginf().sum() == 9
    ids = torch.cat([rows["dpo"].ids, lacking.ids], dim=1)
    share = torch.full((2, 9), 0.5, dtype=torch.float64)

    def value(given):
        return OBJECTIVE(query(given, ids, rows["dpo"]), {"dpo": rows["dpo"], "reversed": lacking}, share)

    more = mine + 5 * torch.nn.functional.one_hot(torch.full((9,), 3), 12)
    assert (value(mine) > 0).all()
    torch.testing.assert_close(value(more), value(mine))


def test_one_source_cannot_be_both():
    with pytest.raises(ValidationError, match="expert and opposite are both a"):
        AlignDistil(expert="a", opposite="a")
    assert OBJECTIVE.requirements.source_names == {"dpo", "reversed"}


@pytest.mark.parametrize("asked", [[0, 11], [2, 1], [11, -1]])
def test_log_probabilities_are_found_whichever_of_both_sides_has_the_largest_id(asked):
    whole = logits(1, M=1)[0]
    rows = as_mapped(rows_of(whole[:, :6], 6))  # which names the ids 0 to 5
    known = torch.cat([whole[:, :6].log_softmax(-1), torch.full((1, 6), -torch.inf, dtype=whole.dtype)], dim=1)
    ids = torch.tensor([asked])
    expected = known.gather(1, ids.clamp(min=0)).masked_fill(ids < 0, -torch.inf)
    torch.testing.assert_close(logprobs_of(rows, ids), expected)
