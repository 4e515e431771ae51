"""The type checker of the tests: beartype, whose checks of a function inside another one are written once.

Such a function is made anew by each call of the one around it. jaxtyping then has a check written for a stub with its
signature, which takes longer than most calls; equal stubs have equal checks.
"""

from collections.abc import Callable
from typing import Any

from beartype import beartype

_written: dict[tuple[Any, ...], Callable[..., Any]] = {}


def checked(stub: Callable[..., Any]) -> Callable[..., Any]:
    """Return a stub of jaxtyping's with the checks that its annotations ask for."""
    if "<locals>" not in stub.__qualname__:
        return beartype(stub)
    key = (stub.__module__, stub.__qualname__, stub.__code__.co_varnames, *stub.__annotations__.items())
    if key not in _written:
        _written[key] = beartype(stub)
    return _written[key]
