"""Cross-entropy against torch's own and a slow reference."""

import dataclasses

import pytest
import torch
from torch.nn.functional import cross_entropy

from fusion.core.example import ExampleInfo
from fusion.objectives import CrossEntropy
from tests.helpers import reference
from tests.helpers.rollouts import inputs_of
from tests.helpers.rows import random_rows, rows_of


@pytest.mark.parametrize(("N", "V"), [(7, 13), (1, 1), (123, 257)])
def test_cross_entropy_is_torchs(N, V):
    logits = torch.randn(N, V, dtype=torch.float64)
    token = torch.arange(N) * 7 % V
    ours = CrossEntropy()(rows_of(logits, 0, token))
    torch.testing.assert_close(ours, cross_entropy(logits, token, reduction="none"))


def test_cross_entropy_matches_the_definition():
    pivot = random_rows(9, 2, 17, torch.float64)
    torch.testing.assert_close(CrossEntropy()(pivot), reference.cross_entropy(pivot))


RIGHT, WRONG = ExampleInfo("d", "e0", "rollouts", passed=True), ExampleInfo("d", "e1", "rollouts", passed=False)
REPLAY = ExampleInfo("d", "e2", "replay")


@pytest.mark.parametrize(
    ("part", "counted"), [("all", [0, 1, 2]), ("rollouts", [0, 1]), ("right_rollouts", [0]), ("replay", [2])]
)
def test_only_the_texts_that_are_asked_for_are_in_the_mean(part, counted):
    pivot = random_rows(9, 2, 17, torch.float64, examples=3)
    inputs = inputs_of(pivot, {}, 3)
    targets = dataclasses.replace(inputs.targets, examples=[RIGHT, WRONG, REPLAY])
    inputs = dataclasses.replace(inputs, targets=targets, remaining_weight=torch.linspace(-0.2, 1, 9))
    rows = torch.isin(pivot.example, torch.tensor(counted))
    (term,) = CrossEntropy(part=part).terms(inputs)
    assert term.total.item() == pytest.approx(-pivot.gold[rows].sum().item())
    assert CrossEntropy(part=part).counts(targets) == {"cross_entropy": int(rows.sum())}
    (rest,) = CrossEntropy(part=part, use_remaining_weight=True).terms(inputs)
    expected = -(pivot.gold * inputs.remaining_weight.clamp(min=0))[rows].sum()
    assert rest.total.item() == pytest.approx(expected.item())
    assert CrossEntropy(part=part).requirements.rollouts == (part != "all")


def test_a_part_that_no_text_of_the_batch_belongs_to_is_nothing():
    inputs = inputs_of(random_rows(9, 2, 17, examples=3), {}, 3)
    (term,) = CrossEntropy(part="replay").terms(inputs)
    assert term.total == 0
    assert CrossEntropy(part="replay").counts(inputs.targets) == {"cross_entropy": 0}
