"""Run every causal architecture of transformers through the chain and print a table; with --write put it into a page."""

from __future__ import annotations

import argparse
import re
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import torch
import transformers
from rich.console import Console

from fusion.runtime.console import quiet
from tests.architectures.chain import PRECISIONS, ChainResult, all_kinds, run_chain

COLUMNS = (*PRECISIONS, "packing")


def main() -> None:
    """Run the architectures that are named, or all."""
    parser = argparse.ArgumentParser(prog="python -m tests.architectures", description=__doc__)
    parser.add_argument(
        "kinds", nargs="*", metavar="TYPE", help="model types as in config.json, such as llama; all if none"
    )
    parser.add_argument("--write", type=Path, metavar="PAGE", help="a Markdown page to put the table of all into")
    given = parser.parse_args()
    if unknown := set(given.kinds) - set(all_kinds()):
        parser.error(
            f"transformers {transformers.__version__} has no causal model of type {', '.join(sorted(unknown))}"
        )
    if given.write and given.kinds:
        parser.error("--write writes the table of all architectures; leave the types out.")
    torch.set_num_threads(1)
    quiet()
    console = Console()
    text = markdown(_with_progress(given.kinds or list(all_kinds()), console))
    if given.write:
        write(given.write, text)
    else:
        console.print(text, markup=False, highlight=False, soft_wrap=True)


def results(kinds: Iterable[str]) -> Iterator[ChainResult]:
    """Yield what came of each model type, each in a temporary folder."""
    for kind in kinds:
        with tempfile.TemporaryDirectory() as folder:
            yield run_chain(kind, Path(folder))


def markdown(found: Iterable[ChainResult]) -> str:
    """Return the table with the version of transformers above and the counts below it."""
    rows = list(found)
    lines = [
        f"transformers {transformers.__version__}, {len(rows)} model types; {_count(rows)}.",
        "",
        f"| model type | class | {' | '.join(COLUMNS)} | remark |",
        f"| --- | --- |{' --- |' * len(COLUMNS)} --- |",
    ]
    return "\n".join([*lines, *map(_row, rows), ""])


def write(page: Path, text: str) -> None:
    """Put `text` between the page's marks."""
    before = page.read_text()
    if not MARKS.search(before):
        raise SystemExit(f"{page} has no place for the table: put <!-- architectures --> and <!-- end --> into it.")
    page.write_text(MARKS.sub(lambda found: found[1] + text + found[3], before))


MARKS = re.compile("(<!-- architectures -->\n)(.*?)(<!-- end -->)", re.DOTALL)


def table_in(page: Path) -> str:
    """Return what stands between the page's marks."""
    found = MARKS.search(page.read_text())
    assert found is not None, f"{page} has no table of architectures"
    return found[2]


def _with_progress(kinds: list[str], console: Console) -> Iterator[ChainResult]:
    with console.status("") as status:
        for number, kind in enumerate(kinds, 1):
            status.update(f"{number} of {len(kinds)}: {kind} ...")
            yield from results([kind])


def _row(result: ChainResult) -> str:
    marks = _marks(result)
    return f"| `{result.kind}` | {result.class_name} | {' | '.join(marks.values())} | {remark(result)} |"


def _marks(result: ChainResult) -> dict[str, str]:
    """Return `yes` or `no` for each column; nothing under `packing` where no precision works."""
    marks = {column: "yes" if result.outcomes[column] == "yes" else "no" for column in COLUMNS}
    return marks if "yes" in [marks[name] for name in PRECISIONS] else marks | {"packing": ""}


def remark(result: ChainResult) -> str:
    """Return each reason once, with the columns it holds for where they are not all."""
    columns: dict[str, list[str]] = {}
    for column in PRECISIONS:
        if (reason := result.outcomes[column]) != "yes":
            columns.setdefault(reason, []).append(column)
    parts = [f"{', '.join(c)}: {reason}" if len(c) < len(PRECISIONS) else reason for reason, c in columns.items()]
    return "; ".join(parts)


def _count(rows: list[ChainResult]) -> str:
    return ", ".join(f"{column} {sum(_marks(row)[column] == 'yes' for row in rows)}" for column in COLUMNS)


if __name__ == "__main__":
    main()
