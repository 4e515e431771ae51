"""The public names of `fusion` as a Markdown page, from their signatures and docstrings.

python -m fusion.api.pages                        print the page
python -m fusion.api.pages --write docs/api.md    write it; a test compares that file with what this makes
"""

from __future__ import annotations

import argparse
import ast
import importlib
import inspect
import re
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

HEAD = """# API

Every public name of `import fusion`, made from docstrings by `python -m fusion.api.pages --write docs/api.md`. What they are
for, with snippets, is in [Fusion from Python](python.md); what a word means, in the [glossary](glossary.md).
"""
SECTION = re.compile(r"^(Args|Returns|Raises):$")
DECORATORS = {name: name for name in ("property", "classmethod", "staticmethod")} | {"cached_property": "property"}
"""As in the source -> as on the page."""
ENTRY = re.compile(r"^    (\w+): (.*)$")


def page() -> str:
    """Return the page: a list of all names, then each function and each class."""
    fusion = importlib.import_module("fusion")
    public = {name: getattr(fusion, name) for name in fusion.__all__}
    index = [f"- [`{name}`](#{name.lower()}): {_summary(each)}" for name, each in public.items()]
    parts = [part for name, each in public.items() for part in _entry(name, each)]
    return "\n\n".join([HEAD.strip(), "\n".join(index), *parts]) + "\n"


def _entry(name: str, each: Any) -> Iterator[str]:
    """A heading, the call, the docstring and, of a class, its public members."""
    yield f"## {name}"
    (node,) = ast.parse(_source(each)).body
    if not isinstance(node, ast.ClassDef):
        yield f"```python\n{_call(node, _source(each))}\n```"
    yield markdown(inspect.getdoc(each) or "")
    if isinstance(node, ast.ClassDef):
        yield from _members(each)


def _members(owner: type) -> Iterator[str]:
    """Fields, then properties and methods with a docstring, its own before those of the classes that it derives from."""
    fields: dict[str, str] = {}
    methods: dict[str, str] = {}
    for base in (base for base in owner.__mro__ if base.__module__.startswith("fusion")):
        source = _source(base)
        for member, after in _body(source):
            call = _call(member, source)
            if isinstance(member, ast.AnnAssign) and not ast.unparse(member.annotation).startswith("ClassVar"):
                fields.setdefault(ast.unparse(member.target), f"- `{call}`: {_text_below(after)}".rstrip(": "))
            elif (
                isinstance(member, ast.FunctionDef) and (text := ast.get_docstring(member)) and _is_public(member.name)
            ):
                methods.setdefault(member.name, f"```python\n{call}\n```\n\n{markdown(text)}")
    if fields := {name: text for name, text in fields.items() if _is_public(name)}:
        yield "\n".join(fields.values())
    yield from methods.values()


def _body(source: str) -> Iterator[tuple[ast.stmt, ast.stmt | None]]:
    """Each statement of a class, and the one below it."""
    (node,) = ast.parse(source).body
    assert isinstance(node, ast.ClassDef)
    return zip(node.body, [*node.body[1:], None], strict=True)


def _is_public(name: str) -> bool:
    return not name.startswith("_") or name in ("__init__", "__call__")


def _text_below(statement: ast.stmt | None) -> str:
    """The docstring of a field, which is the text below it, in one line; empty if there is none."""
    value = statement.value if isinstance(statement, ast.Expr) else None
    return " ".join(str(value.value).split()) if isinstance(value, ast.Constant) else ""


def _call(node: ast.stmt, source: str) -> str:
    """How a function is called or a field is typed, as it stands in the source, without its body."""
    if not isinstance(node, ast.FunctionDef):
        return " ".join(ast.unparse(node).split())
    lines = source.splitlines()[node.lineno - 1 : node.body[0].lineno - 1]
    decorators = [f"@{DECORATORS[name]}" for name in map(ast.unparse, node.decorator_list) if name in DECORATORS]
    return "\n".join([*decorators, textwrap.dedent("\n".join(lines)).strip() + " ..."])


def _source(each: Any) -> str:
    return textwrap.dedent(inspect.getsource(each))


def _summary(each: Any) -> str:
    """The first sentence of a docstring."""
    return " ".join((inspect.getdoc(each) or "").split("\n\n")[0].split()).split(". ")[0].rstrip(".")


def markdown(docstring: str) -> str:
    """Return a docstring with its sections (Args, Returns, Raises) as Markdown lists."""
    lines, in_section = [], False
    for line in docstring.splitlines():
        if found := SECTION.match(line):
            lines, in_section = [*lines, f"**{found[1]}**", ""], True
        elif in_section and (entry := ENTRY.match(line)):
            lines.append(f"- `{entry[1]}`: {entry[2]}")
        else:
            lines.append(line.removeprefix("    ") if in_section else line)
    return "\n".join(lines)


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--write", type=Path, metavar="FILE")
    file = arguments.parse_args().write
    print(page(), end="") if file is None else file.write_text(page())
