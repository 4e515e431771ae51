"""Spoiled data files: JSON lines, CSV and JSON, read on the default settings."""

from __future__ import annotations

import csv
import io
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from tests.faults.mutations import spoil_text, spoil_tree
from tests.faults.runner import Mutant
from tests.helpers import runs

NAMES = {"jsonl": "rows.jsonl", "csv": "rows.csv", "json": "rows.json", "messages": "chat.jsonl"}


def originals() -> dict[str, list[dict[str, Any]]]:
    """Rows by form."""
    rows = [{"prompt": f"number {i}: ", "response": f"{runs.WORDS[i % 5]} {i}", "id": i} for i in range(12)]
    flat = [row | {"response": row["response"].replace("\n", " ").replace("\t", " ")} for row in rows]
    chats = [
        {"messages": [{"role": "user", "content": row["prompt"]}, {"role": "assistant", "content": row["response"]}]}
        for row in rows
    ]
    return {"jsonl": rows, "csv": flat, "json": rows, "messages": chats}


def text_of(form: str, rows: list[Any]) -> str:
    """The text of a file."""
    if form == "csv":
        out = io.StringIO()
        writer = csv.DictWriter(out, list(dict.fromkeys(key for row in rows if isinstance(row, dict) for key in row)))
        writer.writeheader()
        writer.writerows(row if isinstance(row, dict) else {} for row in rows)
        return out.getvalue()
    if form == "json":
        return json.dumps(rows, indent=0)
    return "\n".join(map(json.dumps, rows))


def data_files(folder: Path, rng: random.Random) -> Iterator[Mutant]:
    """Endless mutants for `fusion plan` over the tiny models."""
    known, raw = originals(), runs.raw(folder)
    while True:
        form = rng.choice(list(known))
        yield _mutant(folder / NAMES[form], form, known[form], raw, rng)


def _mutant(file: Path, form: str, rows: list[dict[str, Any]], raw: dict[str, Any], rng: random.Random) -> Mutant:
    if rng.random() < 0.5:
        content, line, what = spoil_text(text_of(form, rows), rng)
        place = f"line {line}"
        names = (
            place,
            f"row {line}",
            f"row {max(1, line - 1)}",
            f"line {line + 1}",
        )  # where a line is cut, the next is wrong
    else:
        tree, where, what = spoil_tree(rows, rng)
        content = text_of(form, tree).encode("utf-8", "surrogatepass")
        place = ".".join(map(str, where))
        row = int(where[0]) + 1
        names = (
            f"line {row}",
            f"row {row}",
            f"line {row + 1}",
            *(str(key) for key in where[1:] if isinstance(key, str)),
        )

    def prepare(content: bytes = content) -> list[str]:
        file.write_bytes(content)
        data = {"train": [{"path": str(file), "domain": "d0"}], "heldout": raw["data"]["heldout"][:1]}
        config = file.with_name("data.yaml")
        config.write_text(yaml.safe_dump(raw | {"data": data}))
        return ["plan", str(config)]

    original = f"data {form}", lambda: prepare(text_of(form, rows).encode())
    return Mutant(f"data, {form}", f"{place}: {what}", prepare, names, original)
