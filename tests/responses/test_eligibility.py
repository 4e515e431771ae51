"""Who may teach a prompt: counts of answers and of those that pass, written and read back."""

from __future__ import annotations

import dataclasses
import json

import pytest

from fusion.data.example import Example
from fusion.responses import PASSES, PromptResponses, Response, passes_to_jsonl, read_eligibility


def prompt(text: str, passes: dict[str, list[bool]], response: str = "reference") -> PromptResponses:
    """A prompt with a response of each source for each bool, which passes or does not."""
    example = Example(({"role": "user", "content": text},), response, "d")
    pairs = [(Response(source, "text", ended=True), passed) for source, each in passes.items() for passed in each]
    return PromptResponses(example, [response for response, _ in pairs], [passed for _, passed in pairs])


ONE = prompt("one", {"a": [True, False, True], "b": [False, False]})
TWO = prompt("two", {"b": [True] * 4})


def shares_of(tmp_path, prompts, sources=("a", "b"), samples=4, order=("a", "b")):
    (tmp_path / PASSES).write_text(passes_to_jsonl(prompts, sources, samples))
    return read_eligibility(tmp_path / PASSES, order)


def test_a_share_is_of_all_answers_those_included_that_were_empty_or_cut_off(tmp_path):
    found = shares_of(tmp_path, [ONE, TWO])
    assert found == {ONE.example.prompt_id: (0.5, 0.0), TWO.example.prompt_id: (0.0, 1.0)}
    line = json.loads((tmp_path / PASSES).read_text().partition("\n")[0])
    assert (line["answers"], sum(line["passed"].values())) in [({"a": 4, "b": 4}, 2), ({"a": 4, "b": 4}, 4)]


def test_sources_come_in_the_order_asked_for_and_one_that_did_not_answer_has_none(tmp_path):
    found = shares_of(tmp_path, [ONE], order=("b", "silent", "a"))
    assert found == {ONE.example.prompt_id: (0.0, 0.0, 0.5)}


def test_the_order_of_prompts_and_of_answers_changes_no_byte_of_the_file():
    turned = dataclasses.replace(ONE, responses=ONE.responses[::-1], passed=ONE.passed[::-1])
    assert passes_to_jsonl([TWO, turned], ["a", "b"], 4) == passes_to_jsonl([ONE, TWO], ["a", "b"], 4)


def test_a_prompt_that_is_there_twice_has_the_answers_of_both_rows(tmp_path):
    again = prompt("one", {"a": [False, False, False], "b": [True, False]}, response="another")
    assert shares_of(tmp_path, [ONE, again]) == {ONE.example.prompt_id: (2 / 8, 1 / 8)}


def test_without_the_file_the_way_out_is_told(tmp_path):
    with pytest.raises(ValueError, match=rf"{PASSES} is not there.*Delete {tmp_path}.*`fusion respond` again"):
        read_eligibility(tmp_path / PASSES, ["a"])
