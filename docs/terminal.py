"""Record what a command prints in a terminal as a picture: `python docs/terminal.py "fusion run quickstart" terminal.svg`.

The command runs in a terminal of its own, so the picture has the colours and tables that a user sees; of bars that move, their
last state. Long output is cut in the middle (`--head`, `--tail`).
"""

from __future__ import annotations

import argparse
import fcntl
import io
import os
import pty
import re
import struct
import sys
import termios
from collections.abc import Iterator
from pathlib import Path

from rich._export_format import CONSOLE_SVG_FORMAT
from rich.console import Console
from rich.text import Text

CONTROL = re.compile(r"\x1b\[\??([\d;]*)([A-Za-z])")
COLOUR = re.compile(r"\x1b\[[\d;]*m")
FONT_FROM_THE_NETWORK = re.compile(r"@font-face \{\{.*?\}\}\s*", re.DOTALL)


def output_of(command: str, columns: int) -> str:
    """Return all that a command writes to a terminal of so many columns. Raises RuntimeError where it fails."""
    process, terminal = pty.fork()
    if process == 0:  # the command itself
        fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", 50, columns, 0, 0))
        os.environ |= {"TERM": "xterm-256color", "COLORTERM": "truecolor"}
        os.execvp("bash", ["bash", "-c", command])
    written = b"".join(_chunks(terminal)).decode(errors="replace")
    if status := os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]):
        raise RuntimeError(f"{command!r} ended with {status}:\n{written[-2000:]}")
    return written


def _chunks(terminal: int) -> Iterator[bytes]:
    while True:
        try:
            chunk = os.read(terminal, 1 << 16)
        except OSError:  # how a terminal says that its process has ended
            return
        if not chunk:
            return
        sys.stdout.buffer.write(chunk)
        sys.stdout.flush()
        yield chunk


def lines_of(written: str) -> list[str]:
    """Return the lines that are left on the screen, with their colours: what was written over or erased is gone."""
    lines, row = [""], 0
    for part in re.split(r"(\r?\n|\r|\x1b\[\??[\d;]*[A-Za-z])", written):
        control = CONTROL.fullmatch(part)
        if part.endswith("\n"):
            row += 1
            lines += [""] * (row >= len(lines))
        elif part == "\r" or (control and control[2] == "K"):
            lines[row] = ""
        elif control and control[2] == "A":
            row = max(0, row - int(control[1] or 1))
        elif control is None or control[2] == "m":
            lines[row] += part
    return lines


def picture(command: str, lines: list[str], columns: int, title: str) -> str:
    """Return an SVG of a terminal in which a command was typed and these lines came back."""
    console = Console(record=True, width=columns, file=io.StringIO(), force_terminal=True)
    console.print(Text.assemble(("$ ", "bold green"), (command, "bold")))
    for line in lines:
        console.print(Text.from_ansi(line), overflow="fold")
    return console.export_svg(title=title, code_format=FONT_FROM_THE_NETWORK.sub("", CONSOLE_SVG_FORMAT))


def cut(lines: list[str], head: int, tail: int, begins: str = "") -> list[str]:
    """Return the first and the last of the lines, empty ones at the end left out; the last from the one that `begins` so on."""
    while lines and not COLOUR.sub("", lines[-1]).strip():
        lines = lines[:-1]
    found = [n for n, line in enumerate(lines) if begins and COLOUR.sub("", line).startswith(begins)]
    first = found[-1] if found else len(lines) - tail
    return lines if first <= head else [*lines[:head], "⋮", *lines[first : first + tail]]


def main() -> None:
    """Record one command."""
    parser = argparse.ArgumentParser(prog="python docs/terminal.py", description=__doc__.splitlines()[0])
    parser.add_argument("command")
    parser.add_argument("file", type=Path, help="the SVG to write")
    parser.add_argument("--columns", type=int, default=110)
    parser.add_argument("--head", type=int, default=16, help="lines kept of the beginning")
    parser.add_argument("--tail", type=int, default=40, help="lines kept of the end")
    parser.add_argument("--tail-from", default="", help="where the end begins: the last line that begins with this")
    given = parser.parse_args()
    lines = cut(lines_of(output_of(given.command, given.columns)), given.head, given.tail, given.tail_from)
    given.file.write_text(picture(given.command, lines, given.columns, given.command.split()[0]))


if __name__ == "__main__":
    main()
