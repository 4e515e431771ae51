"""Rows from listed log-probabilities: what is known is as the model says it, and what is not is said to be unknown."""

import pytest

from fusion.data.encode import Encoded
from fusion.sources.prompt_logprobs import read_prompt_logprobs, rows_from_logprobs

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


@pytest.mark.parametrize(("entries", "message"), [
    ([{3: 2.0, 7: 1.0}, {8: -0.1}], r"row 0 \(about token 2 .*no natural-log probabilities: the highest is 2.000"),
    ([{7: -0.1}, {8: -0.1, 2: -0.2}], r"row 1 \(about token 3 .*the entries have 1.724 of the probability together"),
    ([{7: float("nan")}, {8: -0.1}], "row 0 .*the log-probability of id 7 is NaN or null"),
    ([{7: -0.1, -4: -3.0}, {8: -0.1}], "row 0 .*an entry has the id -4"),
    ([{7: -0.1, 900: -3.0}, {8: -0.1}], "row 0 .*the id 900 belongs to no token: the tokenizer has 10"),
])  # fmt: skip
def test_entries_that_are_none_are_refused_with_their_row(entries, message):
    with pytest.raises(ValueError, match=message):
        rows_from_logprobs(TEXT, entries, k=2, vocabulary=10)


def test_what_rounding_puts_above_0_is_0():
    rows = rows_from_logprobs(TEXT, [{7: 1e-6}, {8: -0.1}], k=1, vocabulary=10)
    assert rows.logprobs[0, 0] == rows.gold[0] == 0


@pytest.mark.parametrize(("listed", "message"), [
    ([None, {"6": {"logprob": -0.1}}, None, {"8": {"logprob": -0.1}}], r"nothing \(null\) is listed at token 2 of 4"),
    ([None, {"6": {"logprob": None}}, {"7": {"logprob": -0.1}}, {"8": {"logprob": -0.1}}], "id 6 is None, and must be a"),
    ([None, {"7": {"logprob": -0.1}}, {"8": {"logprob": -0.1}}, {"1": {"logprob": -0.1}}], "shifted, one token earlier"),
])  # fmt: skip
def test_a_servers_null_stands_at_the_first_token_alone(listed, message):
    with pytest.raises(ValueError, match=message):
        read_prompt_logprobs({"choices": [{"prompt_logprobs": listed}]}, TEXT.input_ids)
