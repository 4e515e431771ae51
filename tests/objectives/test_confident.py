"""Which rows count when only those of a sure model do."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from pydantic import ValidationError

from fusion.objectives import Confident, ForwardKL
from tests.rows import random_rows


def rows(*largest: float):
    found = random_rows(len(largest), 3, 9)
    logprobs = torch.tensor(largest)[:, None].log() + torch.tensor([[0.0, -9.0, -9.0]])
    return dataclasses.replace(found, logprobs=logprobs)


PIVOT, SOURCE = rows(0.9, 0.1, 0.9, 0.1), rows(0.1, 0.1, 0.9, 0.9)


@pytest.mark.parametrize(
    ("of", "counts"), [("pivot", [True, False, True, False]), ("source", [False, False, True, True])]
)
def test_the_most_likely_token_decides(of, counts):
    assert Confident(threshold=0.5, of=of)(PIVOT, SOURCE).tolist() == counts


@pytest.mark.parametrize("threshold", [0.05, 0.5, 0.95])
def test_with_either_all_rows_count_that_count_for_the_source_alone(threshold):
    either = Confident(threshold=threshold)(PIVOT, SOURCE)
    alone = Confident(threshold=threshold, of="source")(PIVOT, SOURCE)
    assert (either | ~alone).all()
    assert torch.equal(either, alone | Confident(threshold=threshold, of="pivot")(PIVOT, SOURCE))


def test_the_papers_mask_read_literally_is_least_at_zero():
    """Sum of m times a disparity plus 0.1 |m| is linear in m with coefficients above 0: nothing would be selected."""
    disparity = torch.rand(50)
    best = torch.zeros(50)
    cost = (disparity * best).sum() + 0.1 * best.sum()
    others = torch.rand(200, 50)
    assert (cost < (others * disparity).sum(-1) + 0.1 * others.sum(-1)).all()


def test_selection_is_a_setting_of_every_joined_term():
    assert ForwardKL.model_validate({"select": {"threshold": 0.5}}).select == Confident(threshold=0.5)
    with pytest.raises(ValidationError, match="less than or equal to 1"):
        Confident(threshold=1.5)
