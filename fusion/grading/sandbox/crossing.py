"""Plain values as JSON, so that two processes that do not trust each other can pass them: nothing read is ever executed.

None, bool, int, float and str stand for themselves and lists for lists; whatever else can cross is an object with one
key, its type. A value of a subclass crosses as the plain type below it, a number of numpy as Python's, an array of numpy as its
bytes. All other objects stay where they are, and a
number crosses in their place.
"""

from __future__ import annotations

import collections
import datetime
import decimal
import fractions
import json
import numbers
import os
import re
import sys
from collections.abc import Callable
from typing import Any

MESSAGE_BYTES = 2**25
PLAIN_TYPES = {
    kind.__name__: kind for kind in (bool, int, float, complex, str, bytes, list, tuple, dict, set, frozenset)
}


class MalformedError(Exception):
    """The other side wrote something that is no message."""


_FROM_TAG: dict[str, Callable[[Any], Any]] = {
    "int": lambda digits: int(digits, 16),
    "complex": lambda parts: complex(*map(float, parts)),
    "bytes": bytes.fromhex,
    "bytearray": bytearray.fromhex,
    "range": lambda ends: range(*ends),
    "Decimal": lambda text: decimal.Decimal(str(text)),
    "datetime": datetime.datetime.fromisoformat,
    "date": datetime.date.fromisoformat,
    "time": datetime.time.fromisoformat,
    "timedelta": lambda parts: datetime.timedelta(*parts),
    "builtin": PLAIN_TYPES.__getitem__,
    "ndarray": lambda content: _array(*content),
}
ARRAY_TYPE = re.compile(r"[<>|=][biufcUSmM]\d+(\[\w+\])?")
"""Types of elements, as numpy writes them, that are nothing but their bytes."""
_CONTAINERS = {kind.__name__: kind for kind in (tuple, set, frozenset, collections.deque)}
_OF_ITEMS = {**_CONTAINERS, "Fraction": lambda parts: fractions.Fraction(*parts)}


def encode(value: Any, refer: Callable[[Any], Any]) -> Any:
    """Turn a value into what JSON can hold; `refer` does so for objects that cannot cross, or raises."""
    if value is None or isinstance(value, bool | str):
        return value if value is None or isinstance(value, bool) else str.__str__(value)
    if isinstance(value, numbers.Number):
        return _encode_number(value, refer)
    if isinstance(value, list):
        return [encode(item, refer) for item in list.__iter__(value)]
    if isinstance(value, dict):
        return {"dict": [[encode(key, refer), encode(item, refer)] for key, item in value.items()]}
    for tag, kind in _CONTAINERS.items():
        if isinstance(value, kind):
            return {tag: [encode(item, refer) for item in value]}
    return _encode_other(value, refer)


def _encode_number(value: Any, refer: Callable[[Any], Any]) -> Any:
    if isinstance(value, numbers.Integral):
        number = int(value)
        return number if abs(number) < 2**63 else {"int": hex(number)}
    if isinstance(value, fractions.Fraction):
        return {"Fraction": [encode(int(value.numerator), refer), encode(int(value.denominator), refer)]}
    if isinstance(value, decimal.Decimal):
        return {"Decimal": str(value)}
    if isinstance(value, numbers.Real):
        return float(value)
    if isinstance(value, numbers.Complex):
        number = complex(value)
        return {"complex": [number.real, number.imag]}
    return refer(value)


def _encode_other(value: Any, refer: Callable[[Any], Any]) -> Any:
    if (numpy := sys.modules.get("numpy")) and isinstance(value, numpy.bool_):
        return bool(value)
    if numpy and type(value) is numpy.ndarray and ARRAY_TYPE.fullmatch(value.dtype.str):
        return {"ndarray": [value.dtype.str, list(value.shape), value.tobytes().hex()]}
    if isinstance(value, bytes | bytearray):
        return {"bytearray" if isinstance(value, bytearray) else "bytes": value.hex()}
    if isinstance(value, range):
        return {"range": [value.start, value.stop, value.step]}
    if isinstance(value, datetime.datetime):
        return {"datetime": value.isoformat()}
    if isinstance(value, datetime.date | datetime.time):
        return {"date" if isinstance(value, datetime.date) else "time": value.isoformat()}
    if isinstance(value, datetime.timedelta):
        return {"timedelta": [value.days, value.seconds, value.microseconds]}
    if isinstance(value, type) and PLAIN_TYPES.get(value.__name__) is value:
        return {"builtin": value.__name__}
    return refer(value)


def _array(kind: str, shape: list[int], digits: str) -> Any:
    """Make an array of numpy from its bytes."""
    if not ARRAY_TYPE.fullmatch(kind) or any(type(size) is not int or size < 0 for size in shape):
        raise MalformedError(f"an array of type {kind!r} and shape {shape!r}")
    import numpy  # only where there is an array

    return numpy.ndarray(shape, kind, bytearray.fromhex(digits))


def decode(data: Any, resolve: Callable[[str, Any], Any]) -> Any:
    """Make the value again; `resolve` finds the object that a tag and a number stand for.

    Raises MalformedError for data that `encode` does not write.
    """
    try:
        return _decode(data, resolve)
    except MalformedError:
        raise
    except Exception as error:  # whatever a constructor says of a value it was not made for
        raise MalformedError(f"{type(error).__name__}: {error}") from None


def _decode(data: Any, resolve: Callable[[str, Any], Any]) -> Any:
    if data is None or isinstance(data, bool | int | float | str):
        return data
    if isinstance(data, list):
        return [_decode(item, resolve) for item in data]
    ((tag, content),) = data.items()
    if tag == "dict":
        return {_decode(key, resolve): _decode(item, resolve) for key, item in content}
    if tag in _OF_ITEMS:
        return _OF_ITEMS[tag]([_decode(item, resolve) for item in content])
    return _FROM_TAG[tag](content) if tag in _FROM_TAG else resolve(tag, content)


class Channel:
    """Messages over two pipes: four bytes of length, then a JSON list."""

    def __init__(self, read_from: int, write_to: int) -> None:
        """Take the two descriptors."""
        # bound here: what a program replaces in these modules later is not called
        self._read, self._write, self._dumps, self._loads = os.read, os.write, json.dumps, json.loads
        self._read_from, self._write_to = read_from, write_to

    def send(self, message: list[Any]) -> None:
        """Write a message. Raises OSError where nobody reads, ValueError for one that is too long."""
        data = self._dumps(message).encode()
        if len(data) > MESSAGE_BYTES:
            raise ValueError(f"a value of {len(data)} bytes is too large to cross; at most {MESSAGE_BYTES} may")
        rest = memoryview(len(data).to_bytes(4, "big") + data)
        while rest:
            rest = rest[self._write(self._write_to, rest) :]

    def receive(self) -> list[Any]:
        """Read a message. Raises EOFError at the end, MalformedError for anything else than a message."""
        length = int.from_bytes(self._exactly(4), "big")
        if length > MESSAGE_BYTES:
            raise MalformedError(f"a message of {length} bytes")
        try:
            message = self._loads(self._exactly(length))
        except (ValueError, RecursionError) as error:
            raise MalformedError(str(error)) from None
        if not isinstance(message, list) or not message or not isinstance(message[0], str):
            raise MalformedError("no list that begins with a word")
        return message

    def _exactly(self, size: int) -> bytes:
        parts = []
        while size:
            part = self._read(self._read_from, min(size, 2**20))
            if not part:
                raise EOFError
            parts.append(part)
            size -= len(part)
        return b"".join(parts)
