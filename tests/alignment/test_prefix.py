"""Matching by bytes against a slow loop, and against what must hold for any two tokenizers."""

import dataclasses
import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fusion.alignment import ALIGNMENTS, align, match_prefixes, truncate
from fusion.data.prompt_format import PromptFormat
from tests.helpers.alignment_cases import rows, rows_of_texts
from tests.helpers.tiny_tokenizers import ALL, BYTES, byte_level, gemma_style, llama_style, mistral_style

TEXTS = {3: "The café is at 12:30 👩\u200d👧.\r\n", 0: "", 9: "日本語 \0\t\u2581 x", 4: "</s> the end <|im_end|>"}


def slow_match(pivot, source) -> list[tuple[int, int]]:
    last = {(e, p): n for n, (e, p) in enumerate(zip(source.example.tolist(), source.prefix.tolist(), strict=True))}
    of_pivot = {(e, p): n for n, (e, p) in enumerate(zip(pivot.example.tolist(), pivot.prefix.tolist(), strict=True))}
    return sorted((n, last[key]) for key, n in of_pivot.items() if key in last and key[1] >= 0)


def listed(pairs) -> list[tuple[int, int]]:
    return list(zip(pairs.pivot.tolist(), pairs.source.tolist(), strict=True))


def some_rows(draw, numbers):
    examples, prefixes = [], []
    for example in draw(st.permutations(numbers)):
        true = sorted(draw(st.lists(st.integers(0, 12), max_size=6)))
        hidden = draw(st.lists(st.booleans(), min_size=len(true), max_size=len(true)))
        examples += [example] * len(true)
        prefixes += [-1 if hide else prefix for prefix, hide in zip(true, hidden, strict=True)]
    return rows(examples, prefixes)


@given(data=st.data())
@settings(max_examples=200, deadline=None)
def test_pairs_are_those_of_a_slow_loop_on_any_rows_in_any_order_of_examples(data):
    pivot, source = (data.draw(st.composite(some_rows)(numbers)) for numbers in ([0, 1, 7, 2**40], [1, 7, 2**40, 3]))
    assert listed(match_prefixes(pivot, source)) == slow_match(pivot, source)


@pytest.mark.parametrize("kind", BYTES)
def test_identical_tokenizers_match_at_all_places(kind):
    both = rows_of_texts(BYTES[kind](), TEXTS)
    pairs = match_prefixes(both, both)
    assert pairs.pivot.equal(pairs.source)
    keys = set(zip(both.example.tolist(), both.prefix.tolist(), strict=True))
    assert len(pairs) == len(keys)  # fewer than rows only where a space before the text makes two rows of one prefix


def test_a_bos_or_a_template_on_one_side_changes_nothing():
    chat, plain = (
        rows_of_texts(llama_style(), TEXTS, prompt_format=PromptFormat(template)) for template in ("chat", "plain")
    )
    other = rows_of_texts(byte_level(), TEXTS)
    assert len(chat) == len(plain)
    assert listed(match_prefixes(chat, other)) == listed(match_prefixes(plain, other))


@pytest.mark.parametrize(("one", "two"), itertools.combinations(ALL, 2))
def test_every_pair_has_the_same_bytes_before_it_and_no_shared_border_is_missed(one, two):
    pivot, source = (rows_of_texts(ALL[kind](), TEXTS) for kind in (one, two))
    pairs = match_prefixes(pivot, source)
    assert pivot.example[pairs.pivot].equal(source.example[pairs.source])
    assert pivot.prefix[pairs.pivot].equal(source.prefix[pairs.source])
    assert int(pivot.prefix[pairs.pivot].min()) == 0
    shared = [set(zip(r.example.tolist(), r.prefix.tolist(), strict=True)) for r in (pivot, source)]
    assert len(pairs) == len({key for key in shared[0] & shared[1] if key[1] >= 0})


@pytest.mark.parametrize(
    ("one", "two"), [(byte_level, llama_style), (gemma_style, byte_level), (llama_style, gemma_style)]
)
def test_words_after_an_accent_still_match(one, two):
    """`café` is where aligners that compare token strings lose the rest of the text."""
    text = "The café sat on the mat. " * 3
    pairs = match_prefixes(*(rows_of_texts(make(), {0: text}) for make in (one, two)))
    pivot = rows_of_texts(one(), {0: text})
    found = set(pivot.prefix[pairs.pivot].tolist())
    after_words = {len(text[:place].encode()) for place, letter in enumerate(text) if letter == " "}
    assert after_words <= found


def test_split_characters_match_inside_only_where_both_have_consumed_the_same_bytes():
    """Bytes of `👩x`: F0 9F 91 A9 78. One model has a row inside the character for sure, one cannot know where."""
    known, partly, whole = rows([0] * 6, [0, 1, 2, 3, 4, 5]), rows([0] * 4, [0, -1, 4, 5]), rows([0] * 3, [0, 4, 5])
    assert listed(match_prefixes(known, partly)) == [(0, 0), (4, 2), (5, 3)]
    assert listed(match_prefixes(partly, whole)) == [(0, 0), (2, 1), (3, 2)]
    assert listed(match_prefixes(known, rows([0] * 3, [0, 2, 5]))) == [(0, 0), (2, 1), (5, 2)]


def test_of_rows_with_one_prefix_the_last_counts_on_either_side():
    once, twice = rows([5, 5], [0, 3]), rows([5, 5, 5], [0, 0, 3])
    assert listed(match_prefixes(once, twice)) == [(0, 1), (1, 2)]
    assert listed(match_prefixes(twice, once)) == [(1, 0), (2, 1)]
    assert listed(match_prefixes(twice, twice)) == [(1, 1), (2, 2)]


def test_the_row_behind_a_space_put_before_the_text_meets_the_first_row():
    text = {0: "Zebra"}  # no token of its own for ` Z`, so the space is a token of no bytes
    spaced, plain = rows_of_texts(mistral_style(), text), rows_of_texts(byte_level(), text)
    assert spaced.prefix[:2].tolist() == [0, 0]
    assert listed(match_prefixes(plain, spaced))[0] == (0, 1)


def test_rows_of_other_examples_change_no_pair():
    pivot, source = rows([1, 1], [0, 2]), rows([1, 1], [0, 2])
    among = rows([8, 1, 1, 2], [0, 0, 2, 2])
    assert listed(match_prefixes(pivot, among)) == [(0, 1), (1, 2)]
    assert listed(match_prefixes(pivot, source)) == [(0, 0), (1, 1)]


@pytest.mark.parametrize("kind", ALIGNMENTS)
def test_nothing_is_paired_with_nothing(kind):
    some, none = rows([0, 0], [0, 1]), rows([], [])
    for pivot, source in ((some, none), (none, some), (none, none), (some, rows([1], [0]))):
        assert listed(align(kind, pivot, source, {0: b"a", 1: b"b"})) == []


def test_a_million_rows_are_matched():
    examples = torch.arange(1_000_000) // 500
    prefixes = torch.arange(1_000_000) % 500
    many = rows([0], [0]).select(torch.zeros(1_000_000, dtype=torch.long))
    many = dataclasses.replace(many, example=examples, prefix=prefixes * 3)
    other = dataclasses.replace(many, prefix=prefixes * 2)
    pairs = match_prefixes(many, other)
    assert len(pairs) == 2000 * 167


def test_align_calls_the_alignment_it_was_asked_for():
    pivot, source = rows([0] * 3, [0, 1, 3]), rows([0] * 3, [0, 2, 3])
    texts = {0: b"abc"}
    assert tuple(ALIGNMENTS) == ("prefix", "truncate", "dtw")
    assert listed(align("prefix", pivot, source, texts)) == listed(match_prefixes(pivot, source)) == [(0, 0), (2, 2)]
    assert (
        listed(align("truncate", pivot, source, texts)) == listed(truncate(pivot, source)) == [(0, 0), (1, 1), (2, 2)]
    )
