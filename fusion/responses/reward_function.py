"""A reward function of the user's: read from the Python file that he names, called as TRL calls its own, its faults explained.

It is his own code, named in his own configuration, so it runs in this process, with all that this process may do.
"""

from __future__ import annotations

import functools
import inspect
import math
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from numbers import Real
from pathlib import Path
from types import ModuleType
from typing import Any

from fusion.runtime.artifacts import fingerprint

FIXED = ("prompts", "completions")
"""Arguments that every reward function gets, as in TRL; the others are columns."""
FILES_KEPT = 16
"""Files whose functions stay loaded, each as it was when it was read."""


@dataclass(frozen=True)
class RewardFunction:
    """A function that gives each of several completions a reward, and where it stands."""

    path: Path
    name: str
    function: Callable[..., Any]

    @classmethod
    def load(cls, path: Path, name: str, columns: Sequence[str]) -> RewardFunction:
        """Run the file and take the function from it.

        Raises ValueError, with the way out, where it is not there, does not run, has no such function, or one that cannot be
        called with `columns`.
        """
        if not path.is_file():
            raise ValueError(
                f"{path} is not there, and a check takes {name} from it. Check the path, which counts from where the command "
                "is started."
            )
        try:
            module = _module(path, path.read_bytes())
        except (Exception, SystemExit) as error:
            raise ValueError(
                f"{path} cannot be run, and a check takes {name} from it: {_said(error, path)}. Mend the file."
            ) from error
        function = getattr(module, name, None)
        if not callable(function):
            there = [each for each, value in vars(module).items() if inspect.isfunction(value)]
            raise ValueError(
                f"{path} has no function {name}; {'it has ' + ', '.join(there) if there else 'it has none'}. Set name to one "
                "of the file."
            )
        found = cls(path, name, function)
        found._refuse_other_arguments(columns)
        return found

    def __call__(
        self, prompts: Sequence[Any], completions: Sequence[Any], columns: Mapping[str, Sequence[Any]], prompt: str
    ) -> list[float]:
        """Return the reward of each completion; True counts 1 and False 0.

        `prompt` is what messages show. Raises ValueError where the function raises, or returns anything but a finite number
        for each completion.
        """
        try:
            returned = self.function(prompts=list(prompts), completions=list(completions), **columns)
        except (Exception, SystemExit) as error:
            raise ValueError(
                f"{self.path}: {self.name} raised {_said(error, self.path)}, for the prompt that begins {prompt[:60]!r}. "
                f"{self._form(completions, error)}Mend it and run the command again: what sources wrote is kept. What the file "
                "decided as it was is refused by name."
            ) from error
        return self._rewards(returned, len(completions), f"for the prompt that begins {prompt[:60]!r}")

    def _form(self, completions: Sequence[Any], error: BaseException) -> str:
        """Say in which of TRL's two forms completions came, where the function seems to trip over that."""
        if not completions or not isinstance(error, TypeError | AttributeError | LookupError):
            return ""
        if isinstance(completions[0], str):
            return "It was given texts; if it takes lists of messages, set conversational: true in its check. "
        return "It was given lists of messages; if it takes texts, leave conversational out of its check. "

    def _refuse_other_arguments(self, columns: Sequence[str]) -> None:
        if inspect.iscoroutinefunction(self.function):
            raise ValueError(f"{self.path}: {self.name} is async; make it an ordinary function (def).")
        try:
            inspect.signature(self.function).bind(**dict.fromkeys([*FIXED, *columns]))
        except (TypeError, ValueError) as error:
            called = ", ".join(f"{name}=[...]" for name in [*FIXED, *columns])
            raise ValueError(
                f"{self.path}: {self.name} is called as {self.name}({called}) and cannot be: {error}. Give it these arguments, "
                "or **kwargs; columns of the data are named in the check's columns."
            ) from error

    def _rewards(self, returned: Any, count: int, where: str) -> list[float]:
        values = returned.tolist() if hasattr(returned, "tolist") else returned  # of NumPy or torch
        if not isinstance(values, list | tuple) or len(values) != count:
            what = f"{len(values)} values" if isinstance(values, list | tuple) else f"a {type(returned).__name__}"
            raise ValueError(
                f"{self.path}: {self.name} returned {what} {where}; it must return a list with a number, True or False for "
                f"each of the {count} completions."
            )
        values = [value.item() if hasattr(value, "item") else value for value in values]
        for number, value in enumerate(values, 1):
            if not isinstance(value, Real) or not math.isfinite(value):
                raise ValueError(
                    f"{self.path}: {self.name} returned {value!r:.60} for completion {number} of {count} {where}; a reward is "
                    "a finite number, True or False."
                )
        return [float(value) for value in values]


@functools.lru_cache(maxsize=FILES_KEPT)
def _module(path: Path, source: bytes) -> ModuleType:
    """Run the source of a file once, without writing bytecode beside it."""
    module = ModuleType(f"{path.stem}_{fingerprint({'path': str(path), 'source': source.hex()})}")
    module.__file__ = str(path)
    code = compile(source, str(path), "exec")
    sys.modules[module.__name__] = module  # where dataclasses and pickle look for it
    beside = str(path.parent.absolute())
    sys.path.insert(0, beside)  # as for a script: what lies beside it can be imported
    try:
        exec(code, vars(module))
    except BaseException:
        del sys.modules[module.__name__]
        raise
    finally:
        with suppress(ValueError):  # the file may have taken it away itself
            sys.path.remove(beside)
    return module


def _said(error: BaseException, path: Path) -> str:
    """An error of the user's code as a message names it, with the last line of his file that it came through."""
    if isinstance(error, SyntaxError):
        return f"{type(error).__name__}: {error.msg} (line {error.lineno})"
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
    where = f" (line {lines[-1]})" if lines else ""
    return f"{type(error).__name__}: {error}{where}" if str(error) else f"{type(error).__name__}{where}"
