"""What stands in the tests for an object of the program that cannot cross.

Whether a value is right is found here, never by the object itself: one that claims to equal everything equals no plain
value. Where two objects of the program are compared, only they can tell, and that is noted.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


class Remote:
    """Stands for an object of the program that cannot cross: a function, class, instance or generator."""

    __slots__ = ("_link_to_program", "_number_there")

    def __init__(self, link: Any, number: int) -> None:
        """Take the connection and the object's number there."""
        object.__setattr__(self, "_link_to_program", link)
        object.__setattr__(self, "_number_there", number)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Have the program call its object; lists, dicts and sets that this changes change here too."""
        return self._link_to_program.request("call", self, *args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        if name in (
            "__array_struct__",
            "__array_interface__",
        ):  # addresses in memory; numpy then asks for values, `__array__`
            raise AttributeError(name)
        return self._link_to_program.request("getattr", self, name)

    def __hash__(self) -> int:
        return hash(("object of the program", self._number_there))

    def __contains__(self, item: Any) -> bool:
        try:
            items = self._link_to_program.request("iter", self)
        except TypeError:
            self._link_to_program.note_inside("whether an object of the program contains a value")
            return bool(self._link_to_program.request("contains", self, item))
        return any(item == other for other in items)

    def __bool__(self) -> bool:
        self._link_to_program.note_inside("whether an object of the program is true")
        return bool(self._link_to_program.request("bool", self))

    def __instancecheck__(self, instance: Any) -> bool:
        if type(instance) is not Remote:
            return False
        self._link_to_program.note_inside("whether an object is of a class of the program")
        return bool(self._link_to_program.request("isinstance", instance, self))

    def __mro_entries__(self, bases: Any) -> Any:
        self._link_to_program.need_inside("the tests derive a class from one of the program")


def _forwarded(operation: str) -> Callable[..., Any]:
    def method(self: Remote, *args: Any) -> Any:
        return self._link_to_program.request(operation, self, *args)

    return method


def _compared(operation: str) -> Callable[..., Any]:
    def compare(self: Remote, other: Any) -> Any:
        if type(other) is not Remote:
            return NotImplemented  # the object's own word is not asked for
        if operation in ("eq", "ne") and self._number_there == other._number_there:
            return operation == "eq"
        self._link_to_program.note_inside("how two objects of the program compare")
        return self._link_to_program.request(operation, self, other)

    return compare


_FORWARDED = (
    "setattr", "delattr", "iter", "next", "len", "str", "repr", "int", "float", "getitem", "setitem", "delitem",
)  # fmt: skip
for _name in _FORWARDED:
    setattr(Remote, f"__{_name}__", _forwarded(_name))

for _name in ("eq", "ne", "lt", "le", "gt", "ge"):
    setattr(Remote, f"__{_name}__", _compared(_name))
