"""What becomes of the parts of a program in an answer; whole answers are in tests/field/answers/program.jsonl."""

import pytest

from fusion.grading.code_blocks import code_blocks, future_first, longest_prefix, parse
from fusion.grading.programs import extract_code, names_in_tests


def test_names_that_tests_need_are_found_and_their_own_are_not():
    tests = "import math\n\ndef near(a, b=1):\n    return math.isclose(a, b)\n\nx = 2\nassert near(area(x), len('ab')) and SIZE"
    assert names_in_tests(tests) == ["SIZE", "area"]
    assert names_in_tests("no python (") == []


BLOCKS = """```python
import math

def half(x):
    return x / 2
```
```python
def f(x):
    return half(x)

print(f(2))
assert f(2) == 3
```"""


def test_helpers_of_earlier_blocks_come_along_and_trials_do_not():
    code = extract_code(BLOCKS, ["f"])
    assert all(part in code for part in ("import math", "def half"))
    assert not any(part in code for part in ("print", "assert"))
    names: dict = {}
    exec(code, names)
    assert names["f"](2) == 1


@pytest.mark.parametrize(
    "trial",
    [
        "f(3)",
        "unittest.main()",
        "assert f(1)",
        "if __name__ == '__main__':\n    f(1)",
        "for x in 1, 2:\n    print(f(x))",
        "n = int(input())",
    ],
)
def test_a_statement_that_only_tries_the_program_out_is_left_out(trial):
    code = extract_code(f"import unittest\n\ndef f(x):\n    return x\n\n{trial}\n", ["f"])
    assert parse(code) is not None
    assert trial.splitlines()[0] not in code


@pytest.mark.parametrize(
    "kept",
    [
        "import sys\n\nsys.setrecursionlimit(10000)",
        "TABLE = [i * i for i in range(9)]",
        "for i in range(3):\n    TABLE = i",
    ],
)
def test_a_statement_that_the_program_needs_stays(kept):
    assert kept in extract_code(f"{kept}\n\ndef f(x):\n    return x\n\nprint(f(1))\n", ["f"])


def test_without_names_nothing_is_left_out():
    assert extract_code("x = 1\nprint(x)\n") == "x = 1\nprint(x)\n"


def test_imports_of_the_future_stand_at_the_top_once():
    program = "import os\nfrom __future__ import annotations\nx = 1\nfrom __future__ import annotations\n"
    assert future_first(program).startswith("from __future__ import annotations\nimport os\n")
    assert parse(program) is None
    assert parse(future_first(program)) is not None


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("    return x\n\nIt returns x.\n", "    return x\n\n"),
        ("    return [x,\n        x]\nprint([x,\n", "    return [x,\n        x]\n"),
        ("    y = '''open\n", ""),
        ("no code at all\n", ""),
    ],
)
def test_the_longest_beginning_that_is_python_is_kept(text, kept):
    assert longest_prefix("def f(x):\n    '''Doc.'''\n", text) == kept


def test_blocks_of_other_languages_are_no_programs():
    assert code_blocks("```bash\nls\n```\n```\nx = 1\n```\n~~~py\ny = 2\n~~~") == ["x = 1\n", "y = 2\n"]


F = "```"
DOCUMENTED = f'''def f(x):
    """
    Example:
    {F}
    f(1)
    {F}

    {F}py
    f(2)
    {F}
    """
    return x + 1
'''


@pytest.mark.parametrize("after", ["", "\nDone.", f"\nThen:\n{F}python\nprint(f(1))\n{F}", f"\n{F}\n2\n{F}"])
def test_fences_in_a_docstring_do_not_end_a_block(after):
    assert code_blocks(f"{F}python\n{DOCUMENTED}{F}{after}")[0] == DOCUMENTED
    assert extract_code(f"{F}python\n{DOCUMENTED}{F}{after}", ["f"]) == DOCUMENTED


def test_a_fence_inside_a_line_ends_a_block_only_where_no_other_makes_it_a_program():
    assert code_blocks(f"{F}python\nx = '{F}'\n{F}\nWords.") == [f"x = '{F}'\n"]
    assert code_blocks(f"{F}python\nx = 1{F}\nWords.\n{F}\ny = 2\n{F}") == ["x = 1\n", "y = 2\n"]


@pytest.mark.parametrize(
    "blocks",
    [
        ["def f(x):\n    return g(x)", "def g(x):\n    return x + ONE", "ONE = 1"],
        ["ONE = 1", "def f(x):\n    return x + ONE"],
        ["def f(x):\n    return int(m.floor(x)) + 1", "import math as m"],
        ["def g(x):\n    return x + 1", "def f(x):\n    return g(x)", "def g(x):\n    return x  # slower"],
        ["def f(x):\n    result = x + 1\n    return result", "result = f(5)"],
        ["def f(x):\n    return x + 1", "from solution import f\nimport absent_module"],
        ["def f(x):\n    return next(n for n in N if n > x)", "N = range(99)\nM = f(2)"],
    ],
)
def test_a_program_brings_what_it_uses_of_other_blocks_and_nothing_else_of_later_ones(blocks):
    names: dict = {}
    exec(extract_code("\nThen:\n".join(f"{F}python\n{block}\n{F}" for block in blocks), ["f"]), names)
    assert names["f"](2) == 3
