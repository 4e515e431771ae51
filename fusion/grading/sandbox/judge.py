"""The judge: runs the tests, in a process where nothing of the program is, and says how they ended."""

from __future__ import annotations

import ast
import builtins
import importlib
import sys
from typing import Any

import collected  # pyright: ignore[reportMissingImports]
import link  # pyright: ignore[reportMissingImports]
import runner  # pyright: ignore[reportMissingImports]

KNOWN_MODULES = {"np": "numpy", "dt": "datetime"}
KNOWN_NAMES = {
    "math": ("isclose", "sqrt", "pi", "inf", "nan", "isnan", "floor", "ceil"),
    "collections": ("Counter", "OrderedDict", "defaultdict", "deque", "namedtuple"),
    "datetime": ("date", "timedelta"),
    "decimal": ("Decimal",),
    "fractions": ("Fraction",),
    "copy": ("deepcopy",),
}
"""What tests use as if imported, since the program mostly imports it: taken from the library, never from the program."""
INSIDE_NAMES = frozenset({
    "redirect_stdout", "redirect_stderr", "stdout", "stderr", "stdin", "patch", "inspect", "globals", "locals", "vars",
    "asyncio", "async", "__main__", "__code__",
})  # fmt: skip
"""What tests can only do in the program's own process."""
CHANGING = frozenset({
    "append", "extend", "insert", "remove", "pop", "clear", "sort", "reverse", "add", "discard", "update", "setdefault",
    "popitem", "appendleft", "popleft",
})  # fmt: skip


def judge(channel: Any, tests: str) -> dict[str, Any]:
    """Run the tests against the program behind the channel.

    Returns passed, reason, whether the tests themselves are broken, and what ran inside or would have to.
    """
    program, reason, broken = link.Link(channel), "", False
    try:
        tree = ast.parse(tests)
        compile(tests, "<tests>", "exec", dont_inherit=True)  # finds more mistakes than `parse`
        program.wait()
        runner.run(tests, _namespace(program, tree), may_exit=True)
    except BaseException as error:
        reason = str(error) if isinstance(error, link.Broken) else f"{type(error).__name__}: {error}"
        broken = isinstance(error, SyntaxError | ImportError) and not program.raised(error)
    if isinstance(program.ended, link.NeedsInside):
        return {"needs_inside": str(program.ended)}
    if program.ended:  # even where the tests caught it
        reason, broken = str(program.ended), False
    return {
        "passed": not reason,
        "reason": reason[:400],
        "tests_broken": broken,
        "ran_inside": "; ".join(program.inside),
    }


def _namespace(program: Any, tree: ast.Module) -> dict[str, Any]:
    """What the tests find defined: the library's names from here, the program's from there."""
    used = collected.free_names(tree)
    if needed := sorted(used_inside(tree)):
        program.need_inside(f"the tests use {', '.join(needed)}")
    library = {name: value for name in used if (value := _library(name, tree)) is not None}
    # a program may not replace `all`, `abs` or `isclose`, unless the tests call nothing else
    of_program = {name for name in used if name not in library and not hasattr(builtins, name)} or used
    namespace = {"__name__": "__main__", "__builtins__": builtins, "__file__": "<tests>"}
    return namespace | library | program.names(sorted(of_program))


def _library(name: str, tree: ast.Module) -> Any:
    if (name in KNOWN_MODULES or name in sys.stdlib_module_names) and _only_has_attributes(name, tree):
        return importlib.import_module(KNOWN_MODULES.get(name, name))
    module = next((module for module, names in KNOWN_NAMES.items() if name in names), None)
    return module and getattr(importlib.import_module(module), name)


def _only_has_attributes(name: str, tree: ast.Module) -> bool:
    """Whether the tests only say `name.something`, as of a module."""
    owners = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    return all(id(node) in owners for node in ast.walk(tree) if isinstance(node, ast.Name) and node.id == name)


def used_inside(tree: ast.Module) -> set[str]:
    """What the tests do that works in the program's own process only."""
    nodes = list(ast.walk(tree))
    caught = [node.type for node in nodes if isinstance(node, ast.ExceptHandler) and node.type]
    exceptions = {
        node.id for kind in caught for node in ast.walk(kind) if isinstance(node, ast.Name)
    } & collected.free_names(tree)
    named = {node.id for node in nodes if isinstance(node, ast.Name)}
    named |= {node.attr for node in nodes if isinstance(node, ast.Attribute)}
    named |= {"async" for node in nodes if isinstance(node, ast.AsyncFunctionDef)}
    return {name for name in exceptions if not hasattr(builtins, name)} | (INSIDE_NAMES & named) | _changed_parts(nodes)


def _changed_parts(nodes: list[ast.AST]) -> set[str]:
    """Where the tests change a container that an object holds, as in `node.children.append(x)`; they would have a copy."""
    calls = [node.func for node in nodes if isinstance(node, ast.Call)]
    owners = [call.value for call in calls if isinstance(call, ast.Attribute) and call.attr in CHANGING]
    owners += [node.value for node in nodes if isinstance(node, ast.Subscript) and not isinstance(node.ctx, ast.Load)]
    held = [owner for owner in owners if isinstance(owner, ast.Attribute)]
    return {ast.unparse(owner) for owner in held if not ast.unparse(owner).startswith("self.")}
