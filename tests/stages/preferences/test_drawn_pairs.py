"""Which answers to a prompt are put together: by the seed alone, each answer once before one comes twice."""

from __future__ import annotations

import dataclasses
import itertools
from collections import Counter

import pytest

from fusion.data.example import Example
from fusion.stages.preferences.answers import JudgedAnswer, each_text_once
from fusion.stages.preferences.pairs import draw_pairs

PROMPT = Example(({"role": "user", "content": "1 + 1"},), "", "sums")


def answer(text, passed, *writers):
    return JudgedAnswer(dataclasses.replace(PROMPT, response=text), frozenset(writers), passed)


ANSWERS = [
    answer("two", True, "coder"),
    answer("2", True, "coder", "pivot"),
    answer("2.", True, "pivot"),
    answer("three", False, "coder"),
    answer("5", False, "pivot"),
    answer("7", False, "writer"),
    answer("11", False, "pivot"),
]


def drawn(count, answers=ANSWERS, seed=0, *, same_writer=False, own_answers=False):
    pairs = draw_pairs(answers, count, seed, same_writer=same_writer, own_answers=own_answers)
    return [tuple(each.example.response for each in pair) for pair in pairs]


def test_a_pair_is_a_right_answer_and_a_wrong_one_and_none_comes_twice():
    every = drawn(100)
    assert len(every) == len(set(every)) == 3 * 4
    assert {pair[0] for pair in every} == {"two", "2", "2."}
    assert {pair[1] for pair in every} == {"three", "5", "7", "11"}


def test_each_answer_comes_once_before_one_comes_twice():
    for seed in range(5):
        used = Counter(text for pair in drawn(3, seed=seed) for text in pair)
        assert set(used.values()) == {1}


def test_the_order_of_answers_changes_nothing_and_the_seed_does():
    assert drawn(4) == drawn(4, ANSWERS[::-1])
    assert len({tuple(drawn(1, seed=seed)) for seed in range(20)}) > 3
    assert drawn(2) == drawn(4)[:2]


def test_with_one_writer_both_answers_are_one_models():
    writers = {each.example.response: each.writers for each in ANSWERS}
    pairs = drawn(100, same_writer=True)
    assert len(pairs) == 2 * 1 + 2 * 2
    assert all(writers[chosen] & writers[rejected] for chosen, rejected in pairs)


def test_of_three_answers_two_are_the_pivots_and_the_last_a_right_one_of_a_source():
    triples = drawn(100, own_answers=True)
    own_right, own_wrong, of_sources = ["2", "2."], ["5", "11"], ["two", "2"]
    assert set(triples) == set(itertools.product(own_right, own_wrong, of_sources))
    for seed in range(5):
        chosen, _, of_source = drawn(1, seed=seed, own_answers=True)[0]
        assert chosen != of_source


def test_a_text_has_all_its_writers_and_one_that_was_judged_differently_is_left_out():
    again = [answer("two", True, "pivot"), answer("5", True, "writer"), answer("7", False, "writer")]
    found = {each.example.response: each for each in each_text_once([*ANSWERS, *again])}
    assert found.keys() == {each.example.response for each in ANSWERS} - {"5"}
    assert found["two"].writers == {"coder", "pivot"}
    assert found["7"].writers == {"writer"}


@pytest.mark.parametrize("answers", [ANSWERS[:3], ANSWERS[3:], []])
def test_where_all_answers_are_right_or_all_are_wrong_there_is_no_pair(answers):
    assert drawn(3, answers) == []
