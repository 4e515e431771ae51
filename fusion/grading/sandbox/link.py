"""The judge's connection to the program's process: questions go out, plain values and numbers of objects come back."""

from __future__ import annotations

import builtins
from typing import Any

import crossing  # pyright: ignore[reportMissingImports]
from remote import Remote  # pyright: ignore[reportMissingImports]


class NeedsInside(BaseException):
    """The tests do something that cannot be done from outside the program's process."""


class Broken(BaseException):
    """The program's process has gone or writes noise; tests cannot catch it as an Exception."""


class Link:
    """The connection to the program's process."""

    def __init__(self, channel: Any) -> None:
        """Take the channel; nothing is asked yet."""
        self.channel, self.functions = channel, []
        self.ended: BaseException | None = None
        self.errors: list[BaseException] = []
        self.inside: list[str] = []

    def wait(self) -> Any:
        """Wait until the program is loaded."""
        return self._until_answered({})

    def names(self, names: list[str]) -> dict[str, Any]:
        """Ask for those of the names that the program defines; it cannot bring others, such as `abs`, along."""
        self._tell(["names", *names])
        values = self._until_answered({})
        if not isinstance(values, dict):
            self._end(Broken("wrote something malformed instead of its names"))
        return {name: values[name] for name in names if name in values}

    def request(self, operation: str, *args: Any, **kwargs: Any) -> Any:
        """Have the program's process do something with its objects; changes it makes to the arguments are made here too."""
        arguments = {str(i): value for i, value in enumerate(args)} | kwargs
        self._tell([operation, [[name, self.encode(value)] for name, value in arguments.items()]])
        return self._until_answered(arguments)

    def raised(self, error: BaseException) -> bool:
        """Whether an error is one that the program raised."""
        return any(error is each for each in self.errors)

    def note_inside(self, what: str) -> None:
        """Note something about which the program's own objects had the word."""
        if what not in self.inside:
            self.inside.append(what)

    def need_inside(self, why: str) -> None:
        """Give up, since the tests do something for which they must run in the program's process."""
        self._end(NeedsInside(why))

    def encode(self, value: Any) -> Any:
        """As `crossing.encode`; functions of the tests cross as a number. Raises NeedsInside for other objects."""
        return crossing.encode(value, self._refer)

    def _refer(self, value: Any) -> dict[str, int]:
        if type(value) is Remote:
            return {"object": object.__getattribute__(value, "_number_there")}
        if not callable(value):
            self.need_inside(f"the tests pass an object of type {type(value).__name__}")
        self.functions.append(value)
        return {"function": len(self.functions) - 1}

    def _resolve(self, tag: str, number: Any) -> Any:
        if tag == "object" and type(number) is int:
            return Remote(self, number)
        if tag == "function" and type(number) is int and 0 <= number < len(self.functions):
            return self.functions[number]
        raise crossing.MalformedError(f"unknown value {tag!r}")

    def _end(self, error: BaseException) -> None:
        self.ended = self.ended or error
        raise self.ended

    def _tell(self, message: list[Any]) -> None:
        if self.ended:
            raise self.ended
        try:
            self.channel.send(message)
        except OSError:
            self._end(Broken("ended by itself before the tests were through"))

    def _until_answered(self, arguments: dict[str, Any]) -> Any:
        while True:
            try:
                kind, *content = self.channel.receive()
                if kind == "callback":
                    self._call_back(*content)
                elif kind == "value":
                    return self._value(arguments, *content)
                elif kind == "error":
                    error = self._error(*content)
                    self.errors = [*self.errors[-9:], error]  # a program may raise without end
                    break
                else:
                    raise crossing.MalformedError(f"unknown message {kind!r}")
            except EOFError:
                self._end(Broken("ended by itself before the tests were through"))
            except Exception as error:
                self._end(Broken(f"wrote something malformed instead of an answer: {error}"))
        raise error

    def _error(self, name: str, args: Any, text: str) -> BaseException:
        kind = getattr(builtins, name, None)
        if isinstance(kind, type) and issubclass(kind, Exception):
            return kind(*crossing.decode(args, self._resolve))
        return Broken(text)  # an exit, or the like

    def _value(self, arguments: dict[str, Any], value: Any, changed: Any = ()) -> Any:
        for name, new in changed:
            write_back(arguments[name], crossing.decode(new, self._resolve))
        if isinstance(value, dict) and "argument" in value:
            return arguments[value["argument"]]
        return crossing.decode(value, self._resolve)

    def _call_back(self, number: int, args: Any, kwargs: Any) -> None:
        function = self._resolve("function", number)
        args, kwargs = (crossing.decode(part, self._resolve) for part in (args, kwargs))
        try:
            reply = ["value", self.encode(function(*args, **kwargs))]
        except Exception as error:
            reply = ["error", type(error).__name__, [str(error)], ""]
        self._tell(reply)


def write_back(old: Any, new: Any) -> None:
    """Change a container in place into another of its type, and what it holds where that is of the same type too."""
    if type(old) is not type(new):
        return
    if isinstance(old, list):
        for i, (before, after) in enumerate(zip(old, new, strict=False)):
            if type(before) is type(after) and isinstance(before, list | dict | set):
                write_back(before, after)
                new[i] = before
        old[:] = new
    elif isinstance(old, dict | set):
        old.clear()
        old.update(new)
    elif type(old).__name__ == "ndarray" and old.shape == new.shape:
        old[...] = new
