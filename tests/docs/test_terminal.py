"""The recorder of terminals keeps what is left on the screen, and a picture that needs no network."""

import importlib.util
from pathlib import Path

import pytest

FILE = Path(__file__).parents[2] / "docs/terminal.py"
SPEC = importlib.util.spec_from_file_location("terminal", FILE)
terminal = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(terminal)


@pytest.mark.parametrize(
    ("written", "lines"),
    [
        ("one\r\ntwo\r\n", ["one", "two", ""]),
        ("10%\r20%\r\ndone", ["20%", "done"]),
        ("bar 1\r\nbar 2\r\n\x1b[1A\x1b[2Kbar 2, ended\r\n", ["bar 1", "bar 2, ended", ""]),
        ("\x1b[?25l\x1b[32mgreen\x1b[0m\x1b[?25h", ["\x1b[32mgreen\x1b[0m"]),
    ],
)
def test_what_is_written_over_is_gone_and_colours_stay(written, lines):
    assert terminal.lines_of(written) == lines


def test_a_command_sees_a_terminal_and_its_picture_has_what_it_wrote():
    command = "test -t 1 && stty size && printf 'a <b> & c\\n'"
    lines = terminal.cut(terminal.lines_of(terminal.output_of(command, 72)), 10, 10)
    assert lines == ["50 72", "a <b> & c"]
    svg = terminal.picture("say", lines, 72, "title")
    assert "a&#160;&lt;b&gt;&#160;&amp;&#160;c" in svg
    assert "@font-face" not in svg


def test_a_command_that_fails_is_no_picture():
    with pytest.raises(RuntimeError, match="ended with 3"):
        terminal.output_of("exit 3", 80)


def test_long_output_is_cut_in_the_middle():
    assert terminal.cut(["1", "2", "3", "4", "5", "", "\x1b[0m"], 1, 2) == ["1", "⋮", "4", "5"]
