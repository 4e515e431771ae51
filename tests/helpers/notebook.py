"""The notebook of the examples, made from a plain script: its cells, and what they print and draw when they are run.

python -m tests.helpers.notebook            run the script's cells, and say where the notebook shows something else
python -m tests.helpers.notebook --write    write examples/tour.ipynb anew

A cell of the script begins with a line `# %%`, text with `# %% [markdown]`. Running needs nbclient and ipykernel.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import re
import tempfile
from pathlib import Path
from typing import Any

EXAMPLES = Path(__file__).parent.parent.parent / "examples"
SCRIPT, NOTEBOOK = EXAMPLES / "tour.py", EXAMPLES / "tour.ipynb"
NUMBER = re.compile(r"-?\d+(?:[.,]\d+)*")
SECONDS = 300


def cells(script: str) -> list[dict[str, Any]]:
    """The cells of a script, without outputs."""
    _, *parts = re.split(r"^# %%(.*)\n", script, flags=re.MULTILINE)
    return [_cell(number, kind, text) for number, (kind, text) in enumerate(zip(parts[::2], parts[1::2], strict=True))]


def _cell(number: int, kind: str, text: str) -> dict[str, Any]:
    common = {"id": f"cell-{number:02}", "metadata": {}}
    if kind.strip() == "[markdown]":
        lines = [line.removeprefix("#").removeprefix(" ") for line in text.strip().splitlines()]
        return common | {"cell_type": "markdown", "source": "\n".join(lines)}
    return common | {"cell_type": "code", "source": text.strip(), "outputs": [], "execution_count": None}


def run(script: str) -> dict[str, Any]:
    """Run the cells in a kernel of their own, and return the notebook with what they print and draw."""
    import nbformat
    from nbclient import NotebookClient

    names = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    notebook = nbformat.from_dict({"cells": cells(script), "metadata": names, "nbformat": 4, "nbformat_minor": 5})
    os.environ.setdefault("DS_ACCELERATOR", "cpu")  # or DeepSpeed, where there is one, prints what it looked for
    with tempfile.TemporaryDirectory() as folder:
        place = {"metadata": {"path": folder}}
        NotebookClient(notebook, timeout=SECONDS, kernel_name="python3", resources=place).execute()
    nbformat.validate(notebook)
    plain = json.loads(json.dumps(notebook))
    for cell in plain["cells"]:
        cell["metadata"] = {}  # the times at which it was run
        if cell["cell_type"] == "code":
            cell["outputs"] = _kept(cell["outputs"])
    return plain | {"metadata": names}


def _kept(outputs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What is printed, in one piece, and pictures; not the progress bars, which are of a moment and of one machine."""
    kept: list[dict[str, Any]] = []
    for each in outputs:
        if each["output_type"] == "stream" and each["name"] == "stdout":
            if kept and kept[-1]["output_type"] == "stream":
                kept[-1]["text"] += each["text"]
            else:
                kept.append(each)
        elif "image/png" in each.get("data", {}):
            data = {"image/png": each["data"]["image/png"]}
            kept.append({"output_type": "display_data", "data": data, "metadata": {}})
    return kept


def printed(cell: dict[str, Any]) -> str:
    """What a cell prints, and a mark for each picture."""
    return "".join(each.get("text", "(picture)\n") for each in cell.get("outputs", []))


def differences(
    stored: dict[str, Any], fresh: dict[str, Any], *, relative: float = 0.1, absolute: float = 0.03
) -> list[str]:
    """Say where two notebooks print something else, apart from numbers that are nearly the same."""
    found = []
    for old, new in zip(stored["cells"], fresh["cells"], strict=True):
        before, after = printed(old), printed(new)
        numbers = [[float(each.replace(",", "")) for each in NUMBER.findall(text)] for text in (before, after)]
        same = NUMBER.sub("#", before) == NUMBER.sub("#", after)
        if not same or not all(
            math.isclose(a, b, rel_tol=relative, abs_tol=absolute) for a, b in zip(*numbers, strict=True)
        ):
            found.append(f"{old['id']}: {before!r} is stored, {after!r} was printed")
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="write the notebook anew")
    write = parser.parse_args().write
    fresh = run(SCRIPT.read_text())
    if write:
        NOTEBOOK.write_text(json.dumps(fresh, indent=1, ensure_ascii=False) + "\n")
        return 0
    found = differences(json.loads(NOTEBOOK.read_text()), fresh)
    print("\n".join(found) or "as it is stored")
    return int(bool(found))


if __name__ == "__main__":
    raise SystemExit(main())
