"""The notebook of the examples: that of its script as it is now, with outputs that are still so, and nothing of a machine."""

from __future__ import annotations

import base64
import getpass
import json
import re
import tomllib
from pathlib import Path

import pytest

from tests.helpers import notebook

STORED = json.loads(notebook.NOTEBOOK.read_text())
CODE = [cell for cell in STORED["cells"] if cell["cell_type"] == "code"]
PICTURES = [output["data"]["image/png"] for cell in CODE for output in cell["outputs"] if "data" in output]
OF_A_MACHINE = r"(?<![\w.])/(?:home|root|Users|tmp|work|opt|usr|var|mnt)\b|site-packages|\.venv|[A-Za-z]:\\\\"


def test_its_cells_are_those_of_the_script():
    cells = notebook.cells(notebook.SCRIPT.read_text())
    assert len(cells) > 15
    assert [(cell["cell_type"], cell["source"]) for cell in STORED["cells"]] == [
        (cell["cell_type"], cell["source"]) for cell in cells
    ], "run make notebook"


def test_each_cell_was_run_in_order_and_what_prints_or_draws_has_its_output():
    assert [cell["execution_count"] for cell in CODE] == list(range(1, len(CODE) + 1))
    for cell in CODE:
        kinds = [output["output_type"] for output in cell["outputs"]]
        assert kinds.count("stream") == ("print(" in cell["source"])
        assert kinds.count("display_data") == cell["source"].count("plt.show()")
        assert "error" not in kinds


def test_its_pictures_are_small():
    assert len(PICTURES) == 3
    assert sum(len(base64.b64decode(picture)) for picture in PICTURES) < 300_000


def test_no_path_and_no_user_of_the_machine_that_made_it_stands_in_it():
    text = json.dumps({**STORED, "cells": [{**cell, "outputs": notebook.printed(cell)} for cell in STORED["cells"]]})
    for name in {OF_A_MACHINE, rf"\b{re.escape(getpass.getuser())}\b", re.escape(str(Path.home()))}:
        assert re.findall(name, text) == []
    assert re.search(OF_A_MACHINE, "see /home/me/x")


def test_the_pages_on_python_and_of_examples_lead_to_it():
    for page in ("docs/python.md", "examples/README.md"):
        assert "tour.ipynb)" in (notebook.EXAMPLES.parent / page).read_text()


def test_a_source_distribution_holds_it():
    project = tomllib.loads((notebook.EXAMPLES.parent / "pyproject.toml").read_text())
    assert "/examples" in project["tool"]["hatch"]["build"]["targets"]["sdist"]["include"]


def test_numbers_may_differ_a_little_and_words_not_at_all():
    def printing(text):
        return {"cells": [{"id": "a", "outputs": [{"output_type": "stream", "text": text}]}]}

    stored = printing("1,234 rows, loss 0.50")
    assert notebook.differences(stored, printing("1,300 rows, loss 0.52")) == []
    assert notebook.differences(stored, printing("1,234 rows, loss 0.60"))
    assert notebook.differences(stored, printing("1,234 lines, loss 0.50"))
    assert notebook.differences(stored, printing("1,234 rows, loss 0.50, 2"))


@pytest.mark.slow
def test_run_again_it_shows_the_same():
    pytest.importorskip("nbclient")
    assert notebook.differences(STORED, notebook.run(notebook.SCRIPT.read_text())) == []
