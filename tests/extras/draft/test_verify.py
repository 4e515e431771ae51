"""Guess and check against the target alone: the same tokens where greedy, the same distribution where sampled."""

import itertools

import pytest
import torch
from scipy import stats

from fusion.extras.draft import verify_greedy, verify_sampled

V = 5


def table(seed, sharp=1.5):
    """A toy model: the distribution of the next token after each of V tokens."""
    return (torch.randn(V, V, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * sharp).softmax(-1)


def test_guesses_stand_up_to_the_first_that_is_not_the_targets_choice():
    best = torch.eye(V)[[3, 1, 4, 0]]
    assert verify_greedy(torch.tensor([3, 1, 4]), best) == (3, 0)
    assert verify_greedy(torch.tensor([3, 2, 4]), best) == (1, 1)
    assert verify_greedy(torch.tensor([0, 1, 4]), best) == (0, 3)
    assert verify_greedy(torch.tensor([], dtype=torch.long), best[:1]) == (0, 3)


def written(target, draft, first, length, generator):
    """`length` tokens after `first`, by checks of chains of two guesses."""
    tokens = [first]
    while len(tokens) <= length:
        guesses, q, now = [], [], tokens[-1]
        for _ in range(2):
            q.append(draft[now])
            now = int(torch.multinomial(draft[now], 1, generator=generator))
            guesses.append(now)
        p = target[torch.tensor([tokens[-1], *guesses])]
        verdict = verify_sampled(torch.tensor(guesses), torch.stack(q), p, generator)
        tokens += [*guesses[: verdict.accepted], verdict.token]
    return tuple(tokens[1 : length + 1])


DRAFTS = {
    "its own": table(1),
    "another": table(2),
    "even": torch.full((V, V), 1 / V).double(),
    "sure": table(3, sharp=20),
}


@pytest.mark.parametrize("draft", DRAFTS.values(), ids=DRAFTS)
def test_what_is_written_has_the_targets_distribution_whatever_is_guessed(draft):
    target, generator, trials = table(1), torch.Generator().manual_seed(0), 4000
    seen = [written(target, draft, 0, 2, generator) for _ in range(trials)]
    pairs = list(itertools.product(range(V), repeat=2))
    expected = torch.tensor([float(target[0, a] * target[a, b]) * trials for a, b in pairs], dtype=torch.float64)
    counts = torch.tensor([seen.count(pair) for pair in pairs], dtype=torch.float64)
    rare = expected < 5  # together one class: the test's approximation wants five of each
    counts, expected = (torch.cat([x[~rare], x[rare].sum()[None]]) for x in (counts, expected))
    keep = expected > 0
    assert stats.chisquare(counts[keep], expected[keep] * counts.sum() / expected.sum()).pvalue > 1e-3


def test_taking_the_guesses_as_they_are_would_not_pass_that_test():
    target, draft, trials = table(1), table(2), 4000
    counts = torch.bincount(torch.multinomial(draft[0], trials, replacement=True), minlength=V).double()
    assert stats.chisquare(counts, target[0] * trials).pvalue < 1e-6


def test_the_share_of_guesses_that_stand_is_one_minus_the_total_variation():
    target, draft, generator, trials = table(1)[0], table(2)[0], torch.Generator().manual_seed(0), 4000
    stood = 0
    for guess in torch.multinomial(draft, trials, replacement=True, generator=generator):
        stood += verify_sampled(guess[None], draft[None], target.expand(2, V), generator).accepted
    expected = 1 - float((target - draft).abs().sum()) / 2
    assert stood / trials == pytest.approx(expected, abs=4 * (expected * (1 - expected) / trials) ** 0.5)


def test_all_guesses_of_the_targets_own_distribution_stand():
    p = table(1)[:3]
    for seed in range(50):
        generator = torch.Generator().manual_seed(seed)
        guesses = torch.multinomial(p[:2], 1, generator=generator)[:, 0]
        assert verify_sampled(guesses, p[:2], p, generator).accepted == 2


def test_an_impossible_guess_never_stands():
    p = torch.tensor([[0.0, 1.0], [0.5, 0.5]])
    assert verify_sampled(torch.tensor([0]), torch.tensor([[1.0, 0.0]]), p) == (0, 1)
