"""How well responses fit the pivot, against loops over whole distributions, and where a number has no limit."""

import math

import pytest
import torch

from fusion.core.rows import LogitRows
from fusion.responses import RANKS, logprobs_per_byte, rank_surprisal_ratios


def rows_of(logits, token, prefix, example, k=RANKS):
    """Rows with the `k` largest entries."""
    logprobs = logits.log_softmax(-1)
    kept, ids = logprobs.topk(min(k, logits.shape[1]))
    gold, unknown = logprobs.gather(1, token[:, None])[:, 0], torch.full((len(token),), torch.nan)
    return LogitRows(
        prefix=prefix, example=example, token=token, logprobs=kept, ids=ids, gold=gold, mean=unknown, std=unknown
    )


@pytest.mark.parametrize("vocabulary", [7, 100, 101, 333])
def test_both_numbers_are_those_of_a_loop_over_the_whole_vocabulary(vocabulary):
    logits = 3 * torch.randn(9, vocabulary, generator=torch.Generator().manual_seed(vocabulary))
    token = torch.arange(9) * 37 % vocabulary
    prefix = torch.tensor([0, 2, -1, 4, 5, 0, 1, 3, 6])  # a split character, and rows behind the texts
    example = torch.tensor([0, 0, 0, 0, 0, 1, 1, 1, 1])
    surprisal, ranks = [0.0, 0.0], [0, 0]
    for row in range(9):
        if prefix[row] < (5, 6)[example[row]]:
            likelier = sum(logits[row, id] > logits[row, token[row]] for id in range(vocabulary))
            ranks[example[row]] += min(1 + int(likelier), 100)
            surprisal[example[row]] -= logits[row].double().log_softmax(-1)[token[row]].item()
    rows = rows_of(logits, token, prefix, example)
    assert logprobs_per_byte(rows, [5, 6]) == pytest.approx([-surprisal[0] / 5, -surprisal[1] / 6], rel=1e-5)
    expected = [ranks[0] / surprisal[0], ranks[1] / surprisal[1]]
    assert rank_surprisal_ratios(rows, [5, 6]) == pytest.approx(expected, rel=1e-5)


def test_a_token_that_is_not_among_the_entries_counts_as_the_hundredth():
    logits = torch.linspace(5, -5, 300)[None]
    for token, rank in ((0, 1), (98, 99), (99, 100), (100, 100), (299, 100)):
        rows = rows_of(logits, torch.tensor([token]), torch.tensor([0]), torch.tensor([0]))
        assert rank_surprisal_ratios(rows, [1]) == pytest.approx([rank / -logits.log_softmax(-1)[0, token].item()])


def test_a_token_is_never_likelier_than_itself():
    rows = rows_of(torch.tensor([[2.0, 1.0]]), torch.tensor([0]), torch.tensor([0]), torch.tensor([0]))
    rounded = LogitRows(**{**vars(rows), "gold": rows.gold - 1e-3})
    assert rank_surprisal_ratios(rounded, [1]) == pytest.approx([1 / -rounded.gold.item()])


@pytest.mark.parametrize("logits", [[0.0, -torch.inf], [-torch.inf, 0.0]])
def test_what_the_model_is_certain_of_and_what_it_cannot_say_fit_least(logits):
    rows = rows_of(torch.tensor([logits]), torch.tensor([0]), torch.tensor([0]), torch.tensor([0]))
    assert rank_surprisal_ratios(rows, [1]) == [math.inf]
    above_0 = LogitRows(**{**vars(rows), "gold": rows.gold + 1e-7})
    assert rank_surprisal_ratios(above_0, [1]) == [math.inf]
