"""The end of an answer is one event, whichever token of a model says so."""

import math

import torch

from fusion.alignment import gold_of_stop
from fusion.core.rows import LogitRows

STOP, BREAK, BREAKS, WORD = 0, 1, 2, 3


def rows(ids, probabilities, gold, example):
    logprobs = torch.tensor(probabilities).log()
    unknown = torch.full((len(ids),), math.nan)
    return LogitRows(
        logprobs, torch.tensor(ids), torch.tensor(gold).log(), unknown, unknown,
        prefix=torch.arange(len(ids)), example=torch.tensor(example),
    )  # fmt: skip


def test_what_ends_an_answer_in_another_token_counts_at_the_last_row_alone():
    given = rows([[BREAKS, WORD, BREAK]] * 3, [[0.6, 0.3, 0.05]] * 3, [0.05, 0.3, 0.05], [0, 0, 1])
    found = gold_of_stop(given, [BREAK, BREAKS]).gold.exp()
    torch.testing.assert_close(
        found, torch.tensor([0.05, 0.65, 0.65])
    )  # row 1 is the last of example 0: it predicts the end


def test_a_likelier_own_token_stays_and_an_unknown_one_is_found():
    given = rows([[WORD, -1, BREAK]] * 2, [[0.5, 0.0, 0.1]] * 2, [0.4, 1.0], [0, 1])
    given = LogitRows(**{**vars(given), "gold": torch.tensor([math.log(0.4), math.nan])})
    torch.testing.assert_close(gold_of_stop(given, [BREAK, STOP]).gold.exp(), torch.tensor([0.4, 0.1]))


def test_rows_without_entries_stay_as_they_are():
    given = rows([[WORD]], [[0.5]], [0.4], [0]).top(0)
    assert torch.equal(gold_of_stop(given, [WORD]).gold, given.gold)
