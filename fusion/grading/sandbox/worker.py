"""The judged side: runs the program, then does what the judge asks of it, object by object."""

from __future__ import annotations

import builtins
import contextlib
import operator
import os
from collections.abc import Callable, Sequence
from typing import Any

import crossing  # pyright: ignore[reportMissingImports]

OPERATIONS: dict[str, Callable[..., Any]] = {
    "call": lambda function, *args, **kwargs: function(*args, **kwargs),
    "getattr": getattr, "setattr": setattr, "delattr": delattr, "iter": iter, "next": next, "len": len, "bool": bool,
    "str": str, "repr": repr, "int": int, "float": float, "isinstance": isinstance, "getitem": operator.getitem,
    "setitem": operator.setitem, "delitem": operator.delitem, "contains": operator.contains, "eq": operator.eq,
    "ne": operator.ne, "lt": operator.lt, "le": operator.le, "gt": operator.gt, "ge": operator.ge,
}  # fmt: skip


class Worker:
    """Serves one program; keeps the objects that the judge knows by number."""

    def __init__(self, channel: Any) -> None:
        """Take the channel to the judge."""
        self.channel, self.names, self.objects, self.numbers = channel, {}, [], {}

    def serve(self, *programs: str) -> None:
        """Run programs after each other and answer until the judge has gone."""
        with open(os.devnull, "w") as null, contextlib.redirect_stdout(null), contextlib.redirect_stderr(null):  # noqa: PTH123
            self.answer(lambda: self._load(programs))
            while True:
                try:
                    operation, *content = self.channel.receive()
                except EOFError:
                    return
                self.answer(lambda: self._do(operation, *content))  # noqa: B023

    def answer(self, act: Callable[[], list[Any]]) -> None:
        """Send what an act returns, or what it raises."""
        try:
            self.channel.send(act())
        except BaseException as error:  # also that the answer is too large
            self.channel.send(_as_message(error))

    def _load(self, programs: Sequence[str]) -> list[Any]:
        self.names = {"__name__": "__main__", "__builtins__": builtins}
        for program in programs:  # each with `from __future__` at its own top
            exec(compile(program, "<answer>", "exec", dont_inherit=True), self.names)
        return ["value", None]

    def _do(self, operation: str, *content: Any) -> list[Any]:
        if operation == "names":
            return [
                "value",
                {"dict": [[name, self.encode(self.names[name])] for name in content if name in self.names]},
            ]
        arguments = {name: self.decode(data) for name, data in content[0]}
        args = [value for name, value in arguments.items() if name.isdigit()]
        result = OPERATIONS[operation](*args, **{k: value for k, value in arguments.items() if not k.isdigit()})
        after = [[name, self.encode(value)] for name, value in arguments.items()]
        changed = [new for old, new in zip(content[0], after, strict=True) if old != new]
        same = [name for name, value in arguments.items() if value is result and isinstance(value, list | dict | set)]
        return ["value", {"argument": same[0]} if same else self.encode(result), changed]

    def encode(self, value: Any) -> Any:
        """As `crossing.encode`; what cannot cross is kept here under a number."""
        return crossing.encode(value, self._refer)

    def decode(self, data: Any) -> Any:
        """As `crossing.decode`, with the objects kept here and the judge's functions."""
        return crossing.decode(data, self._resolve)

    def _refer(self, value: Any) -> dict[str, int]:
        if isinstance(value, Callback):
            return {"function": value.number}
        if id(value) not in self.numbers:
            self.numbers[id(value)] = len(self.objects)
            self.objects.append(value)
        return {"object": self.numbers[id(value)]}

    def _resolve(self, tag: str, number: int) -> Any:
        return self.objects[number] if tag == "object" else Callback(self, number)


class Callback:
    """A function of the tests; a call of it is made over there."""

    def __init__(self, worker: Worker, number: int) -> None:
        """Take who can ask, and for which."""
        self.worker, self.number = worker, number

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Ask the judge for the result."""
        worker = self.worker
        worker.channel.send(["callback", self.number, worker.encode(list(args)), worker.encode(kwargs)])
        while (reply := worker.channel.receive())[0] not in ("value", "error"):
            operation, *content = reply  # the function called the program again
            worker.answer(lambda: worker._do(operation, *content))  # noqa: B023
        if reply[0] == "error":
            raise getattr(builtins, reply[1], Exception)(*self.worker.decode(reply[2]))
        return worker.decode(reply[1])


def _as_message(error: BaseException) -> list[Any]:
    """The nearest of Python's own exceptions, so that the tests can catch it, its arguments, and the text to be shown."""
    name = next(kind.__name__ for kind in type(error).__mro__ if kind.__module__ == "builtins")
    text = f"{type(error).__name__}: {error}"[:400]
    try:
        args = crossing.encode(list(error.args), _refuse) if type(error).__name__ == name else [text]
    except Exception:
        args = [text]
    return ["error", name, args, text]


def _refuse(value: Any) -> Any:
    raise TypeError(f"{type(value).__name__} cannot cross")
