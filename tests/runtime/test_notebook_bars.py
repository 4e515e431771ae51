"""A bar in a notebook leaves the streams alone that the notebook flushes to draw it."""

import sys

import pytest
from rich.console import Console

from fusion.runtime import console


@pytest.mark.filterwarnings("ignore:install .ipywidgets")
def test_a_bar_in_a_notebook_does_not_take_over_what_the_notebook_prints_to(monkeypatch):
    monkeypatch.setattr(console, "console", Console(force_jupyter=True))
    streams = sys.stdout, sys.stderr
    with console.bar("reading", 2, "rows") as advance:
        advance(1)
        assert (sys.stdout, sys.stderr) == streams


def test_a_bar_on_a_terminal_keeps_what_others_print_above_it(monkeypatch):
    monkeypatch.setattr(console, "console", Console(force_terminal=True))
    streams = sys.stdout, sys.stderr
    with console.bar("reading", 2, "rows"):
        assert streams != (sys.stdout, sys.stderr)
    assert (sys.stdout, sys.stderr) == streams
