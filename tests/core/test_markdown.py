"""Texts of others stay in their place in Markdown, and say nothing of whose machine they are from."""

from pathlib import Path

import pytest

from fusion.core.markdown import code, fence, plain, without_home


def test_names_cannot_become_markdown_or_html():
    assert plain("a|b\n---\n<b> *c* [d](e)") == "a\\|b --- &lt;b> \\*c\\* \\[d\\](e)"
    assert code("a`b\n# c") == "`ab # c`"
    assert fence("```\nx\n````") == "`````"
    assert fence("") == "```"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("/home/jane/models/a: x", "~/models/a: x"),
        ("model: '/home/jane'", "model: '~'"),
        ("/home/janet/a", "/home/janet/a"),
        ("/mnt/home/jane/a", "/mnt/home/jane/a"),
        ("/data/a", "/data/a"),
    ],
)
def test_the_home_folder_becomes_a_tilde(monkeypatch, text, expected):
    monkeypatch.setattr(Path, "home", lambda: Path("/home/jane"))
    assert without_home(text) == expected


def test_a_home_that_is_the_root_is_no_prefix(monkeypatch):
    monkeypatch.setattr(Path, "home", lambda: Path("/"))
    assert without_home("/data/a") == "/data/a"
