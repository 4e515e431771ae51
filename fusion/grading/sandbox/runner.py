"""Runs tests in a namespace as they are, then those of their functions and classes that they do not run themselves.

Modules that few tests need are imported when they are: each start of the sandbox would take longer.
"""

from __future__ import annotations

import ast
import sys
import types
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import collected  # pyright: ignore[reportMissingImports]

if TYPE_CHECKING:
    import unittest


class Recorder:
    """Notes which methods of unittest run, and the first that fails, whoever runs them and whatever becomes of the result."""

    def __init__(self, namespace: dict[str, Any], classes: list[str]) -> None:
        """Take where the tests' classes will be found, and their names."""
        self.namespace, self.classes = namespace, classes
        self.ran: set[tuple[type, str]] = set()
        self.failure: BaseException | None = None

    def install(self) -> None:
        """Have unittest tell; its `main` runs what is there so far, and does not end the process."""
        import unittest

        run, ran, kind = unittest.TestCase.run, self.ran, unittest.TestResult

        def run_noted(case: Any, result: Any = None) -> Any:
            ran.add((type(case), case._testMethodName))
            return run(case, result)

        unittest.TestCase.run = run_noted  # type: ignore[method-assign]
        for name in ("addError", "addFailure", "addSubTest", "addUnexpectedSuccess"):
            setattr(kind, name, self._noting(getattr(kind, name)))
        unittest.main = lambda *args, **kwargs: types.SimpleNamespace(result=self.run_cases())  # type: ignore[assignment]

    def _noting(self, method: Callable[..., None]) -> Callable[..., None]:
        def noted(result: Any, case: Any, *args: Any) -> None:
            if not args:
                self.failure = self.failure or AssertionError(f"{case} passed, and is expected to fail")
            elif args[-1] is not None:  # of a part that passes, None
                self.failure = self.failure or args[-1][1]
            method(result, case, *args)

        return noted

    def run_cases(self) -> unittest.TestResult:
        """Run the methods of all classes of unittest that have not run."""
        import unittest

        loader, result = unittest.TestLoader(), unittest.TestResult()
        found = [self.namespace.get(name) for name in self.classes]
        cases = [each for each in found if type(each) is type and issubclass(each, unittest.TestCase)]
        loaded: list[Any] = [case for each in cases for case in loader.loadTestsFromTestCase(each)]
        unittest.TestSuite(case for case in loaded if (type(case), case._testMethodName) not in self.ran).run(result)
        if not result.wasSuccessful() and self.failure is None:  # a class that was there before `install`
            self.failure = AssertionError((result.errors + result.failures)[0][1])
        return result


def run(tests: str, namespace: dict[str, Any], *, may_exit: bool) -> None:
    """Run tests. Raises what the first that fails raises, and the exit of tests that end the process.

    `may_exit`: an exit that says that all is well, `sys.exit(0)`, is none; only where no program could be the one that exits.
    """
    tree = ast.parse(tests)
    recorder = Recorder(namespace, collected.defined_classes(tree))
    if collected.imports(tree, "unittest"):
        recorder.install()
    _replace_main_of_pytest(tree)
    try:
        exec(compile(tests, "<tests>", "exec", dont_inherit=True), namespace)
    except SystemExit as end:
        if not may_exit or (end.code not in (None, 0) and recorder.failure is None):
            raise
    _call(namespace.get("setUpModule"))
    if "unittest" in sys.modules:
        recorder.run_cases()
    if recorder.failure is not None:
        raise recorder.failure
    for name in collected.uncalled_tests(tree):
        _run_one(namespace.get(name))


def _replace_main_of_pytest(tree: ast.Module) -> None:
    """Have `pytest.main`, which would look for files, do nothing: its tests are run here."""
    if any(isinstance(node, ast.Attribute) and ast.unparse(node) == "pytest.main" for node in ast.walk(tree)):
        import pytest

        pytest.main = lambda *args, **kwargs: 0  # type: ignore[assignment]


def _run_one(test: Any) -> None:
    """Run a test function, or all tests of a class as pytest does, each on an object of its own."""
    if not isinstance(test, type):
        _call(test)
    elif "unittest" not in sys.modules or not issubclass(test, sys.modules["unittest"].TestCase):
        _call(getattr(test, "setup_class", None))
        for name in [name for name in dir(test) if name.startswith("test")]:
            on = test()
            _call(getattr(on, "setup_method", None), name)
            _call(getattr(on, name))
            _call(getattr(on, "teardown_method", None), name)
        _call(getattr(test, "teardown_class", None))


def _call(function: Any, *optional: Any) -> None:
    """Call a function, if there is one, with as many arguments as it takes; one that is asynchronous until it ends."""
    if function is None:
        return
    import inspect

    result = function(*optional[: len(inspect.signature(function).parameters)])
    if inspect.iscoroutine(result):
        import asyncio

        asyncio.run(result)
