"""The program in an answer: its blocks of code or, where it has none, the longest part that is Python.

Texts are compiled here to see whether they are Python, and never run.
"""

from __future__ import annotations

import ast
import builtins
import re
import textwrap
from collections.abc import Collection, Sequence

from fusion.grading.code_blocks import LONGEST, code_blocks, future_first, longest_prefix, out_of_json, parse
from fusion.grading.sandbox.collected import free_names
from fusion.grading.statements import without_thoughts

STARTS = re.compile(
    r"\s*(?:from\s+[\w.]+\s+import\b|import\s+\w|(?:async\s+)?def\s+\w|class\s+\w|@\w|[A-Za-z_]\w*\s*(?::[^=]+)?=[^=])"
)
Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


def extract_code(text: str, names: Collection[str] = ()) -> str:
    """Extract the program of an answer: the block, or the longest part that parses, that defines most of `names`.

    The last of equals counts. What it uses of other blocks (imports, definitions, constants) comes before it; what only tries
    the program out (prints, assertions, a main block) is left out where `names` are known. A text without anything that parses
    is returned as it stands: its last block, or all of it.
    """
    text = out_of_json(without_thoughts(text))
    blocks = [block for block in code_blocks(text) if block.strip()]
    parts = [part for block in blocks or [text] if (part := _longest_part(block, names))]
    if not parts:
        return blocks[-1] if blocks else text
    best = max(range(len(parts)), key=lambda i: (_defined(parts[i], names), bool(_definitions(parts[i])), i))
    helpers = _helpers(parts[:best], parts[best], parts[best + 1 :])
    program = _without_trials(parts[best], names) if names else parts[best]
    return future_first("\n\n".join([*helpers, program]))


def complete_function(text: str, prompt: str, name: str) -> str:
    """Make a program of an answer to "complete this code": prompt and answer, or the answer where it defines `name` itself.

    A body may have lost its indentation, wholly or in its first line; what follows it and is no Python is cut off.
    """
    text = out_of_json(without_thoughts(text))
    code = extract_code(text, [name])
    if _defined(code, [name]):
        # the prompt brings imports and helpers; the later definition holds
        return future_first(f"{prompt}\n    pass\n\n{code}")
    bodies = [body for block in code_blocks(text) or [text] for body in _bodies(block)]
    programs = [longest_prefix(prompt, body) for body in bodies]
    longest = max(programs, key=lambda program: len(program.splitlines()), default="")
    body = longest if longest.strip() else code
    return future_first(_without_trials(prompt + body, [name]) if longest.strip() else prompt + body)


def names_in_tests(tests: str) -> list[str]:
    """Names that tests read and neither bind themselves nor have from Python: what a program must define."""
    tree = parse(tests)
    if tree is None:
        return []
    free = free_names(tree)
    read = [node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and node.id in free]
    return [name for name in dict.fromkeys(read) if not hasattr(builtins, name) and not name.startswith("__")]


def _longest_part(text: str, names: Collection[str]) -> str:
    """The longest run of lines that parses, from a line that begins code on; of those that define `names`, if there are."""
    if parse(text):
        return text
    lines = text.splitlines(keepends=True)[:LONGEST]
    starts = [i for i, line in enumerate(lines) if STARTS.match(line) and (i == 0 or not _within(lines, i))]
    parts = [longest_prefix("", textwrap.dedent("".join(lines[start:]))) for start in starts]
    return max(parts, key=lambda part: (_defined(part, names), bool(_definitions(part)), len(part)), default="")


def _within(lines: Sequence[str], i: int) -> bool:
    """Whether line `i` goes on with code that began above it, so that no part needs to begin there."""
    return (
        bool(STARTS.match(lines[i - 1]))
        and not lines[i - 1].rstrip().endswith(":")
        and not lines[i].startswith(("def ", "class ", "async "))
    )


def _bodies(text: str) -> list[str]:
    """A function's body as an answer may give it: as it is, with the first line or all lines moved in, after its words."""
    lines = text.splitlines(keepends=True)
    inner = [i for i, line in enumerate(lines) if line.startswith((" ", "\t"))]
    later = "".join(lines[inner[0] :]) if inner else ""
    moved = textwrap.indent(textwrap.dedent(text), "    ")
    return [text, "    " + text, moved, later, textwrap.indent(textwrap.dedent(later), "    ")]


def _definitions(code: str) -> list[Definition]:
    tree = parse(code)
    return [node for node in tree.body if isinstance(node, Definition)] if tree else []


def _bound(code: str) -> set[str]:
    """Names that a program's definitions and assignments bind at its top level."""
    nodes = [node for node in getattr(parse(code), "body", []) if not isinstance(node, ast.Import | ast.ImportFrom)]
    return {name for node in nodes for name in _bound_by(node)}


def _bound_by(node: ast.stmt) -> list[str]:
    """Names that an import, a definition or an assignment binds."""
    if isinstance(node, ast.Import | ast.ImportFrom):
        return [alias.asname or alias.name.split(".")[0] for alias in node.names]
    if isinstance(node, Definition):
        return [node.name]
    assigns = isinstance(node, ast.Assign | ast.AnnAssign)
    stored = [name for name in ast.walk(node) if isinstance(name, ast.Name) and isinstance(name.ctx, ast.Store)]
    return [name.id for name in stored] if assigns else []


def _defined(code: str, names: Collection[str]) -> int:
    """How many of `names` a program binds."""
    return len(_bound(code).intersection(names)) if names else 0


def _helpers(before: Sequence[str], program: str, after: Sequence[str]) -> list[str]:
    """What a program lacks and other parts have: all imports of those before it; of all, what binds names that it reads.

    What a helper lacks comes along with it. Where several bind a name it is the last before the program, else the last of all.
    """
    earlier, later = (_statements_that_bind(parts) for parts in (before, after))
    binding = {name: node for node in [*later, *earlier] for name in _bound_by(node)}
    used: list[ast.stmt] = [node for node in earlier if isinstance(node, ast.Import | ast.ImportFrom)]
    waiting, bound = [free_names(parse(program) or ast.Module([], [])), *map(_read_by, used)], _bound(program)
    while waiting:
        lacking = waiting.pop() - bound
        more = [node for name, node in binding.items() if name in lacking and node not in used]
        used += list(dict.fromkeys(more))
        waiting += map(_read_by, more)
    return [ast.unparse(node) for node in [*earlier, *later] if node in used]


def _statements_that_bind(parts: Sequence[str]) -> list[ast.stmt]:
    """Imports, definitions and assignments of parts, in their order."""
    nodes = [node for part in parts for node in getattr(parse(part), "body", [])]
    return [node for node in nodes if _bound_by(node) and not _tries_out(node, ())]


def _read_by(node: ast.stmt) -> set[str]:
    """Names that a statement reads of those that stand around it."""
    return free_names(ast.Module([node], []))


def _without_trials(code: str, names: Collection[str]) -> str:
    """A program without the statements that only try it out, which may fail, print, or wait for input."""
    tree = parse(code)
    if tree is None or not any(_tries_out(node, names) for node in tree.body):
        return code
    return "\n\n".join(ast.unparse(node) for node in tree.body if not _tries_out(node, names)) + "\n"


def _tries_out(node: ast.stmt, names: Collection[str]) -> bool:
    """Whether a statement at the top level only tries a program out: an assertion, a main block, a call, a loop that prints."""
    if isinstance(node, ast.Assert):
        return True
    if isinstance(node, ast.Expr):  # what stays is a docstring, or a call such as sys.setrecursionlimit(10000)
        called = node.value.func if isinstance(node.value, ast.Call) else None
        return not isinstance(node.value, ast.Constant) and (
            not isinstance(called, ast.Attribute) or called.attr == "main"
        )
    calls = {call.func.id for call in ast.walk(node) if isinstance(call, ast.Call) and isinstance(call.func, ast.Name)}
    if isinstance(node, ast.If | ast.For | ast.While | ast.With | ast.Try):
        main = isinstance(node, ast.If) and "__name__" in ast.dump(node.test)
        return main or bool(calls & {"print", "input", *names})
    return isinstance(node, ast.Assign) and "input" in calls
