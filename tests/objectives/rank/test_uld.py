"""ULD against a slow reference, the brute-forced matching it stands for, and inputs whose distance is known."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from fusion.objectives import ULD
from fusion.objectives.rank.uld import uld
from tests.helpers import reference
from tests.helpers.rows import random_rows, rows_of


def whole(M: int, V: int, dtype: torch.dtype = torch.float64, seed: int = 0):
    return random_rows(M, V, V, dtype, seed)


@pytest.mark.parametrize(("M", "V", "W"), [(5, 11, 7), (1, 1, 3), (123, 16, 257), (4, 4, 4)])
@pytest.mark.parametrize("temperatures", [(1.0, 1.0), (2.0, 0.5)])
def test_uld_matches_the_definition(M, V, W, temperatures):
    pivot, source = whole(M, V, seed=1), whole(M, W, seed=2)
    ours = ULD(pivot_temperature=temperatures[0], source_temperature=temperatures[1])(pivot, source)
    torch.testing.assert_close(ours, reference.uld(pivot, source, *temperatures))


@pytest.mark.parametrize("V", [2, 3, 5, 6, 7])
def test_uld_is_the_least_l1_distance_over_all_matchings_of_the_vocabularies(V):
    pivot, source = whole(4, V, seed=V), whole(4, V, seed=V + 1)
    least = [reference.least_l1(*both) for both in zip(probabilities(pivot), probabilities(source), strict=True)]
    torch.testing.assert_close(ULD()(pivot, source), torch.tensor(least, dtype=torch.float64))


def probabilities(rows) -> list[list[float]]:
    return [row.exp().tolist() for row in rows.logprobs.flip(-1)]  # any order will do


def test_certain_against_uniform_is_known():
    certain, uniform = torch.tensor([[1.0, 0.0, 0.0]]), torch.full((1, 4), 0.25)
    assert uld(certain, uniform).item() == pytest.approx(2 * (1 - 1 / 4))


def test_zeros_after_either_row_change_nothing():
    p, q = whole(6, 5, seed=1).logprobs.exp(), whole(6, 9, seed=2).logprobs.exp()
    zeros = torch.zeros(6, 3, dtype=p.dtype)
    torch.testing.assert_close(uld(torch.cat([p, zeros], 1), q), uld(p, q))
    torch.testing.assert_close(uld(p, torch.cat([q, zeros], 1)), uld(p, q))


def test_renaming_the_tokens_of_either_model_changes_nothing():
    logits = torch.randn(6, 13, dtype=torch.float64)
    source = whole(6, 17, seed=3)
    renamed = logits[:, torch.randperm(13)]
    torch.testing.assert_close(ULD()(rows_of(renamed, 13), source), ULD()(rows_of(logits, 13), source))


def test_uld_is_symmetric_and_below_two():
    pivot, source = whole(50, 7, seed=1), whole(50, 300, seed=2)
    there, back = ULD()(pivot, source), ULD()(source, pivot)
    torch.testing.assert_close(there, back)
    assert (there > 0).all()
    assert (there < 2).all()


@pytest.mark.parametrize("side", ["pivot", "source"])
def test_rows_that_keep_less_than_their_vocabulary_are_refused(side):
    rows = {"pivot": whole(3, 50), "source": whole(3, 50, seed=1)}
    rows[side] = rows[side].top(10)
    with pytest.raises(ValueError, match=f"10 entries that the {side} rows keep hold as little as 0.*top_k: all"):
        ULD()(rows["pivot"], rows["source"])


def test_half_precision_values_of_a_whole_vocabulary_are_accepted():
    source = whole(20, 1000, torch.float32)
    halved: Tensor = source.logprobs.half().float()
    source = type(source)(**(vars(source) | {"logprobs": halved}))
    assert ULD()(whole(20, 30, torch.float32), source).isfinite().all()
