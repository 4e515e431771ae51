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


def code_blocks(text: str) -> list[str]:
    """Contents of all fenced blocks of Python or of no language, without their indentation; one that is never closed counts."""
    return [body for tag, body in _fenced(text) if tag not in OTHER_LANGUAGES]


def _fenced(text: str) -> Iterator[tuple[str, str]]:
    """Yield the language, in small letters, and the contents of each fenced block."""
    place = 0
    while opening := FENCE.search(text, place):
        end = re.compile(re.escape(opening["fence"]) + "[`~]*").search(text, opening.end())
        tag = re.match(r"[{.]*([\w+#-]*)", opening["tag"].strip().lower())
        body = text[opening.end() : end.start() if end else len(text)].strip("\r\n")
        yield (tag[1] if tag else ""), _session(textwrap.dedent(body)) + "\n"
        if end is None:
            return
        place = end.end()


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
