"""The type checker of the tests: beartype, with shapes where a signature has any, and without what costs more than it tells.

jaxtyping binds the arguments of each call, and has two stubs with the signature checked by the type checker. Where no
annotation is an array, beartype checks the function itself, to the same effect and several times faster. A function inside
another one is made anew by each call of that one; equal stubs have equal checks, which are written once.
"""

import functools
from collections.abc import Callable
from types import FunctionType
from typing import Any, get_args, get_type_hints

import jaxtyping
from beartype import beartype

Function = Callable[..., Any]

_with_shapes = jaxtyping.jaxtyped
_written: dict[tuple[Any, ...], Function] = {}


def checked(stub: Function) -> Function:
    """Return a stub of jaxtyping's with the checks that its annotations ask for."""
    if "<locals>" not in stub.__qualname__:
        return beartype(stub)
    key = (stub.__module__, stub.__qualname__, stub.__code__.co_varnames, *stub.__annotations__.items())
    if key not in _written:
        _written[key] = beartype(stub)
    return _written[key]


def jaxtyped(*what: Any, **how: Any) -> Any:
    """In the place of jaxtyping's: the same, but for functions of modules and classes that take and return no arrays."""
    return _with_shapes(*what, **how) if what else functools.partial(_checked_alone_or_with_shapes, how)


def _checked_alone_or_with_shapes(how: dict[str, Any], what: Any) -> Any:
    return beartype(what) if _has_no_arrays(what) else _with_shapes(what, **how)


def _has_no_arrays(what: Any) -> bool:
    if not isinstance(what, FunctionType) or "<locals>" in what.__qualname__:
        return False
    try:
        hints = get_type_hints(what, include_extras=True)
    except (NameError, AttributeError, TypeError):  # what is not defined yet, or for type checkers alone
        return False
    return not any(map(_mentions_array, hints.values()))


def _mentions_array(hint: Any) -> bool:
    if isinstance(hint, type) and issubclass(hint, jaxtyping.AbstractArray):
        return True
    parts = get_args(hint)
    return any(_mentions_array(part) for each in parts for part in (each if isinstance(each, list) else [each]))


jaxtyping.jaxtyped = jaxtyped
