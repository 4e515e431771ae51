"""A check that is the user's own function: what it is called with, what may come back, and each fault by its name."""

import json
import sys

import pytest
from pydantic import ValidationError

from fusion.data import datasets
from fusion.data.example import Example
from fusion.responses import FunctionCheck, Response, example_from_json, example_to_json

MESSAGES = ({"role": "system", "content": "Be brief."}, {"role": "user", "content": "How much is 12 + 30?"})
EXAMPLE = Example(MESSAGES, "", "sums", columns={"answer": 42, "level": None})
RESPONSES = [Response("a", "42", ended=True), Response("b", "so 43", ended=True), Response("b", "", ended=True)]
SEEN = "import json\ndef right(**given):\n    print(json.dumps(given))\n    return [1.0] * len(given['completions'])\n"
TRL = """
def right(prompts, completions, answer, **kwargs):
    return [0.9 if str(a) in c else 0.1 for c, a in zip(completions, answer)]
"""


@pytest.fixture
def check(tmp_path):
    def make(source=None, **settings):
        if source is not None:
            (tmp_path / "mine.py").write_text(source)
        return FunctionCheck(path=str(tmp_path / "mine.py"), **{"name": "right", **settings})

    return make


def test_it_is_called_as_trl_calls_reward_functions(check, capsys):
    check(SEEN, columns=["answer", "level"])(EXAMPLE, RESPONSES)
    assert json.loads(capsys.readouterr().out) == {
        "prompts": ["Be brief.\nHow much is 12 + 30?"] * 3,
        "completions": ["42", "so 43", ""],
        "answer": [42, 42, 42],
        "level": [None, None, None],
    }
    check(SEEN, conversational=True)(EXAMPLE, RESPONSES[:1])
    assert json.loads(capsys.readouterr().out) == {
        "prompts": [list(MESSAGES)],
        "completions": [[{"role": "assistant", "content": "42"}]],
    }


def test_rewards_pass_from_a_threshold_on_and_stay_readable(check):
    made = check(TRL, columns=["answer"])
    assert made(EXAMPLE, RESPONSES) == [True, False, False]
    assert made.verdicts(EXAMPLE, RESPONSES) == [(True, 0.9), (False, 0.1), (False, 0.1)]
    assert check(columns=["answer"], at_least=0.9)(EXAMPLE, RESPONSES) == [True, False, False]
    assert check(columns=["answer"], at_least=0.1)(EXAMPLE, RESPONSES) == [True, True, True]


def test_a_function_is_not_asked_about_no_answers(check):
    made = check("def right(prompts, completions):\n    return [max(map(len, completions)) > 0] * len(prompts)\n")
    assert made(EXAMPLE, []) == made.verdicts(EXAMPLE, []) == []


ALIKE = [
    "[True, False, 0]",
    "(1, 0, 0.0)",
    "numpy.array([1, 0, 0])",
    "[numpy.float32(1), numpy.False_, 0]",
    "torch.eye(3)[0]",
]


@pytest.mark.parametrize("returned", ALIKE)
def test_truth_numbers_and_arrays_are_rewards(check, returned):
    source = f"import numpy, torch\ndef right(prompts, completions):\n    return {returned}\n"
    assert [reward for _, reward in check(source).verdicts(EXAMPLE, RESPONSES)] == [1.0, 0.0, 0.0]


@pytest.mark.parametrize(("returned", "message"), [
    ("[1.0]", r"right returned 1 values for the prompt that begins 'Be brief.*True or False for each of the 3 completions"),
    ("1.0", "right returned a float for the prompt"),
    ("'yes'", "right returned a str for the prompt"),
    ("(1 for _ in completions)", "right returned a generator"),
    ("[1, None, 1]", "right returned None for completion 2 of 3 for the prompt.*a finite number, True or False"),
    ("[1, 'yes', 1]", "right returned 'yes' for completion 2 of 3"),
    ("[1, 1, float('nan')]", "right returned nan for completion 3 of 3"),
    ("[1, 1, 1j]", "right returned 1j for completion 3 of 3"),
    ("1 / 0", r"mine.py: right raised ZeroDivisionError: division by zero \(line 2\), for the prompt that begins 'Be brief"),
    ("exit(3)", r"right raised SystemExit: 3 \(line 2\), for the prompt"),
    (
        "[float('a' in each[0]['content']) for each in completions]",
        "right raised TypeError: .* It was given texts; if it takes lists of messages, set conversational: true in its check",
    ),
])  # fmt: skip
def test_what_is_no_reward_is_named_with_function_and_prompt(check, returned, message):
    with pytest.raises(ValueError, match=message):
        check(f"def right(prompts, completions):\n    return {returned}\n")(EXAMPLE, RESPONSES)


@pytest.mark.parametrize(("source", "message"), [
    (None, "mine.py is not there, and a check takes right from it"),
    ("def right(prompts completions): pass", r"mine.py cannot be run.*SyntaxError: .*\(line 1\)"),
    ("\nimport absent_module", r"mine.py cannot be run.*No module named 'absent_module' \(line 2\)"),
    ("raise SystemExit", r"mine.py cannot be run.*SystemExit \(line 1\)"),
    ("def rihgt(prompts, completions): pass", "mine.py has no function right; it has rihgt. Set name to one of the file"),
    ("right = 3", "mine.py has no function right; it has none"),
    ("async def right(prompts, completions): pass", "right is async; make it an ordinary function"),
    ("def right(completions): pass", r"is called as right\(prompts=\[...\], completions=\[...\], answer=\[...\]\) and cannot"),
    ("def right(prompts, completions, completion_ids, **rest): pass", "missing a required argument: 'completion_ids'"),
])  # fmt: skip
def test_a_function_that_cannot_judge_is_refused_before_anything_is_written(check, source, message):
    with pytest.raises(ValueError, match=message):
        check(source, columns=["answer"]).prepare()


def test_a_configuration_is_read_without_the_file(check):
    assert not check(None).files[0].exists()


@pytest.mark.parametrize("column", ["prompts", "completions", "two words", ""])
def test_a_column_that_cannot_be_an_argument_is_refused(column):
    with pytest.raises(ValidationError, match="cannot be an argument of its own beside prompts and completions"):
        FunctionCheck(path="mine.py", name="right", columns=[column])


def test_an_edited_file_is_another_check_and_is_run_anew(check, tmp_path):
    made = check("def right(prompts, completions):\n    return [1] * len(prompts)\n")
    before = made.key()
    assert made(EXAMPLE, RESPONSES) == [True, True, True]
    check("def right(prompts, completions):\n    return [0] * len(prompts)\n")
    assert made.key() != before
    assert made(EXAMPLE, RESPONSES) == [False, False, False]
    assert [file.name for file in tmp_path.iterdir()] == ["mine.py"]  # no bytecode beside it


def test_a_file_is_run_once_for_all_prompts_and_may_hold_dataclasses(check, capsys):
    source = "from __future__ import annotations\nfrom dataclasses import dataclass\nprint('run')\n"
    source += "@dataclass\nclass Seen:\n    text: str\n" + TRL
    made = check(source, columns=["answer"])
    made.prepare()
    assert made(EXAMPLE, RESPONSES) == made(EXAMPLE, RESPONSES)
    assert capsys.readouterr().out == "run\n"
    assert not [name for name in sys.modules if name == "mine"]


def test_examples_keep_the_columns_that_are_named_as_json_has_them(tmp_path):
    rows = [{"q": "a", "n": 1, "more": {"x": [1.5, None]}}, {"q": "b", "n": "1"}]
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    found = datasets.read(str(file), domain="d", prompt="{q}", response=None, kept_columns=["n", "more"])
    assert [e.columns for e in found.examples] == [{"n": 1, "more": {"x": [1.5, None]}}, {"n": "1", "more": None}]
    assert found.unused == []
    assert example_from_json(json.loads(json.dumps(example_to_json(found.examples[0], "a")))) == found.examples[0]
    with pytest.raises(ValueError, match="no column 'absent'; the columns are q, n, more"):
        datasets.read(str(file), domain="d", prompt="{q}", response=None, kept_columns=["absent"])


def test_a_column_that_json_cannot_hold_is_named_with_its_row(tmp_path):
    from datasets import Dataset

    file = tmp_path / "rows.parquet"
    Dataset.from_list([{"q": "a", "picture": b"\x00"}]).to_parquet(file)
    with pytest.raises(ValueError, match=r"rows.parquet, row 1: picture holds bytes, which is no text"):
        datasets.read(str(file), domain="d", prompt="{q}", response=None, kept_columns=["picture"])


def test_passes_and_rewards_come_from_one_call(check):
    made = check(
        "calls = []\ndef right(prompts, completions):\n    calls.append(1)\n    return [len(calls) % 2] * len(prompts)\n"
    )
    for passes in (True, False):
        assert made.verdicts(EXAMPLE, RESPONSES) == [(passes, float(passes))] * 3


def test_what_a_function_changes_are_copies(check):
    source = (
        "def right(prompts, completions, level):\n    for messages, levels in zip(prompts, level):\n"
        "        messages[0]['content'] += '!'\n        levels.append(1)\n"
        "    return [len(messages[0]['content']) + len(levels) for messages, levels in zip(prompts, level)]\n"
    )
    example = Example(MESSAGES, "", "sums", columns={"level": [0]})
    verdicts = check(source, columns=["level"], conversational=True).verdicts(example, RESPONSES)
    assert {reward for _, reward in verdicts} == {len("Be brief.!") + 2}
    assert (example.messages[0]["content"], example.columns) == ("Be brief.", {"level": [0]})


def test_a_file_imports_what_lies_beside_it(check, tmp_path):
    (tmp_path / "scores_beside.py").write_text("ONE = 1\n")
    before = list(sys.path)
    made = check("from scores_beside import ONE\ndef right(prompts, completions):\n    return [ONE] * len(prompts)\n")
    assert made(EXAMPLE, RESPONSES) == [True] * 3
    assert sys.path == before
