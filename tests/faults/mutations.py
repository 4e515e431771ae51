"""Ways to spoil an input: values of a tree (YAML, JSON), lines of a text, bytes of a file. Each says what it did and where."""

from __future__ import annotations

import copy
import random
import re
from collections.abc import Callable, Iterator
from typing import Any

Path_ = tuple[str | int, ...]

VALUES: dict[str, Any] = {
    "null": None,
    "negative": -1,
    "zero": 0,
    "huge": 10**30,
    "NaN": float("nan"),
    "inf": float("inf"),
    "a list": [],
    "a group": {},
    "nested": {"a": [{"b": None}]},
    "a list of lists": [[1], [None]],
    "true": True,
    '"3"': "3",
    "empty text": "",
    "a word": "nope",
    "control characters": "a\x00\x1b[31m\n",
    "a lone surrogate": "\ud800",
    "a long text": "x" * 5000,
}
"""What a value is replaced with."""


def places(tree: Any, place: Path_ = ()) -> Iterator[Path_]:
    """Every place of a tree below its root."""
    inside = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, value in inside:
        yield (*place, key)
        yield from places(value, (*place, key))


def at(tree: Any, place: Path_) -> Any:
    """The value at a place."""
    for key in place:
        tree = tree[key]
    return tree


def spoil_tree(tree: Any, rng: random.Random) -> tuple[Any, Path_, str]:
    """A copy with one thing wrong, the place, and what was done there."""
    tree = copy.deepcopy(tree)
    place = rng.choice(list(places(tree)))
    parent, key = at(tree, place[:-1]), place[-1]
    what = rng.choice(["delete", "misspell", "twice", *VALUES, *VALUES])
    if what == "misspell" and isinstance(key, str) and key:
        letter = rng.randrange(len(key))
        parent[key[:letter] + key[letter] + key[letter:]] = parent.pop(key)
    elif what == "twice" and isinstance(parent, list):
        parent.append(copy.deepcopy(parent[key]))
    elif what in VALUES:
        parent[key] = copy.deepcopy(VALUES[what])
    else:
        what = "delete"
        del parent[key]
    return tree, place, what


def keys_of(place: Path_) -> tuple[str, ...]:
    """What a sentence about a place may call it: its key, or the last key above an entry of a list."""
    names = [str(key) for key in place if isinstance(key, str)]
    return tuple(name.rpartition(".")[2] for name in names[-1:])


def shown(what: str) -> tuple[str, ...]:
    """How a sentence shows the value that was put in."""
    forms = {
        "control characters": ("\\x1b", "\\x00"),
        "a lone surrogate": ("\\ud800",),
        "a long text": ("x" * 30,),
        "a word": ("nope",),
        "huge": ("0" * 20,),
    }
    return forms.get(what, ())


def words_of(text: str, line: int) -> tuple[str, ...]:
    """Words of a line that a sentence may show in place of its number."""
    lines = text.split("\n")
    return tuple(re.findall(r"\w{5,}", lines[line - 1])) if 0 < line <= len(lines) else ()


def spoil_text(text: str, rng: random.Random) -> tuple[bytes, int, str]:
    """A text with one line wrong, its number from 1 (0 for the whole file), and what was done."""
    lines = text.encode().split(b"\n")
    number = rng.randrange(len(lines))
    what = rng.choice(list(LINES))
    if what == "cut the file":
        whole = text.encode()
        end = rng.randrange(1, len(whole))
        return whole[:end], whole[:end].count(b"\n") + 1, what
    lines[number] = LINES[what](lines[number], rng)
    return b"\n".join(lines), number + 1, what


def _flip(line: bytes, rng: random.Random) -> bytes:
    place = rng.randrange(max(1, len(line)))
    return line[:place] + bytes([line[place] ^ (1 << rng.randrange(8))]) + line[place + 1 :] if line else b"\xff"


LINES: dict[str, Callable[[bytes, random.Random], bytes]] = {
    "cut the file": lambda line, rng: line,
    "cut the line": lambda line, rng: line[: rng.randrange(max(1, len(line)))],
    "single quotes": lambda line, rng: line.replace(b'"', b"'"),
    "a quote less": lambda line, rng: line.replace(b'"', b"", 1),
    "flip a bit": _flip,
    "not UTF-8": lambda line, rng: line + b"\xe9\xff",
    "a NUL": lambda line, rng: line[: len(line) // 2] + b"\x00" + line[len(line) // 2 :],
    "a trailing comma": lambda line, rng: line[:-1] + b"," + line[-1:],
    "two in one line": lambda line, rng: line + line,
    "a tab before": lambda line, rng: b"\t" + line,
    "another type": lambda line, rng: rng.choice([b"[]", b"3", b"null", b'"text"', b"{}", b"[1, 2]", b"true"]),
    "deeply nested": lambda line, rng: b"[" * 20_000,
}  # fmt: skip
"""What is done to a line."""


def spoil_bytes(content: bytes, rng: random.Random, header: int) -> tuple[bytes, str]:
    """A binary file with something wrong, most often among its first `header` bytes, and what was done."""
    place = rng.randrange(min(len(content), header if rng.random() < 0.8 else len(content)))
    what = rng.choice(["flip a bit", "cut", "zeros", "0xff", "insert", "remove"])
    head, tail = content[:place], content[place:]
    changed = {
        "flip a bit": head + bytes([tail[0] ^ (1 << rng.randrange(8))]) + tail[1:],
        "cut": head,
        "zeros": head + bytes(8) + tail[8:],
        "0xff": head + b"\xff" * 8 + tail[8:],
        "insert": head + b"\x00" * rng.randrange(1, 9) + tail,
        "remove": head + tail[rng.randrange(1, 9) :],
    }
    return changed[what], f"{what} at byte {place}"
