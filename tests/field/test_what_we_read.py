"""Every row of every table of docs/data.md is made, and gives what the page says."""

import bz2
import gzip
import json
import lzma
import re
from pathlib import Path

import pyarrow
import pytest
from pyarrow import parquet

from fusion.data import datasets

PAGE = (Path(__file__).parents[2] / "docs/data.md").read_text(encoding="utf-8")
ROW = '{"prompt": "q", "response": "a"}'


def table(head):
    """The rows of the tables whose first line begins so, each a list of cells; backquotes taken off."""
    lines = PAGE.split(f"| {head}", 1)[1].split("\n")[2:]
    rows = []
    for line in lines:
        if not line.startswith("|"):
            break
        rows.append([re.sub(r"^`(.*)`$", r"\1", cell.strip()) for cell in line.strip("|").split(" | ")])
    assert len(rows) >= 6
    return rows


def column(text):
    """The cell of a table without its backquotes, with line breaks."""
    return re.sub(r"^`(.*)`$", r"\1", text.strip().rstrip("|").strip()).replace("⏎", "\n")


def read(folder, text, name="x.jsonl", **settings):
    (folder / name).write_text(text, encoding="utf-8")
    return datasets.read(str(folder / name), domain="d", **settings)


def messages(example):
    return "\n".join(f"{message['role']}: {message['content']}" for message in example.messages) or "none"


COLUMNS = [*table("columns |"), *table("field of a turn |")]


@pytest.mark.parametrize("cells", COLUMNS, ids=[cells[0] for cells in COLUMNS])
def test_columns_and_turns_are_what_the_page_says(tmp_path, cells):
    (example,) = read(tmp_path, column(cells[1])).examples
    assert messages(example) == column(cells[2])
    assert example.response == column(cells[3])
    assert example.template == ("plain" if cells[0].startswith("text") else None)


def test_a_value_in_json_is_the_text_that_the_page_says(tmp_path):
    for value, text in table("value in JSON |"):
        (example,) = read(tmp_path, f'{{"prompt": "q", "response": {column(value)}}}').examples
        assert example.response == column(text)


def test_a_cell_is_the_text_that_the_page_says(tmp_path):
    for cell, text in table("cell of a CSV file |"):
        (example,) = read(tmp_path, f"prompt,response\nq,{column(cell)}\n", "x.csv").examples
        assert example.response == column(text)


def test_a_value_in_parquet_is_the_text_that_the_page_says(tmp_path):
    for kind, value, text in table("type in Parquet |"):
        cells = pyarrow.array([column(value)]).cast(pyarrow.type_for_alias(column(kind)))
        parquet.write_table(pyarrow.table({"prompt": ["q"], "response": cells}), tmp_path / "x.parquet")
        (example,) = datasets.load(str(tmp_path / "x.parquet"), domain="d")
        assert example.response == column(text)


REFUSED = table("what | a line |")


@pytest.mark.parametrize("cells", REFUSED, ids=[cells[0] for cells in REFUSED])
def test_what_the_page_refuses_is_refused_with_file_and_row(tmp_path, cells):
    with pytest.raises(ValueError, match=re.escape(column(cells[2]))) as found:
        read(tmp_path, column(cells[1]))
    assert "x.jsonl" in str(found.value)
    if "do not tell" not in cells[2]:
        assert re.search(r"x\.jsonl, (line|row) 1", str(found.value))


def compressed(folder):
    """The same row with every kind of compression, one after another."""
    (folder / "all").mkdir()
    for suffix, pack in {"gz": gzip.compress, "bz2": bz2.compress, "xz": lzma.compress}.items():
        (folder / "all" / f"a.jsonl.{suffix}").write_bytes(pack(ROW.encode()))
    with pyarrow.CompressedOutputStream(str(folder / "all" / "a.jsonl.zst"), "zstd") as stream:
        stream.write(ROW.encode())
    return folder / "all", 4


def written(name, text):
    def make(folder):
        (folder / name).write_text(text)
        return folder / name, 1

    return make


def in_folder(pattern):
    def make(folder):
        for name in ("part-1.jsonl", "part-2.jsonl"):
            (folder / name).write_text(ROW)
        return f"{folder}/{pattern}", 2

    return make


def as_parquet(folder):
    parquet.write_table(pyarrow.table({"prompt": ["q"], "response": ["a"]}), folder / "rows.parquet")
    return folder / "rows.parquet", 1


def saved(folder):
    from datasets import Dataset

    Dataset.from_dict({"prompt": ["q"], "response": ["a"]}).save_to_disk(folder / "saved")
    return folder / "saved", 1


FILES = {
    "rows.jsonl": written("rows.jsonl", f"\ufeff{ROW}\n\n"),
    "rows.ndjson": written("rows.ndjson", ROW),
    "list.json": written("list.json", f"[{ROW}]"),
    "data-key.json": written("data-key.json", json.dumps({"version": 1, "data": [json.loads(ROW)]})),
    "lines.json": lambda folder: (written("lines.json", f"{ROW}\n{ROW}\n")(folder)[0], 2),
    "cells.csv": written("cells.csv", 'prompt,response\r\n"q",a\r\n'),
    "semicolons.csv": written("semicolons.csv", "prompt;response\nq;a\n"),
    "tabs.tsv": written("tabs.tsv", "prompt\tresponse\nq\ta\n"),
    "rows.parquet": as_parquet,
    "rows.jsonl.gz": compressed,
    "folder/": in_folder(""),
    "part-*.jsonl": in_folder("part-*.jsonl"),
    "saved/": saved,
}
ELSEWHERE = {"builtin:sort", "org/name"}
"""Of the quickstart and of the hub: tests/quickstart, and a hub that is not there in tests."""


def test_each_kind_of_file_of_the_page_is_tried():
    assert {column(cells[0]) for cells in table("path |")} == FILES.keys() | ELSEWHERE


@pytest.mark.parametrize("name", FILES)
def test_a_file_is_read_as_the_page_says(tmp_path, name):
    place, count = FILES[name](tmp_path)
    examples = datasets.load(str(place), domain="d")
    assert [(messages(example), example.response) for example in examples] == [("user: q", "a")] * count
