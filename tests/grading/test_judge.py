"""The verdict: what the program does to its own process does not change it, and right programs of all forms pass."""

import json
import struct

import pytest

from fusion.grading import sandbox
from fusion.grading.sandbox import Limits, ProgramResult, judge_program
from tests.helpers.fakes import FAKES

SHORT = Limits(seconds=2)
PASSED = ProgramResult(True, "")
TESTS = {
    "assertions": "assert add(1, 2) == 3\nassert add(2, 2) == 4",
    "a tolerance": "assert all(abs(add(i, 3) - (i + 3)) < 1e-6 for i in range(5))",
    "unittest": (
        "import unittest\nclass T(unittest.TestCase):\n    def test(self): self.assertEqual(add(7, 9), 16)\n"
        "result = unittest.TestResult()\nT('test').run(result)\nif not result.wasSuccessful(): raise ValueError"
    ),
}


@pytest.mark.parametrize("fake", FAKES)
def test_no_fake_passes_two_assertions(fake):
    result = judge_program(FAKES[fake], TESTS["assertions"], SHORT)
    assert not result.passed
    assert result.reason


@pytest.mark.slow
@pytest.mark.parametrize("tests", ["a tolerance", "unittest"])
@pytest.mark.parametrize("fake", FAKES)
def test_no_fake_passes_tests_of_other_forms(fake, tests):
    assert not judge_program(FAKES[fake], TESTS[tests], SHORT).passed


@pytest.mark.parametrize("tests", TESTS)
def test_a_right_program_passes_the_tests_that_no_fake_does(tests):
    assert judge_program("def add(a, b): return a + b", TESTS[tests]) == PASSED


def test_there_are_fakes_of_thirty_kinds():
    assert len(FAKES) >= 30


@pytest.mark.parametrize(
    ("program", "tests"),
    [
        ("def abs(x): return 0\ndef f(): return 5", "assert abs(f() - 1) < 2"),
        ("def isclose(a, b): return True\ndef f(): return 5", "assert isclose(f(), 1)"),
        ("class math:\n    isclose = lambda a, b: True\ndef f(): return 5", "assert math.isclose(f(), 1)"),
        ("class np:\n    allclose = lambda a, b: True\ndef f(): return 5", "assert np.allclose(f(), 1)"),
        ("def f(): return 5\ndef check(f): return True", "def check(f): assert f() == 1\ncheck(f)"),
        (
            "class A:\n    def __iter__(s): return iter([2])\n    def __contains__(s, x): return True\nf = A",
            "assert 3 in f()",
        ),
        (
            "import numpy as np\nclass A(np.ndarray):\n    def __eq__(s, x): return True\ndef f(): return np.zeros(2).view(A)",
            "import numpy as np\nassert np.allclose(f(), [1, 1])",
        ),
        (
            "class A:\n    def __array__(s, *a, **k): return s\n    def __eq__(s, x): return True\nf = A",
            "import numpy as np\nassert np.allclose(f(), [1, 1])",
        ),
        ("from itertools import count as f", "assert 3.5 in [x for x, _ in zip(f(), range(9))]"),
        ("def f(x): x[:] = [0]; return [0]", "for _ in '12': assert f([1]) == [1]"),
    ],
)
def test_a_program_does_not_bring_the_means_to_judge_it(program, tests):
    assert not judge_program(program, tests, SHORT).passed


@pytest.mark.parametrize(
    ("program", "tests"),
    [
        ("def sum(a, b): return a + b", "assert sum(10, 15) == 25"),
        ("import math\ndef f(x): return math.sqrt(x)", "assert math.isclose(f(2), 1.41421, rel_tol=1e-3)"),
        ("from collections import Counter\ndef f(x): return Counter(x)", "assert f('aab') == {'a': 2, 'b': 1}"),
        ("from fractions import Fraction\ndef f(): return Fraction(1, 3)", "assert f() == Fraction(1, 3)"),
        ("def f(): return 10 ** 6000", "assert f() == 10 ** 6000"),
        ("def f(): return {(1, 'a'): {2.5, None}, b'x': [True]}", "assert f() == {(1, 'a'): {2.5, None}, b'x': [True]}"),
        ("def f(x): return x", "def check(f):\n    assert f(1) == 1\ncheck(f)"),
        ("def f(x): return x", "def check(value, f=f):\n    assert f(value) == 1\ncheck(1)"),
        ("def f(x): x.sort()", "items = [3, 1]\nassert f(items) is None\nassert items == [1, 3]"),
        ("def f(*, x): x['a'] = 1", "items = {}\nf(x=items)\nassert items == {'a': 1}"),
        ("def f(x): x[0].append(1)", "inner = []\nf([inner])\nassert inner == [1]"),
        ("def f(x): return x", "items = []\nassert f(items) is items"),
        ("def f():\n    yield 1\n    yield 2", "assert list(f()) == [1, 2]\nassert next(f()) == 1"),
        ("def f(g, x): return [g(i) for i in x]", "assert f(lambda i: i * 2, [1, 2]) == [2, 4]"),
        ("def f(n): return lambda x: x + n", "assert f(2)(3) == 5"),
        (
            "class Node:\n    def __init__(self, x): self.x = x\n    def double(self): return 2 * self.x",
            "node = Node(3)\nassert node.x == 3 and node.double() == 6\nnode.x = 5\nassert node.double() == 10",
        ),
        (
            "class Stack:\n    def __init__(self): self.a = []\n    def push(self, x): self.a.append(x)\n"
            "    def __len__(self): return len(self.a)\n    def __getitem__(self, i): return self.a[i]",
            "stack = Stack()\nstack.push(4)\nassert len(stack) == 1 and stack[0] == 4",
        ),
        (
            "class Node:\n    def __init__(self, x, after=None): self.x, self.after = x, after\n"
            "def f(node): return node.x + (f(node.after) if node.after else 0)",
            "assert f(Node(1, Node(2))) == 3",
        ),
        ("def f(): raise KeyError('no', 1)", "try: f()\nexcept KeyError as e: assert e.args == ('no', 1)\nelse: assert 0"),
        ("def f(): print('much ' * 10 ** 6); return 1", "assert f() == 1"),
        ("def f(): open('.out', 'w').write('{}'); return 1\nf()", "assert f() == 1"),
        ("import json\nopen('a.json', 'w').write('x')\ndef f(): return json.dumps([1])", "assert f() == '[1]'"),
        ("import json\njson.dumps = lambda x: 'mine'\ndef f(): return json.dumps(1)", "assert f() == 'mine'"),
        ("def f(x: int): return f.__annotations__['x'] is int", "assert f(1)"),
        ("from __future__ import annotations\ndef f(x: Missing): return x", "import math\nassert f(1) == 1"),
        ("if __name__ == '__main__':\n    def f(): return 1", "assert f() == 1"),
        ("def f(x): return int if x else str", "assert f(1) is int"),
        ("import numpy as np\ndef f(x): return np.array([x]).any()", "assert f(0) == False\nassert f(1) is True"),
        ("import numpy as np\ndef f(x): return {'a': [np.bool_(x)]}", "assert f(1) == {'a': [True]}"),
        ("import numpy as np\ndef f(x): return np.array(x) * 2", "assert np.allclose(f([1, 2]), [2, 4])"),
        ("def f(x): x[0] = 7", "import numpy as np\nx = np.zeros(2)\nf(x)\nassert x.tolist() == [7, 0]"),
        ("import numpy as np\nclass A:\n    def __array__(self, *a, **k): return np.ones(2)\ndef f(): return A()",
         "import numpy as np\nassert np.allclose(f(), [1, 1])"),
        ("import asyncio\nasync def g(x): return x\ndef f(x): return asyncio.run(g(x))", "assert f(1) == 1"),
    ],
)  # fmt: skip
def test_right_programs_of_all_forms_pass_and_decide_nothing_themselves(program, tests):
    assert judge_program(program, tests, SHORT) == PASSED


@pytest.mark.parametrize(
    ("program", "tests", "inside"),
    [
        ("class P:\n    def __eq__(self, o): return True", "assert P() == P()", "how two objects of the program compare"),
        ("class P: pass", "assert isinstance(P(), P)", "of a class of the program"),
        ("class P: pass", "assert P()", "whether an object of the program is true"),
        ("class P:\n    def __contains__(self, x): return x == 1", "assert 1 in P()", "contains a value"),
        ("def f(x): return sum(x)", "assert f(iter([1, 2])) == 3", "all tests: the tests pass an object of type list_iterator"),
        ("def f(x): return x.y", "class A: y = 1\nassert f(A()) == 1", "all tests: the tests pass an object of type A"),
        ("async def f(x): return x", "import asyncio\nassert asyncio.run(f(1)) == 1", "all tests: the tests use asyncio"),
        ("async def f(x): return x", "async def test_f(): assert await f(1) == 1", "all tests: the tests use async"),
        ("class P: pass", "class Q(P): pass", "all tests: the tests derive a class from one of the program"),
        ("class N:\n    def __init__(self): self.kids = []\ndef f(n): return len(n.kids)",
         "n = N()\nn.kids.append(1)\nassert f(n) == 1", "all tests: the tests use n.kids"),
        ("class E(Exception): pass\ndef f(): raise E", "try: f()\nexcept E: pass", "all tests: the tests use E"),
        ("def f(): print(1)", "import io, contextlib\nwith contextlib.redirect_stdout(io.StringIO()) as out: f()\n"
         "assert out.getvalue() == '1\\n'", "all tests: the tests use redirect_stdout"),
    ],
)  # fmt: skip
def test_what_a_program_could_decide_itself_is_flagged(program, tests, inside):
    result = judge_program(program, tests, SHORT)
    assert result.passed
    assert inside in result.ran_inside


def test_imports_run_before_a_program_that_begins_with_one_from_the_future():
    program = "from __future__ import annotations\ndef f(x): return math.floor(x)"
    assert judge_program(program, "assert f(1.5) == 1", SHORT, imports="import math") == PASSED
    assert "NameError" in judge_program(program, "assert f(1.5) == 1", SHORT).reason


def test_a_program_cannot_have_the_tests_run_in_its_own_process():
    program = """
class Odd:
    def __iter__(self): return iter([self])
    def __getattr__(self, name): return self
def add(a, b): return Odd()
"""
    assert judge_program(program, "for x in add(1, 2): assert x.y == 3", SHORT) == ProgramResult(
        False, "AssertionError: "
    )


def test_a_program_brings_no_names_that_were_not_asked_for():
    """It answers for itself, before the worker does, and says what `all` is."""
    program = """
import os, json, struct
messages = [["value", None], ["value", {"dict": [["f", 1], ["all", {"builtin": "list"}]]}]]
for data in (json.dumps(message).encode() for message in messages):
    for fd in range(3, 30):
        try: os.write(fd, struct.pack(">I", len(data)) + data)
        except OSError: pass
"""
    assert judge_program(program, "assert all(x == 2 for x in [f])", SHORT) == ProgramResult(False, "AssertionError: ")


@pytest.mark.parametrize(
    ("program", "reason"),
    [
        ("def f(", "SyntaxError"),
        ("raise KeyError('a')", "KeyError: 'a'"),
        ("g = 1", "NameError: name 'f' is not defined"),
        ("def f(): raise SystemExit(0)", "SystemExit: 0"),
        ("import os\ndef f(): os._exit(0)", "ended by itself before the tests were through"),
        ("def f():\n    while True: pass", "took longer than 1 seconds of CPU"),
        ("def f(): return 'x' * 2**26", "too large to cross"),
        ("def f():\n    x = []\n    x.append(x)\n    return x", "RecursionError"),
    ],
)
def test_a_failure_says_why(program, reason):
    result = judge_program(program, "assert f() == 1", Limits(seconds=1))
    assert not result.passed
    assert reason in result.reason


def test_a_program_that_ends_is_not_saved_by_tests_that_catch_everything():
    assert not judge_program("import os\ndef f(): os._exit(0)", "try: f()\nexcept BaseException: pass", SHORT).passed


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"noise",
        b"\0\0\0\2[]",
        b'\0\0\0\2["verdict", {"passed": 1}]',
        b'\0\0\0\2["verdict", 3]',
        b'\0\0\0\2["verdict", {"passed": true}]["verdict"]',
        b"\0\0\0\2" + b"[" * 100_000,
    ],
)
def test_a_malformed_verdict_is_a_failure_of_that_answer_alone(data, monkeypatch):
    monkeypatch.setattr(sandbox, "last_message", lambda *args: data)
    result = judge_program("def f(): return 1", "assert f() == 1", SHORT)
    assert not result.passed
    assert "ended by itself" in result.reason
    monkeypatch.undo()
    assert judge_program("def f(): return 1", "assert f() == 1", SHORT) == PASSED


def test_noise_on_the_pipe_fails_the_answer_and_not_the_next():
    noise = struct.pack(">I", 4) + b"nope" + json.dumps(["value"]).encode()
    program = f"""
import os
for fd in range(3, 30):
    try: os.write(fd, {noise!r})
    except OSError: pass
def f(): return 1
"""
    assert "malformed" in judge_program(program, "assert f() == 1", SHORT).reason
    assert judge_program("def f(): return 1", "assert f() == 1", SHORT) == PASSED
