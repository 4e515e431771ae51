"""Tests of all forms fail a wrong program and pass a right one, and those that could fail none are named."""

import pytest

from fusion.grading.sandbox import Limits, ProgramResult, judge_program, why_they_test_nothing

SHORT = Limits(seconds=5)
RIGHT, WRONG = "def add(a, b): return a + b", "def add(a, b): return a - b"
CASES = "import sys, unittest\nclass T(unittest.TestCase):\n    def test_a(self): self.assertEqual(add(1, 2), 3)\n"
SUITE = "unittest.defaultTestLoader.loadTestsFromTestCase(T)"
FORMS = {
    "a function that nobody calls": "def test_add():\n    assert add(1, 2) == 3",
    "a function in a list": "def test_add():\n    assert add(1, 2) == 3\nTESTS = [test_add]",
    "a failure that is only printed": "def test():\n    assert add(1, 2) == 3\ntry: test()\nexcept AssertionError: print(0)",
    "a class of pytest": "class TestAdd:\n    def setup_method(self, method): self.x = 1\n"
                         "    def test_a(self): assert add(self.x, 2) == 3",
    "a second test": "def test_a():\n    assert add(1, 0) == 1\ndef test_b():\n    assert add(1, 2) == 3\ntest_a()",
    "pytest's main": "import pytest, sys\ndef test_add():\n    assert add(1, 2) == 3\n"
                     "if __name__ == '__main__':\n    sys.exit(pytest.main([__file__]))",
    "a class of unittest": CASES,
    "its main": f"{CASES}if __name__ == '__main__':\n    unittest.main()",
    "its main, imported": f"from unittest import main\n{CASES}main(argv=[''], exit=False)",
    "a result that nobody reads": f"{CASES}unittest.TextTestRunner().run({SUITE})",
    "a result that is the exit": f"{CASES}sys.exit(not unittest.TextTestRunner().run({SUITE}).wasSuccessful())",
    "a class that is set up": "import unittest\nclass T(unittest.TestCase):\n    @classmethod\n"
                              "    def setUpClass(cls): cls.x = 1\n"
                              "    def test_a(self):\n        with self.subTest(): self.assertEqual(add(self.x, 2), 3)",
    "an exit": "import sys\nassert add(1, 2) == 3\nsys.exit(0)",
    "inside the program's process": f"{CASES.replace('self.assert', 'add.__code__; self.assert')}unittest.main()",
}  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
def test_a_right_program_passes_and_a_wrong_or_empty_one_fails(form):
    assert why_they_test_nothing(FORMS[form]) == ""
    assert judge_program(RIGHT, FORMS[form], SHORT).passed
    wrong = judge_program(WRONG, FORMS[form], SHORT)
    assert not wrong.passed
    assert "AssertionError" in wrong.reason
    assert not wrong.tests_broken
    assert "NameError" in judge_program("", FORMS[form], SHORT).reason


@pytest.mark.parametrize(
    ("tests", "why"),
    [
        ("def check(candidate):\n    assert candidate(1) == 1", "check is never called"),
        ("x = int('3')\ndef main():\n    assert f(1) == x", "main is never called"),
        ("# assert f(1) == 1\n", "they read nothing that a program defines"),
        ('{"inputs": ["1"], "outputs": ["2"]}', "they read nothing that a program defines"),
        ("import random\nassert random.random() < 2", "they read nothing that a program defines"),
        ("import pytest\npytest.main([__file__])", "they read nothing that a program defines"),
        ("def test_a(tmp_path): assert f(1) == 1", r"test_a needs arguments \(tmp_path\), and neither fixtures nor"),
        ("class TestA:\n    def test_a(self, x, y=1): assert f(x) == y", r"TestA.test_a needs arguments \(x\)"),
        (
            "import pytest\n@pytest.fixture(autouse=True)\ndef x(): return 1\ndef test(): assert f(1) == 1",
            "x is a fixture",
        ),
        ("import pytest\n@pytest.mark.skip\ndef test_a(): assert f(1) == 1", "test_a is never called"),
    ],
)
def test_tests_that_test_nothing_are_refused(tests, why):
    with pytest.raises(ValueError, match=f"cannot tell a right program from a wrong one: {why}"):
        judge_program("", tests, SHORT)


@pytest.mark.parametrize(
    "tests",
    [
        "def check(candidate):\n    assert candidate(1) == 1\ncheck(f)",
        "def test_a(a, b):\n    assert f(a) == b\nfor x in [(1, 1)]: test_a(*x)",
        "f(1)",
        "assert sum(1, 2) == 3",
        "from solution import f\nassert f(1) == 1",
        "no python (",
    ],
)
def test_other_tests_are_not(tests):
    assert why_they_test_nothing(tests) == ""


def test_tests_inside_the_programs_process_have_the_imports_that_it_left_out():
    result = judge_program("def f(x): return math.floor(x)", "assert f.__code__ and f(1.5) == 1", imports="import math")
    assert result == ProgramResult(True, "", "all tests: the tests use __code__")


@pytest.mark.parametrize("exits", ["raise SystemExit(0)", "__import__('sys').exit()"])
def test_a_program_that_exits_does_not_end_the_tests_well(exits):
    assert not judge_program(f"def f(): {exits}", "assert f() == 1", SHORT).passed
    assert not judge_program(f"def f(): {exits}", "assert f.__code__ and f() == 1", SHORT).passed
