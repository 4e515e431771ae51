"""Rows from listed log-probabilities: what is known is as the model says it, and what is not is said to be unknown."""

import pytest

from fusion.data.encode import Encoded
from fusion.sources.prompt_logprobs import rows_from_logprobs

TEXT = Encoded([5, 6, 7, 8], start=2, prefix=[0, 3], truncated=False)


def test_the_k_largest_become_entries_and_the_following_token_becomes_gold():
    rows = rows_from_logprobs(TEXT, [{3: -2.0, 7: -4.0, 1: -0.5}, {8: -0.1, 2: -3.0}], k=2, vocabulary=10, example=4)
    assert rows.ids.tolist() == [[1, 3], [8, 2]]
    assert rows.logprobs.flatten().tolist() == pytest.approx([-0.5, -2.0, -0.1, -3.0])
    assert rows.gold.tolist() == pytest.approx([-4.0, -0.1])
    assert rows.prefix.tolist() == [0, 3]
    assert rows.token.tolist() == [7, 8]
    assert rows.example.tolist() == [4, 4]


def test_what_is_not_listed_is_unknown():
    rows = rows_from_logprobs(TEXT, [{3: -2.0}, {}], k=2, vocabulary=10)
    assert rows.gold.isnan().all()
    assert rows.mean.isnan().all()
    assert rows.std.isnan().all()
    assert rows.ids.tolist() == [[3, -1], [-1, -1]]
    assert rows.logprobs[0, 1].isneginf()
    assert rows.logprobs[1].isneginf().all()


def test_ids_that_belong_to_no_token_are_left_out():
    rows = rows_from_logprobs(TEXT, [{12: -0.1, 7: -3.0}, {8: -1.0}], k=1, vocabulary=10)
    assert rows.ids.tolist() == [[7], [8]]


def test_another_number_of_lists_is_refused():
    with pytest.raises(ValueError, match="The response has 2 tokens, and 1 of them came back"):
        rows_from_logprobs(TEXT, [{3: -2.0}], k=2, vocabulary=10)
