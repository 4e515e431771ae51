"""Texts of others (names, settings) inside Markdown, where they must stay what they are."""

import re
from pathlib import Path


def plain(text: str) -> str:
    """Text that Markdown and HTML show as it is: on one line, and free of table bars, tags and emphasis."""
    escaped = " ".join(text.split()).replace("&", "&amp;").replace("<", "&lt;")
    return "".join(f"\\{letter}" if letter in "\\`*_[]|#" else letter for letter in escaped)


def code(text: str) -> str:
    """Text as code within a line; its backticks go."""
    return f"`{' '.join(text.split()).replace('`', '')}`"


def fence(text: str) -> str:
    """A fence for a block of code, longer than any run of backticks in the text, which could close it."""
    return "`" * max(3, 1 + max(map(len, re.findall("`+", text)), default=0))


def without_home(text: str) -> str:
    """Text for others to read: paths below the home folder begin with ~, which says nothing of its owner."""
    home = str(Path.home())
    return text if home == "/" else re.sub(rf"(?<![\w.-]){re.escape(home)}(?=/|$|\W)", "~", text)


def with_home(text: str) -> str:
    """A path as `without_home` writes it, or MODEL+ADAPTER of two, with the home folder for each ~."""
    return re.sub(r"(?:^|(?<=\+))~(?=/|$)", lambda _: str(Path.home()), text)
