"""What is said where nothing or little is learned from: whether answers failed, or the tests that they had to pass."""

import dataclasses

from fusion.data.example import Example
from fusion.responses import BestSource, PromptResponses, Response
from fusion.stages.respond.choose import _broken_tests, _nothing_left, _nothing_left_of_domains

NO_MODULE = "ModuleNotFoundError: No module named 'solution'"


def prompt(number, domain="code", reason="AssertionError: 1 != 2", broken=""):
    example = Example(({"role": "user", "content": f"Task {number}"},), "x", domain, origin=f"a.jsonl, line {number}")
    return PromptResponses(example, [Response("s", "def f(): ...", ended=True)], [not reason], [reason], broken)


def test_tests_that_do_not_run_are_counted_by_domain_with_the_first_row():
    prompts = [
        prompt(1),
        prompt(2, broken=NO_MODULE),
        prompt(3, broken="SyntaxError: x"),
        prompt(4, "more", broken="E: y"),
    ]
    assert list(_broken_tests(prompts)) == [
        f"  code: of 2 prompts the tests themselves do not run, whatever is answered: {NO_MODULE} (a.jsonl, line 2). "
        "Mend or leave out such rows.",
        "  more: of 1 prompts the tests themselves do not run, whatever is answered: E: y (a.jsonl, line 4). "
        "Mend or leave out such rows.",
    ]
    assert list(_broken_tests([prompt(1)])) == []


def test_an_answer_that_failed_its_tests_comes_with_their_word_and_not_with_the_response_of_the_data():
    (said,) = _nothing_left_of_domains([], [prompt(1, broken=NO_MODULE), prompt(2)])
    assert "It does not pass its tests: AssertionError: 1 != 2. " in said
    assert "where the data has" not in said
    without = dataclasses.replace(prompt(1), reasons=())
    assert "where the data has 'x'" in _nothing_left([], BestSource(), [without])


def test_where_nothing_is_left_since_no_tests_run_that_is_what_is_said():
    said = _nothing_left([], BestSource(), [prompt(1, reason=NO_MODULE, broken=NO_MODULE)])
    assert (
        f"code: of 1 prompts the tests themselves do not run, whatever is answered: {NO_MODULE} (a.jsonl, line 1)"
        in said
    )
    assert f"Its tests do not run: {NO_MODULE}. " in said
