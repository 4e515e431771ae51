"""Sequences find their examples by their tokens, against a search by brute force, and what fits none is counted."""

import random

import pytest
import torch

from fusion.data.encode import Encoded
from fusion.sources.importers import ImportedSequence, match_to_examples
from fusion.sources.importers.matching import OTHER_RESPONSE, OTHER_TEXT, TOO_SHORT, longest_prefix


def told(tokens, first=1, values=None):
    n = len(tokens) - first
    values = torch.arange(n).float()[:, None] * -0.1 if values is None else values
    return ImportedSequence(list(tokens), values, torch.arange(n)[:, None] + 1, first)


def text(tokens, start):
    return Encoded(list(tokens), start, list(range(len(tokens) - start)), False)


def test_the_longest_prefix_is_that_of_a_search_by_brute_force():
    generator = random.Random(0)
    for _ in range(500):
        keys = sorted([generator.randrange(3) for _ in range(generator.randint(1, 5))] for _ in range(12))
        sequence = [generator.randrange(3) for _ in range(generator.randint(0, 7))]
        whole = [key for key in keys if sequence[: len(key)] == key]
        place, shared = longest_prefix(keys, sequence)
        if whole:
            assert keys[place] == max(whole, key=len)
            assert shared == len(keys[place])
        else:
            common = [next(n for n in range(9, -1, -1) if key[:n] == sequence[:n] and n <= len(key)) for key in keys]
            assert shared == max(common)
            assert common[place] == shared < len(keys[place])


def test_rows_are_those_of_the_response_and_what_follows_is_nothing_to_it():
    found, counts = match_to_examples([told([7, 8, 9, 1, 2, 0, 0])], {"a": text([7, 8, 9, 1, 2], 3)}, 1, 50)
    assert counts == {"matched": 1}
    assert found["a"].ids.tolist() == [[3], [4]]  # rows 2 and 3 of the sequence are about its tokens 3 and 4
    assert found["a"].prefix.tolist() == [0, 1]
    assert found["a"].token.tolist() == [1, 2]


def test_examples_of_the_same_tokens_share_a_sequence_and_the_first_of_equal_sequences_counts():
    texts = {"a": text([7, 8, 9], 1), "b": text([7, 8, 9], 1), "c": text([7, 9], 1)}
    other = told([7, 8, 9], values=torch.full((2, 1), -5.0))
    found, counts = match_to_examples([told([7, 8, 9]), other], texts, 1, 50)
    assert sorted(found) == ["a", "b"]
    assert found["a"].logprobs.flatten().tolist() == pytest.approx([0.0, -0.1])
    assert counts == {"matched": 2}


def test_sequences_that_fit_no_example_are_counted_by_what_is_wrong():
    texts = {"a": text([7, 8, 9, 1, 2], 3)}
    strangers = [told([5, 5, 5]), told([7, 8, 9, 1, 3]), told([7, 8, 9, 1]), told([7, 8, 4, 4]), told([7, 8, 9, 2])]
    found, counts = match_to_examples(strangers, texts, 1, 50)
    assert found == {}
    assert counts == {OTHER_TEXT: 2, OTHER_RESPONSE: 2, TOO_SHORT: 1}


def test_a_sequence_without_rows_for_the_response_is_refused():
    with pytest.raises(ValueError, match=r"has rows for those from 3 to 4, and the response is 2 to 4"):
        match_to_examples([told([7, 8, 9, 1, 2], first=3)], {"a": text([7, 8, 9, 1, 2], 2)}, 1, 50)


def test_ids_that_belong_to_no_token_are_left_out_and_what_rounding_put_above_0_is_0():
    values, ids = torch.tensor([[-9.0, 1e-5, -13.0], [-9e3, -0.001, -1e4]]), torch.tensor([[60, 4, 5], [6, 7, 8]])
    rows = ImportedSequence([1, 2, 3], values, ids).rows_for(text([1, 2, 3], 1), 3, 50)
    assert rows.ids.tolist() == [[4, 5, -1], [7, -1, -1]]
    assert rows.logprobs[0].tolist() == [0.0, -13.0, -torch.inf]
    assert rows.gold.isnan().all()
