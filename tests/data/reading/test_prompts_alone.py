"""Prompts alone never hold the answer that the data has: sources would copy it, or write a second one behind it."""

import json

import pytest

import fusion
from fusion.data import datasets

ASK = {"role": "user", "content": "q"}
ANSWER = {"role": "assistant", "content": "the answer"}
CALL = {
    "role": "assistant",
    "content": "",
    "tool_calls": [{"type": "function", "function": {"name": "f", "arguments": "{}"}}],
}
RESULT = {"role": "tool", "content": "7"}


def contents(example):
    return [message["content"] for message in example.messages]


@pytest.mark.parametrize("settings", [{}, {"prompt": "{messages}"}, {"messages": "messages"}])
@pytest.mark.parametrize(
    ("turns", "prompt", "answered"),
    [
        ([ASK, ANSWER], ["q"], 1),
        ([ASK], ["q"], 0),
        ([ASK, ANSWER, ANSWER], ["q"], 1),
        ([ASK, ANSWER, {**ASK, "content": "r"}], ["q", "the answer", "r"], 0),
        ([ASK, ANSWER, {**ASK, "content": "r"}, ANSWER], ["q", "the answer", "r"], 1),
        ([ASK, {**ANSWER, "weight": 0}], ["q"], 1),
        ([ASK, CALL], ["q"], 1),
        ([ASK, CALL, RESULT, ANSWER], ["q", "", "7"], 1),
        ([ASK, {**ANSWER, "reasoning_content": "hm"}], ["q"], 1),
    ],
)
def test_answers_at_the_end_are_left_out_and_counted(tmp_path, settings, turns, prompt, answered):
    (tmp_path / "x.jsonl").write_text(json.dumps({"messages": turns}))
    found = datasets.read(str(tmp_path / "x.jsonl"), domain="d", response=None, **settings)
    assert [contents(example) for example in found.examples] == [prompt]
    assert found.notes == ["1 row ends with an answer, which is not read (response: null)"] * answered
    assert ("not read" in found.describe()) == bool(answered)


def test_a_conversation_in_which_nothing_is_asked_is_left_out(tmp_path):
    rows = [{"messages": [ANSWER]}, {"messages": [ASK, ANSWER]}, {"messages": []}]
    (tmp_path / "x.jsonl").write_text("\n".join(map(json.dumps, rows)))
    found = datasets.read(str(tmp_path / "x.jsonl"), domain="d", response=None)
    assert [contents(example) for example in found.examples] == [["q"]]
    assert [(each.reason, each.count) for each in found.left_out] == [("nothing is asked", 1), ("no turns", 1)]


def test_read_examples_says_what_of_the_rows_is_not_read(capsys):
    rows = [{"messages": [ASK, ANSWER], "rejected": "b", "tone": "kind"}] * 2
    assert [contents(example) for example in fusion.read_examples(rows, response=None)] == [["q"]] * 2
    said = capsys.readouterr()
    assert "the rows: 2 rows end with an answer, which is not read (response: null)" in said.out + said.err
    assert "the rows: not used: rejected, tone" in said.out + said.err
