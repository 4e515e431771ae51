"""Which answers pass: right, wrong and malformed ones of each kind of check."""

import pytest
from pydantic import TypeAdapter, ValidationError

from fusion.data.example import Example
from fusion.responses import AnyCheck, Response

ASKED = ({"role": "user", "content": "How much is 12 + 30?"},)


def example(response="Add them. #### 42", tests=None):
    return Example(ASKED, response, "sums", tests=tests)


def passing(check, *answers, asked=None, **settings):
    given = [
        answer if isinstance(answer, Response) else Response(f"s{n}", answer, ended=True)
        for n, answer in enumerate(answers)
    ]
    return TypeAdapter(AnyCheck).validate_python({"kind": check, **settings})(asked or example(), given)


def test_ended_lets_every_answer_pass():
    assert passing("ended", "42", "?") == [True, True]
    assert passing("ended") == []


@pytest.mark.parametrize(("answer", "right"), [
    ("12 + 30 = 42", True),
    ("It is 42.0", True),
    (r"so \boxed{42}, not 43", True),
    ("42 is not it, 43 is", False),
    ("forty-two", True),
    ("", False),
])  # fmt: skip
def test_final_answers_are_compared_as_numbers(answer, right):
    assert passing("final_answer", answer) == [right]


@pytest.mark.parametrize(("compare", "reference", "answers", "right"), [
    ("option", "B", ["The answer is B.", "(C)", "none"], [True, False, False]),
    ("text", " dlrow\n", ["dlrow", "dlro w", "  "], [True, False, False]),
])  # fmt: skip
def test_what_is_compared_may_be_an_option_or_all_of_the_text(compare, reference, answers, right):
    assert passing("final_answer", *answers, asked=example(reference), compare=compare) == right


def test_a_reference_that_comes_to_nothing_agrees_with_nothing():
    assert passing("final_answer", "", "no number", asked=example("no number either")) == [False, False]


PROGRAM = "def double(x):\n    return 2 * x"


def test_programs_are_run_against_the_tests_of_their_row():
    asked = example(tests="assert double(2) == 4\nassert double(-1) == -2")
    answers = [
        f"Here:\n```python\n{PROGRAM}\n```\nDone.",
        PROGRAM,
        PROGRAM.replace("2", "3"),
        "I cannot.",
        "while True: pass",
    ]
    found = passing("tests", *answers, asked=asked, allow_code_execution=True, seconds=1)
    assert found == [True, True, False, False, False]


def test_a_program_that_decides_its_own_verdict_passes_only_where_that_is_trusted():
    asked = example(tests="assert make() == make()")
    equal = "class A:\n    def __eq__(self, other): return True\n    __hash__ = None\ndef make(): return A()"
    assert passing("tests", equal, asked=asked, allow_code_execution=True) == [True]
    assert passing(
        "tests", equal, "def make(): return 1", asked=asked, allow_code_execution=True, trust_inside=False
    ) == [
        False,
        True,
    ]


def test_neither_a_fake_nor_a_file_named_as_ours_ends_the_check():
    asked = example(tests="assert double(2) == 4")
    writes = "open('.out', 'w').write('{}')\ndef double(x): return 2 * x"
    fake = 'import json\njson.dumps = lambda *a, **k: \'{"passed": true, "reason": ""}\'\ndef double(x): return 0'
    assert passing("tests", writes, fake, asked=asked, allow_code_execution=True) == [True, False]


def test_a_row_without_tests_is_named():
    with pytest.raises(ValueError, match=r"begins 'How much is 12 \+ 30\?' has no tests"):
        passing("tests", PROGRAM, allow_code_execution=True)


def test_answers_agree_where_enough_of_them_and_enough_sources_come_to_the_same():
    assert passing("agreement", "42", "so 42", "43") == [True, True, False]
    assert passing("agreement", "42", "so 42", "43", share=0.7) == [False, False, False]
    assert passing("agreement", "42", "43", "44") == [False, False, False]
    assert passing("agreement", "?", "?") == [False, False]
    assert passing("agreement", "same", " same ", "other", compare="text") == [True, True, False]


def test_one_source_that_repeats_itself_is_no_agreement():
    mine = [Response("a", "42", True), Response("a", "42", True), Response("b", "43", True)]
    assert passing("agreement", *mine) == [False, False, False]
    assert passing("agreement", *mine, min_sources=1) == [True, True, False]


def test_likelihood_is_that_under_the_other_sources():
    given = [
        Response("a", "x", True, other_sources_logprob=-0.4),
        Response("b", "y", True, other_sources_logprob=-0.5),
        Response("b", "y", True, other_sources_logprob=-0.6),
    ]
    assert passing("likelihood", *given, min_logprob_per_byte=-0.5) == [True, True, False]
    with pytest.raises(ValueError, match="needs two sources or more"):
        passing("likelihood", Response("a", "x", True), min_logprob_per_byte=-0.5)
    with pytest.raises(ValidationError, match="less than 0"):
        passing("likelihood", min_logprob_per_byte=0.5)


def test_who_finds_the_reference_likeliest_is_likely_to_write_like_it():
    given = [
        Response("a", "x", True, reference_logprob=-0.9),
        Response("b", "y", True, reference_logprob=-0.2),
        Response("b", "z", True, reference_logprob=-0.2),
    ]
    assert passing("knows_reference", *given) == [False, True, True]
    assert passing("knows_reference") == []
    with pytest.raises(ValueError, match="was not read by the sources"):
        passing("knows_reference", *given, Response("c", "w", True))


def test_a_row_whose_tests_pass_any_program_is_named():
    asked = example(tests="def check(candidate):\n    assert candidate(2) == 4")
    with pytest.raises(
        ValueError, match=r"begins 'How much.*: check is never called. Have data.train\[...\].tests call"
    ):
        passing("tests", PROGRAM, asked=asked, allow_code_execution=True)


@pytest.mark.parametrize(("tests", "reasons", "broken"), [
    ("assert double(2) == 4", ["", "AssertionError: "], ""),
    ("from solution import double\nassert double(2) == 4",
     ["ModuleNotFoundError: No module named 'solution'"] * 2, "ModuleNotFoundError: No module named 'solution'"),
    ("import absent_module\ndef test(): assert double.__code__ and double(2) == 4",
     ["ModuleNotFoundError: No module named 'absent_module'"] * 2, "ModuleNotFoundError: No module named 'absent_module'"),
    ("assert double(2) == other", ["NameError: name 'other' is not defined"] * 2, ""),
])  # fmt: skip
def test_why_a_program_does_not_pass_is_told_from_tests_that_do_not_run(tests, reasons, broken):
    check = TypeAdapter(AnyCheck).validate_python({"kind": "tests", "allow_code_execution": True})
    given = [Response("s", text, ended=True) for text in (PROGRAM, "def double(x):\n    return x")]
    found = check.judge(example(tests=tests), given)
    assert found.reasons == reasons
    assert found.passed == [not reason for reason in reasons]
    assert found.tests_broken == broken


def test_tests_that_are_no_python_do_not_run_and_an_import_that_the_program_lacks_is_the_programs():
    check = TypeAdapter(AnyCheck).validate_python({"kind": "tests", "allow_code_execution": True})
    lacks = Response("s", "import absent_module\ndef double(x):\n    return 2 * x", ended=True)
    assert "SyntaxError" in check.judge(example(tests="assert double(2) =="), [lacks]).tests_broken
    found = check.judge(example(tests="assert double(2) == 4"), [lacks])
    assert found == ([False], ["ModuleNotFoundError: No module named 'absent_module'"], "")
