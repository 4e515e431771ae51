"""What a text of tests holds besides its statements: test functions and classes, as pytest and unittest find them.

Read from the text, here and in the sandbox's own processes, so with nothing but the standard library.
"""

from __future__ import annotations

import ast
import builtins
import symtable
import sys
from collections.abc import Iterable, Iterator

Function = ast.FunctionDef | ast.AsyncFunctionDef
Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
NOT_RUN = {"skip", "skipif", "xfail"}
LIBRARIES = {*sys.stdlib_module_names, "numpy", "pytest"}


def why_they_test_nothing(tests: str) -> str:
    """Say why tests could not fail for any program, or cannot be called; empty where they can, and where they are no Python."""
    try:
        tree = ast.parse(tests)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return ""
    asking = [said for function in _called_by_us(tree) if (said := _asks_for_more(function))]
    if asking:
        return asking[0]
    if fixtures := [name for name, node in _defined(tree).items() if "fixture" in _decorators(node)]:
        return f"{fixtures[0]} is a fixture, and fixtures are not run"
    executed = list(_executed(tree))
    if _can_fail(tree, executed):
        return ""
    idle = [name for name, node in _defined(tree).items() if isinstance(node, Function) and node not in executed]
    return f"{idle[0]} is never called" if idle else "they read nothing that a program defines"


def free_names(tree: ast.Module) -> set[str]:
    """Names that the tests read as globals in some scope and never bind as such."""
    waiting, read, bound = [symtable.symtable(ast.unparse(tree), "<tests>", "exec")], set(), set()
    while waiting:
        scope = waiting.pop()
        waiting += scope.get_children()
        on_top = scope.get_type() == "module"
        here = [each for each in scope.get_symbols() if on_top or each.is_global()]
        read |= {each.get_name() for each in here if each.is_referenced()}
        bound |= {each.get_name() for each in here if each.is_assigned() or each.is_imported() or each.is_namespace()}
    return read - bound


def uncalled_tests(tree: ast.Module) -> list[str]:
    """Names of test functions and of classes of tests that the tests do not call themselves, in their order.

    Calls in a `try` or from another function do not count, since a failure may be caught there: twice is not too often.
    """
    plain = [each for each in _statements(tree) if not any(isinstance(node, ast.Try) for node in ast.walk(each))]
    called = _calls(plain)
    return [
        name
        for name, node in _defined(tree).items()
        if name not in called and _is_test(node) and not NOT_RUN & _decorators(node)
    ]


def imports(tree: ast.Module, module: str) -> bool:
    """Whether tests import a module, or from it."""
    return module in _imports(tree).values()


def defined_classes(tree: ast.Module) -> list[str]:
    """Names of the classes that the tests define."""
    return [name for name, node in _defined(tree).items() if isinstance(node, ast.ClassDef)]


def methods_of_tests(node: ast.ClassDef) -> list[Function]:
    """The methods of a class that are tests."""
    return [method for method in node.body if isinstance(method, Function) and method.name.startswith("test")]


def _is_test(node: Definition) -> bool:
    return bool(methods_of_tests(node)) if isinstance(node, ast.ClassDef) else node.name.startswith("test")


def _called_by_us(tree: ast.Module) -> Iterator[tuple[str, Function, int]]:
    """Of each function and method that is called for the tests: what it is called, itself, and how many arguments it gets."""
    read = {node.id for node in _names(_reached(tree, _statements(tree)))}
    for name in uncalled_tests(tree):
        node = _defined(tree)[name]
        if isinstance(node, ast.ClassDef):
            yield from ((f"{name}.{method.name}", method, 1) for method in methods_of_tests(node))
        elif name not in read:  # what reads it may call it, with all that it needs
            yield name, node, 0


def _asks_for_more(called: tuple[str, Function, int]) -> str:
    """Say that a test needs arguments, which nobody gives it; empty where it does not."""
    name, function, given = called
    arguments = [arg.arg for arg in [*function.args.posonlyargs, *function.args.args]]
    needed = arguments[given : len(arguments) - len(function.args.defaults)]
    patched = "patch" in _decorators(function) or "object" in _decorators(function)  # brings an argument of its own
    if not needed or patched:
        return ""
    return f"{name} needs arguments ({', '.join(needed)}), and neither fixtures nor parametrize are run"


def _statements(tree: ast.AST) -> Iterator[ast.AST]:
    """Statements that run when the tests are run as a file; of what they define, decorators and base classes."""
    for node in getattr(tree, "body", []):
        if isinstance(node, Definition):
            yield from [*node.decorator_list, *getattr(node, "bases", [])]
        else:
            yield node


def _defined(tree: ast.AST) -> dict[str, Definition]:
    """Functions and classes at the top level, also below an `if` or `try`, by name."""
    found: dict[str, Definition] = {}
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, Definition):
            found[node.name] = node
        elif isinstance(node, ast.If | ast.Try | ast.With | ast.For | ast.ExceptHandler):
            found |= _defined(node)
    return found


def _reached(tree: ast.Module, roots: Iterable[ast.AST]) -> list[ast.AST]:
    """Roots, and the functions and classes whose names these read, and so on."""
    defined, found, waiting = _defined(tree), [], list(roots)
    while waiting:
        node = waiting.pop()
        found.append(node)
        read = {name.id for name in _names([node])}
        waiting += [other for name, other in defined.items() if name in read and other not in (*found, *waiting)]
    return found


def _executed(tree: ast.Module) -> list[ast.AST]:
    """All that runs: the statements, the tests that are called for them, and what both use."""
    defined = _defined(tree)
    return _reached(tree, [*_statements(tree), *(defined[name] for name in uncalled_tests(tree))])


def _can_fail(tree: ast.Module, executed: Iterable[ast.AST]) -> bool:
    """Whether what runs reads a name of the program; one that Python has too counts where something is asserted."""
    read, nodes = {name.id for name in _names(executed)}, [node for root in executed for node in ast.walk(root)]
    outside = {name for name in read & free_names(tree) if not name.startswith("__")} | (read & _imported(tree))
    asserts = any(isinstance(node, ast.Assert | ast.Raise) for node in nodes)
    return any(asserts or not hasattr(builtins, name) for name in outside)


def _imported(tree: ast.Module) -> set[str]:
    """Names from modules that may be the program's."""
    return {name for name, module in _imports(tree).items() if module not in LIBRARIES}


def _imports(tree: ast.Module) -> dict[str, str]:
    """By name that the tests import: the module that it is, or is of."""
    found = {}
    for node in ast.walk(tree):
        for alias in node.names if isinstance(node, ast.Import | ast.ImportFrom) else []:
            module = node.module or "" if isinstance(node, ast.ImportFrom) else alias.name
            found[alias.asname or alias.name.partition(".")[0]] = module.partition(".")[0]
    return found


def _names(nodes: Iterable[ast.AST]) -> Iterator[ast.Name]:
    """Names that are read."""
    for root in nodes:
        for node in ast.walk(root):
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
                yield node


def _calls(nodes: Iterable[ast.AST]) -> set[str]:
    """Names that are called."""
    calls = [node.func for root in nodes for node in ast.walk(root) if isinstance(node, ast.Call)]
    return {function.id for function in calls if isinstance(function, ast.Name)}


def _decorators(node: Definition) -> set[str]:
    """All names in the decorators of a function or class."""
    parts = [part for decorator in node.decorator_list for part in ast.walk(decorator)]
    return {part.id for part in parts if isinstance(part, ast.Name)} | {
        part.attr for part in parts if isinstance(part, ast.Attribute)
    }
