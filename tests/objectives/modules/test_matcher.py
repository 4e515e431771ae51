"""A matcher of rows: its score and cross-entropy against loops, who learns from what, and wrong pairs that it finds."""

import dataclasses
import math

import pytest
import torch
from pydantic import ValidationError

from fusion.objectives import Confident, ForwardKL, Matcher, ModuleSpec
from fusion.objectives.modules.matcher import PairMatcher, matched
from tests.helpers.hidden_rows import random_states, rotation
from tests.helpers.rows import as_mapped, query, random_rows, rows_of

V, D, WIDTH = 9, 6, 4
EXAMPLE = torch.tensor([0] * 5 + [1] + [2] * 3)


def pair(seed=0, example=EXAMPLE):
    """Logits with gradients, and the rows of a pivot and a source about the same ids, both with hidden states."""
    n = len(example)
    logits = random_states(n, V, seed=seed).requires_grad_()
    about = dataclasses.replace(random_rows(n, 0, V, torch.float64, seed=seed), example=example, prefix=torch.arange(n))
    source = rows_of(random_states(n, V, seed=seed + 1), 3, about.token, example)
    source = as_mapped(source, hidden=random_states(n, WIDTH, seed=seed + 2))
    pivot = dataclasses.replace(
        query(logits, source.ids, about), hidden=random_states(n, D, seed=seed + 3).requires_grad_()
    )
    return logits, pivot, source


def module(term=None):
    torch.manual_seed(1)
    return (term or Matcher()).build_module(ModuleSpec(D, WIDTH, V, lambda _: None, lambda: None)).double()


def loops(module, pivot, source):
    """Score and cross-entropy of each row, one pair after another."""
    mine, theirs = pivot.hidden.detach(), source.hidden

    def odds(i, j):
        a, b = module.projector.weight.detach() @ mine[i], theirs[j]
        return float(module.scale) * float(a @ b / a.norm() / b.norm()) + float(module.bias)

    scores, entropies = [], []
    for i in range(len(mine)):
        others = [j for j in range(len(mine)) if j != i and source.example[j] == pivot.example[i]]
        apart = [math.log(1 + math.exp(odds(i, j))) for j in others]
        scores.append(1 / (1 + math.exp(-odds(i, i))))
        entropies.append((-math.log(scores[-1]) + (sum(apart) / len(apart) if apart else 0.0)) / 2)
    return torch.tensor(scores).double(), torch.tensor(entropies).double()


def test_values_are_those_of_loops_over_all_pairs_of_an_example():
    _, pivot, source = pair()
    made = module()
    with torch.no_grad():
        made.scale.fill_(3.0)
        made.bias.fill_(-0.4)
    scores, entropies = loops(made, pivot, source)
    found = matched(made(pivot.hidden, source.hidden, pivot), pivot)
    torch.testing.assert_close(found[0], scores)
    torch.testing.assert_close(found[1], entropies)
    assert ((found[0] > 0) & (found[0] < 1)).all()
    torch.testing.assert_close(Matcher()(pivot, source, made), scores * ForwardKL()(pivot, source) + entropies)


def test_the_only_row_of_an_example_is_told_from_no_other():
    _, pivot, source = pair(example=torch.zeros(1, dtype=torch.long))
    score, entropy = matched(module()(pivot.hidden, source.hidden, pivot), pivot)
    torch.testing.assert_close(entropy, -score.log() / 2)


def test_a_sure_matcher_leaves_the_term_as_it_is_and_one_that_denies_all_silences_it():
    _, pivot, source = pair()
    for bias, share in ((60.0, 1.0), (-60.0, 0.0)):
        made = module()
        with torch.no_grad():
            made.bias.fill_(bias)
        left = Matcher()(pivot, source, made) - matched(made(pivot.hidden, source.hidden, pivot), pivot)[1]
        torch.testing.assert_close(left, share * ForwardKL()(pivot, source), atol=1e-12, rtol=1e-9)


def test_the_pivot_learns_from_the_term_alone_and_the_matcher_from_its_cross_entropy_alone():
    logits, pivot, source = pair()
    made = module()
    mine = torch.autograd.grad(Matcher()(pivot, source, made).sum(), [logits, *made.parameters()], retain_graph=True)
    score, entropy = matched(made(pivot.hidden.detach(), source.hidden, pivot), pivot)
    term = torch.autograd.grad((score.detach() * ForwardKL()(pivot, source)).sum(), logits, retain_graph=True)
    own = torch.autograd.grad(entropy.sum(), list(made.parameters()))
    torch.testing.assert_close(mine, (*term, *own))
    (hidden,) = torch.autograd.grad(Matcher()(pivot, source, made).sum(), pivot.hidden, allow_unused=True)
    assert hidden is None


def test_a_trained_matcher_finds_the_pairs_that_were_matched_wrongly():
    """The source's states are the pivot's, turned, with noise; a fifth of the rows got another row's."""
    example = torch.arange(1000) // 20
    _, pivot, source = pair(example=example)
    states = random_states(1000, 12, seed=8)
    theirs = states @ rotation(12, seed=9) + 0.3 * random_states(1000, 12, seed=10)
    wrong = torch.arange(1000) % 5 == 2
    theirs[wrong] = theirs[wrong].roll(1, 0)
    pivot, source = dataclasses.replace(pivot.detach(), hidden=states), dataclasses.replace(source, hidden=theirs)
    torch.manual_seed(2)
    made = Matcher().build_module(ModuleSpec(12, 12, V, lambda _: None, lambda: None)).double()

    def scores():
        return matched(made(pivot.hidden, source.hidden, pivot), pivot)[0].detach()

    before, optimizer = scores(), torch.optim.Adam(made.parameters(), 0.02)
    for _ in range(200):
        optimizer.zero_grad()
        Matcher()(pivot, source, made).sum().backward()
        optimizer.step()
    assert before[~wrong].mean() < 0.7
    assert scores()[~wrong].mean() > 0.9
    assert scores()[wrong].mean() < 0.4


def test_a_call_without_a_module_and_a_weight_inside_are_refused():
    _, pivot, source = pair()
    with pytest.raises(ValueError, match="matcher tells pairs apart by a module, made by `build_module`"):
        Matcher()(pivot, source)
    for term in (ForwardKL(weight=0.5), ForwardKL(select=Confident(threshold=0.5))):
        with pytest.raises(ValidationError, match="set weight and select on the matcher, not inside `objective`"):
            Matcher(objective=term)
    with pytest.raises(ValueError, match="no hidden states"):
        Matcher()(dataclasses.replace(pivot, hidden=None), source, module())


def test_what_the_term_needs_is_needed_beside_hidden_states():
    assert Matcher().required_source_fields == {"hidden"}
    term = Matcher.model_validate({"objective": {"kind": "plackett_luce"}})
    assert term.required_source_fields == term.required_pivot_fields == {"hidden", "gold"}
    assert not Matcher().requirements.exact_entries
    assert term.requirements.exact_entries
    assert isinstance(term.build_module(ModuleSpec(D, WIDTH, V, lambda _: None, lambda: None)), PairMatcher)
