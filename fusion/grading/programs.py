"""The program in an answer: its blocks of code or, where it has none, the longest part that is Python.

Texts are compiled here to see whether they are Python, and never run.
"""

from __future__ import annotations

import ast
import builtins
import re
import textwrap
import warnings
from collections.abc import Collection, Iterator, Sequence

from fusion.grading.statements import without_thoughts

FENCE = re.compile(r"^[ \t]*(?:[-*>]\s+|\d+[.)]\s+)?(?P<fence>`{3,}|~{3,})[ \t]*(?P<tag>[^\n`]*)$", flags=re.MULTILINE)
OTHER_LANGUAGES = {
    "output",
    "text",
    "plaintext",
    "txt",
    "bash",
    "sh",
    "shell",
    "console",
    "json",
    "java",
    "javascript",
    "js",
    "cpp",
    "c",
    "c++",
    "pycon",
}
STARTS = re.compile(
    r"\s*(?:from\s+[\w.]+\s+import\b|import\s+\w|(?:async\s+)?def\s+\w|class\s+\w|@\w|[A-Za-z_]\w*\s*(?::[^=]+)?=[^=])"
)
Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
LONGEST = 400
"""Lines of an answer among which parts that parse are looked for; more would take too long."""


def extract_code(text: str, names: Collection[str] = ()) -> str:
    """Extract the program of an answer: the block, or the longest part that parses, that defines most of `names`.

    The last of equals counts. Definitions of earlier blocks that it uses come before it; what only tries the program out
    (prints, assertions, a main block) is left out where `names` are known. A text without anything that parses is returned as
    it stands: its last block, or all of it.
    """
    text = without_thoughts(text)
    blocks = [block for block in code_blocks(text) if block.strip()]
    parts = [part for block in blocks or [text] if (part := _longest_part(block, names))]
    if not parts:
        return blocks[-1] if blocks else text
    best = max(range(len(parts)), key=lambda i: (_defined(parts[i], names), bool(_definitions(parts[i])), i))
    helpers = [helper for part in parts[:best] for helper in _missing_helpers(part, parts[best])]
    program = _without_trials(parts[best], names) if names else parts[best]
    return future_first("\n\n".join([*helpers, program]))


def complete_function(text: str, prompt: str, name: str) -> str:
    """Make a program of an answer to "complete this code": prompt and answer, or the answer where it defines `name` itself.

    A body may have lost its indentation, wholly or in its first line; what follows it and is no Python is cut off.
    """
    text = without_thoughts(text)
    code = extract_code(text, [name])
    if _defined(code, [name]):
        return future_first(
            f"{prompt}\n    pass\n\n{code}"
        )  # the prompt brings imports and helpers; the later definition holds
    bodies = [body for block in code_blocks(text) or [text] for body in _bodies(block)]
    programs = [longest_prefix(prompt, body) for body in bodies]
    longest = max(programs, key=len, default="")
    body = longest if longest.strip() else code
    return future_first(_without_trials(prompt + body, [name]) if longest.strip() else prompt + body)


def tested_names(tests: str) -> list[str]:
    """Names that tests call or read and neither define themselves nor have from Python: what a program must define."""
    tree = parse(tests)
    if tree is None:
        return []
    bound = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    bound |= {node.name for node in ast.walk(tree) if isinstance(node, Definition)}
    bound |= {
        arg.arg for node in ast.walk(tree) if isinstance(node, ast.arguments) for arg in [*node.args, *node.kwonlyargs]
    }
    bound |= {
        alias.asname or alias.name.split(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
    }
    read = [node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)]
    return [name for name in dict.fromkeys(read) if name not in bound and name not in dir(builtins)]


def code_blocks(text: str) -> list[str]:
    """Contents of all fenced blocks of Python or of no language, without their indentation; one that is never closed counts."""
    return [body for tag, body in _fenced(text) if tag not in OTHER_LANGUAGES]


def _fenced(text: str) -> Iterator[tuple[str, str]]:
    """Yield the language, in small letters, and the contents of each fenced block."""
    place = 0
    while opening := FENCE.search(text, place):
        closing = re.compile(
            rf"^[ \t]*{re.escape(opening['fence'])}[`~]*[ \t]*$|{re.escape(opening['fence'])}", flags=re.MULTILINE
        )
        end = closing.search(text, opening.end())
        tag = re.match(r"[{.]*([\w+#-]*)", opening["tag"].strip().lower())
        body = text[opening.end() : end.start() if end else len(text)].strip("\r\n")
        yield (
            (tag[1] if tag else ""),
            _session(textwrap.dedent(body.expandtabs(4) if "\t" in body and "    " in body else body)) + "\n",
        )
        if end is None:
            return
        place = end.end()


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
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            compile(code, "<answer>", "exec", dont_inherit=True)
            return ast.parse(code)
    except (SyntaxError, ValueError, RecursionError, MemoryError, OverflowError):
        return None


def longest_prefix(before: str, text: str) -> str:
    """The longest beginning of `text`, in whole lines, that is Python behind `before`; empty where no line is."""
    lines = text.splitlines(keepends=True)[:LONGEST]
    return next((prefix for end in range(len(lines), 0, -1) if parse(before + (prefix := "".join(lines[:end])))), "")


def _longest_part(text: str, names: Collection[str]) -> str:
    """The longest run of lines that parses, from a line that begins code on; of those that define `names`, if there are."""
    if parse(text):
        return text
    lines = text.splitlines(keepends=True)[:LONGEST]
    starts = [i for i, line in enumerate(lines) if STARTS.match(line) and (i == 0 or not _within(lines, i))]
    parts = [longest_prefix("", textwrap.dedent("".join(lines[start:]))) for start in starts]
    return max(parts, key=lambda part: (_defined(part, names), bool(_definitions(part)), len(part)), default="")


def _within(lines: Sequence[str], i: int) -> bool:
    """Whether line `i` goes on with code that began above it, so that no part needs to begin there."""
    return (
        bool(STARTS.match(lines[i - 1]))
        and not lines[i - 1].rstrip().endswith(":")
        and not lines[i].startswith(("def ", "class ", "async "))
    )


def _bodies(text: str) -> list[str]:
    """A function's body as an answer may give it: as it is, with the first line or all lines moved in, after its words."""
    lines = text.splitlines(keepends=True)
    inner = [i for i, line in enumerate(lines) if line.startswith((" ", "\t"))]
    later = "".join(lines[inner[0] :]) if inner else ""
    moved = textwrap.indent(textwrap.dedent(text), "    ")
    return [text, "    " + text, moved, later, textwrap.indent(textwrap.dedent(later), "    ")]


def _definitions(code: str) -> list[Definition]:
    tree = parse(code)
    return [node for node in tree.body if isinstance(node, Definition)] if tree else []


def _bound(code: str) -> set[str]:
    """Names that a program binds at its top level."""
    tree = parse(code)
    targets = [
        node
        for stmt in (tree.body if tree else [])
        if isinstance(stmt, ast.Assign | ast.AnnAssign)
        for node in ast.walk(stmt)
    ]
    assigned = {node.id for node in targets if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    return assigned | {node.name for node in _definitions(code)}


def _defined(code: str, names: Collection[str]) -> int:
    """How many of `names` a program binds."""
    return len(_bound(code).intersection(names)) if names else 0


def _missing_helpers(part: str, program: str) -> Iterator[str]:
    """Imports and definitions of an earlier part whose names the program does not define."""
    tree, bound = parse(part), _bound(program)
    for node in tree.body if tree else []:
        if isinstance(node, ast.Import | ast.ImportFrom) or (isinstance(node, Definition) and node.name not in bound):
            yield ast.unparse(node)


def _without_trials(code: str, names: Collection[str]) -> str:
    """A program without the statements that only try it out, which may fail, print, or wait for input."""
    tree = parse(code)
    if tree is None or not any(_tries_out(node, names) for node in tree.body):
        return code
    return "\n\n".join(ast.unparse(node) for node in tree.body if not _tries_out(node, names)) + "\n"


def _tries_out(node: ast.stmt, names: Collection[str]) -> bool:
    """Whether a statement at the top level is an assertion, a main block, or calls what it need not to define anything."""
    calls = {call.func.id for call in ast.walk(node) if isinstance(call, ast.Call) and isinstance(call.func, ast.Name)}
    if isinstance(node, ast.Assert):
        return True
    if isinstance(node, ast.Expr):
        return isinstance(node.value, ast.Name) or bool(calls)
    if isinstance(node, ast.If | ast.For | ast.While | ast.With | ast.Try):
        main = isinstance(node, ast.If) and "__name__" in ast.dump(node.test)
        return main or bool(calls & {"print", "input", *names})
    return isinstance(node, ast.Assign) and "input" in calls
