"""What the pivot wrote, cut at what no other model could read, in the tokens in which it was written."""

from unittest.mock import Mock

import pytest
from transformers import PreTrainedTokenizerBase

from fusion.data.chat_tokens import Prompt
from fusion.responses.rollouts import Rollout, read_rollout

TABLE = [
    None,
    None,
    b"a",
    b"b",
    b" c",
    b"\n",
    b"\n\n",
    b"4\n",
    "é".encode()[:1],
    "é".encode()[1:],
    "é".encode(),
    b"\xff",
]
TOKENIZER = Mock(spec=PreTrainedTokenizerBase)
EOS, CONTROL, A, B, C, BREAK, BREAKS, FOUR_BREAK, E1, E2, E_ACUTE, BROKEN = range(12)


@pytest.fixture(autouse=True)
def vocabulary(monkeypatch):
    monkeypatch.setattr("fusion.responses.rollouts.vocabulary_bytes", lambda _: TABLE)


def read(written, stop=(), lead=""):
    return read_rollout(TOKENIZER, written, [EOS], stop, lead)


CASES = {
    "ended": ([A, B, EOS], (), Rollout((A, B), "ab", EOS)),
    "cut at the length limit": ([A, B], (), Rollout((A, B), "ab", None)),
    "padding behind the end": ([A, EOS, EOS, EOS], (), Rollout((A,), "a", EOS)),
    "nothing but an end": ([EOS], (), Rollout((), "", EOS)),
    "another control token": ([A, CONTROL, B, EOS], (), Rollout((A,), "a", None)),
    "an id beyond the vocabulary": ([A, 99, EOS], (), Rollout((A,), "a", None)),
    "a stop text": ([A, BREAK, B], ("\n",), Rollout((A,), "a", BREAK)),
    "a token that begins with a stop text": ([A, BREAKS, B], ("\n",), Rollout((A,), "a", BREAKS)),
    "a stop text within a token": ([A, FOUR_BREAK, B], ("\n",), Rollout((A,), "a", None)),
    "a stop text over two tokens": ([A, B, A], ("ba",), Rollout((A, B), "ab", None)),
    "a character in two tokens": ([E1, E2, EOS], (), Rollout((E1, E2), "é", EOS)),
    "half a character at the end": ([A, E1, EOS], (), Rollout((A,), "a", None)),
    "half a character at the limit": ([A, E_ACUTE, E1], (), Rollout((A, E_ACUTE), "aé", None)),
    "bytes that are no text": ([A, BROKEN, B, EOS], (), Rollout((A,), "a", None)),
    "nothing that can be read": ([BROKEN, EOS], (), Rollout((), "", None)),
}


@pytest.mark.parametrize("name", CASES)
def test_a_text_is_read_up_to_where_others_can_follow(name):
    written, stop, expected = CASES[name]
    assert read(written, stop) == expected


@pytest.mark.parametrize(
    ("written", "prefix", "truncated"),
    [([A, E1, E2, C, EOS], [0, 1, 2, 3, 5], False), ([A, C], [0, 1], True), ([EOS], [0], False)],
)
def test_its_rows_stand_where_its_bytes_do(written, prefix, truncated):
    encoded = read(written).encoded(TOKENIZER, Prompt([7, 8]))
    assert encoded.input_ids == [7, 8, *written]
    assert (encoded.start, encoded.prefix, encoded.truncated) == (2, prefix, truncated)


def test_a_space_of_the_prompt_has_no_length():
    rollout = read([C, A, EOS], lead=" ")
    assert rollout.text == "ca"
    assert rollout.encoded(TOKENIZER, Prompt([7], " ")).prefix == [0, 1, 2]


def test_ways_of_writing_one_text_have_tokens_of_their_own():
    whole, halves = read([E_ACUTE, EOS]), read([E1, E2, EOS])
    assert whole.text == halves.text
    assert whole.encoded(TOKENIZER, Prompt([7])).input_ids != halves.encoded(TOKENIZER, Prompt([7])).input_ids
