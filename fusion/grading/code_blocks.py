"""Blocks of code in a text, and whether they are Python. Texts are compiled here, and never run."""

from __future__ import annotations

import ast
import json
import re
import textwrap
import warnings
from collections.abc import Iterator

FENCE = re.compile(r"^[ \t]*(?:[-*>]\s+|\d+[.)]\s+)?(?P<fence>`{3,}|~{3,})[ \t]*(?P<tag>[^\n`]*)$", flags=re.MULTILINE)
OTHER_LANGUAGES = frozenset(
    "output text plaintext txt bash sh shell console json java javascript js cpp c c++".split()  # noqa: SIM905
)
LONGEST = 400
"""Lines of an answer that are looked at; more would take too long."""
MOST_FENCES = 40
"""Fences that are tried as the end of one block."""


def code_blocks(text: str) -> list[str]:
    """Contents of all fenced blocks of Python or of no language, without their indentation; one that is never closed counts."""
    return [body for tag, body in _fenced(text) if tag not in OTHER_LANGUAGES]


def _fenced(text: str) -> Iterator[tuple[str, str]]:
    """Yield the language, in small letters, and the contents of each fenced block."""
    place = 0
    while opening := FENCE.search(text, place):
        tag = re.match(r"[{.]*([\w+#-]*)", opening["tag"].strip().lower())
        language = tag[1] if tag else ""
        body, place = _body(text, opening, is_code=language not in OTHER_LANGUAGES)
        yield language, body
        if place == len(text):
            return


def _body(text: str, opening: re.Match[str], *, is_code: bool) -> tuple[str, int]:
    """The contents of a block and where it ends: at a fence that begins a line, the last before which all is a program.

    A program may hold such lines itself, in a docstring. A fence inside a line ends a block where none else makes it one.
    """
    fence, start = re.escape(opening["fence"]) + r"[`~]*", opening.end()
    at_lines = list(re.compile(rf"^[ \t>]*{fence}[ \t]*$", flags=re.MULTILINE).finditer(text, start))[:MOST_FENCES]
    anywhere = list(re.compile(fence).finditer(text, start))[:MOST_FENCES]
    bodies = [(_clean(text[start : end.start()]), end.end()) for end in [*reversed(at_lines), *anywhere]]
    if not bodies:
        return _clean(text[start:]), len(text)
    first = bodies[max(0, len(at_lines) - 1)]
    return next((each for each in bodies if is_code and parse(each[0])), first)


def _clean(body: str) -> str:
    """A program without what a block adds to it: empty lines, indentation, the prompts of a session."""
    return _session(textwrap.dedent(body.strip("\r\n"))) + "\n"


def out_of_json(text: str) -> str:
    """The program that a JSON object holds, `{"code": "def f(): ..."}`; any other text as it is."""
    match = re.search(r"{.*}", text, flags=re.DOTALL)
    try:
        found = json.loads(match[0]) if match else None
    except (ValueError, RecursionError):
        return text
    strings = [value for value in found.values() if isinstance(value, str)] if isinstance(found, dict) else []
    return max((value for value in strings if "def " in value and parse(value)), key=len, default=text)


def _session(code: str) -> str:
    """The lines that were typed in a session of Python, `>>> x = 1`, without their prompts and outputs."""
    if not re.match(r"\s*>>> ", code):
        return code
    return "\n".join(line[4:] for line in code.splitlines() if line.startswith((">>> ", "... ")))


def future_first(program: str) -> str:
    """Move `from __future__` imports to the top, where alone Python allows them."""
    lines = re.findall(r"^from __future__ import [\w, ]+$", program, flags=re.MULTILINE)
    if not lines:
        return program
    return "\n".join(
        [*dict.fromkeys(lines), re.sub(r"^from __future__ import [\w, ]+$", "", program, flags=re.MULTILINE)]
    )


def parse(code: str) -> ast.Module | None:
    """The syntax tree of a program, None where it is none (`return` outside a function is none)."""
    if _mistake(code) is not None:
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return ast.parse(code)


def longest_prefix(before: str, text: str) -> str:
    """The longest beginning of `text`, in whole lines, that is Python behind `before`; empty where no line is."""
    lines, offset = text.splitlines(keepends=True)[:LONGEST], before.count("\n")
    end = len(lines)
    while end > 0:
        mistake = _mistake(before + "".join(lines[:end]))
        if mistake is None:
            return "".join(lines[:end])
        end = min(end - 1, max(0, mistake - 1 - offset))  # no longer beginning is without this mistake
    return ""


def _mistake(code: str) -> int | None:
    """The line of the first mistake of Python's grammar in a text; None where there is none, 1 where it has no line."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            compile(code, "<answer>", "exec", dont_inherit=True)
    except SyntaxError as error:
        return error.lineno or 1
    except (ValueError, RecursionError, MemoryError, OverflowError):
        return 1
    return None
