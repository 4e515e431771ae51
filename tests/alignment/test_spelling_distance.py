"""Distances between spellings against the definition, letter by letter, and that they are a metric."""

from __future__ import annotations

import random

import pytest
import torch

from fusion.alignment import SpellingDistance
from fusion.alignment.tokenizer_pair import spelling_distance
from fusion.data.answer_end import end_of_turn
from fusion.data.prompt_format import PromptFormat
from fusion.quickstart import tokens
from fusion.tokenizers import vocabulary_bytes
from tests.helpers import tiny


def slow(a: bytes | None, b: bytes | None) -> float:
    if not a or not b:
        return 1.0
    return 1 - max(n for n in range(len(a) + 1) if b.startswith(a[:n])) / max(len(a), len(b))


def vocabulary(seed: int, count: int) -> list[bytes | None]:
    """Random words that often begin alike; some ids stand for nothing."""
    draw = random.Random(seed)
    made = [bytes(draw.choices(b"ab\xff", k=draw.randint(1, 6))) for _ in range(count)]
    return [None if draw.random() < 0.1 else word for word in made] + [b""]


@pytest.mark.parametrize(("ours", "theirs"), [(40, 60), (1, 1), (2, 1), (3, 2), (300, 5)])
def test_every_distance_is_that_of_the_definition(ours, theirs):
    pivot, source = vocabulary(1, ours), vocabulary(2, theirs)
    found = SpellingDistance.from_token_bytes(pivot, source)(
        torch.arange(len(pivot))[None], torch.arange(len(source))[None]
    )[0]
    known = [[slow(theirs, mine) for mine in pivot] for theirs in source]
    torch.testing.assert_close(found.double(), torch.tensor(known, dtype=torch.float64), atol=1e-6, rtol=0)


def test_the_distance_is_a_metric():
    pieces = sorted({word for word in vocabulary(3, 60) if word})
    every = torch.arange(len(pieces))[None]
    d = SpellingDistance.from_token_bytes(pieces, pieces)(every, every)[0]
    assert torch.equal(d, d.T)
    assert torch.equal(d == 0, torch.eye(len(pieces), dtype=torch.bool))
    assert (d[:, None, :] <= d[:, :, None] + d[None, :, :] + 1e-6).all()


def test_tokens_of_one_role_are_one_word_and_other_control_tokens_are_unlike_everything():
    made = SpellingDistance.from_token_bytes([b"a", None, None], [None, b"a", None], control_tokens=[(2, 1)])
    distance = made(torch.tensor([[0, 1, 2, -1]]), torch.tensor([[0, 1, 2, -1]]))[0]
    assert distance.tolist() == [[1, 1, 1, 1], [0, 1, 1, 1], [1, 0, 1, 1], [1, 1, 1, 1]]


def test_vocabularies_without_any_text_have_distances_too():
    assert SpellingDistance.from_token_bytes([None], [None])(torch.tensor([[0]]), torch.tensor([[0]])).tolist() == [
        [[1.0]]
    ]
    assert SpellingDistance.from_token_bytes([None], [None], [(0, 0)])(
        torch.tensor([[0]]), torch.tensor([[0]])
    ).tolist() == [[[0.0]]]


def test_two_real_tokenizers_meet_in_bytes():
    pivot, source = tokens.sentencepiece(tiny.TEXTS), tokens.gpt(tiny.TEXTS)
    mine, theirs = vocabulary_bytes(pivot), vocabulary_bytes(source)
    common = sorted(({w for w in mine if w} & {w for w in theirs if w}), key=len)[-5:]
    assert len(common[0]) > 1
    ids = [torch.tensor([[table.index(word) for word in common]]) for table in (mine, theirs)]
    distance = spelling_distance(source, pivot, (PromptFormat(), PromptFormat()))(*ids)[0]
    assert torch.equal(distance == 0, torch.eye(5, dtype=torch.bool))
    ends = [torch.tensor([[end_of_turn(each)]]) for each in (pivot, source)]
    assert spelling_distance(source, pivot, (PromptFormat(), PromptFormat()))(*ends).item() == 0
