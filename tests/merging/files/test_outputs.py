"""Where a merge is written: every kind of `--out`, looked at before anything is read; what is finished is never removed."""

import json
import os
from pathlib import Path

import pytest

from fusion.merging.files import stream
from fusion.merging.files.stream import merge
from fusion.merging.methods.registry import Linear
from tests.helpers.families import WEIGHTS, tree


@pytest.fixture
def place(family, tmp_path, monkeypatch):
    """A folder with nothing in it, which is the current one."""
    folder = tmp_path / "place"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def empty(name):
    Path(name).mkdir()


def link_to(target):
    return lambda name: Path(name).symlink_to(target, target_is_directory=True)


def with_lost_and_found(name):
    Path(name, "lost+found").mkdir(parents=True)


NEW = {
    "a name": ("out", "out", None),
    "a trailing slash": ("out/", "out", None),
    "a name with a dot before it": (".out", ".out", None),
    "three dots": ("...", "...", None),
    "parents that are not there": ("a/b/out", "a/b/out", None),
    "two dots on the way": ("a/../out", "out", None),
    "the longest name": ("n" * 255, "n" * 255, None),
    "an empty folder": ("out", "out", empty),
    "the current folder": (".", ".", None),
    "nothing, which is the current folder": ("", ".", None),
    "an empty file system": ("out", "out", with_lost_and_found),
    "a link to what is not there": ("out", "real", link_to("real")),
    "a link to an empty folder": ("out", "real", lambda name: [empty("real"), link_to("real")(name)]),
    "a link to the folder above": ("out", "real", lambda name: [empty("sub"), link_to("sub/../real")(name)]),
}


@pytest.mark.parametrize("case", NEW)
def test_a_merge_lies_where_its_output_leads(family, place, expected, case):
    out, real, prepare = NEW[case]
    if prepare is not None:
        prepare(out)
    before = set(tree(place))
    assert merge(*family, Linear(), Path(out)).created
    files = {place / real / name for name in json.loads(Path(real, "merge.json").read_text())["files"]}
    assert (place / real / WEIGHTS).read_bytes() == expected
    made = {path for path in tree(place) if path.is_file()}
    assert made == files | {place / real / "merge.json"}  # and nothing beside it
    assert before <= set(tree(place))  # links and folders are what they were
    assert not merge(*family, Linear(), Path(out)).created


def a_file(name):
    Path(name).write_text("mine")


def notes(name):
    Path(name).mkdir()
    a_file(f"{name}/mine.txt")


REFUSED = {
    "a file": ("out", a_file, "out is a file; name a folder"),
    "a link to a file": ("out", lambda name: [a_file("mine"), link_to("mine")(name)], "out is a file"),
    "a pipe": ("out", os.mkfifo, "out is a file"),
    "a folder with other things": ("out", notes, "not made by a merge: it holds mine.txt; give another"),
    "a link to such a folder": ("out", lambda name: [notes("mine"), link_to("mine")(name)], "place/mine is not empty"),
    "the current folder with other things": (".", lambda _: a_file("mine.txt"), "place is not empty"),
    "the folder above": ("..", lambda _: None, "holds the input"),
    "the root": ("/", lambda _: None, "holds the input"),
    "a file on the way": ("file/out", lambda _: a_file("file"), "file/out cannot be made: .*place/file is a file"),
    "a link to itself": ("out", link_to("out"), "leads back to itself"),
    "a name that is too long": ("n" * 256, lambda _: None, "name too long"),
    "a folder of that name that is not ours": ("out", lambda _: notes(".out.partial"), "is in the way, and no merge"),
    "a lock that is not ours": ("out", lambda _: a_file(".out.lock"), ".out.lock is there and is no lock of fusion"),
    "a lock that leads elsewhere": (
        "out",
        lambda _: [Path("f").touch(), link_to("f")(".out.lock")],
        "is no lock of fusion",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_other_outputs_are_refused_and_left_as_they_are(family, place, case):
    out, prepare, sentence = REFUSED[case]
    prepare(out)
    before = tree(place.parent)
    with pytest.raises((OSError, ValueError), match=f"(?i){sentence}"):
        merge(*family, Linear(), Path(out))
    assert tree(place.parent) == before


BESIDE_INPUTS = {
    "an input": ("../m1", "is the input .*m1"),
    "the base": ("../base/", "is the input .*base"),
    "an input by a link": ("link", "is the input .*m2"),
    "a folder in an input": ("../m3/sub/out", "lies in the input .*m3"),
    "a folder in an input by a link": ("link/out", "lies in the input .*m2"),
    "a folder that an input is in": ("../holder", "holds the input .*m4"),
    "a link to such a folder": ("up", "holds the input .*m4"),
    "what an input is written in": ("../holder/m", "is the input .*m.partial, or where it is written"),
}


@pytest.mark.parametrize("case", BESIDE_INPUTS)
def test_an_output_at_an_input_is_refused_before_anything_is_read(family, place, monkeypatch, case):
    out, sentence = BESIDE_INPUTS[case]
    base, models = family
    link_to("../m2")("link")
    link_to("../holder")("up")
    (place.parent / "holder").mkdir()
    for name in ("m4", ".m.partial"):
        (place.parent / "holder" / name).mkdir()
    others = [place.parent / "holder/m4", place.parent / "holder/.m.partial"]
    monkeypatch.setattr(stream, "prepare_merge", lambda *_, **__: pytest.fail("something was read"))
    before = tree(place.parent)
    with pytest.raises(ValueError, match=f"{sentence}.*; name a folder outside of all inputs"):
        merge(base, [*models, *others], Linear(), Path(out))
    assert tree(place.parent) == before


@pytest.mark.parametrize("out", ["../m2", "../m2/out", "../adapter/", "../adapter/out"])
def test_both_folders_of_a_model_with_an_adapter_are_inputs(family, place, monkeypatch, out):
    (place.parent / "adapter").mkdir()
    monkeypatch.setattr(stream, "prepare_merge", lambda *_, **__: pytest.fail("something was read"))
    with pytest.raises(ValueError, match=r"The output \S+ (is|lies in) the input \S*(m2|adapter)"):
        merge(family[0], [family[1][0], Path("../m2+../adapter")], Linear(), Path(out))


@pytest.mark.parametrize("model", [".", "..", "../place/", "../place/sub/.."])
def test_a_model_called_by_dots_is_the_folder_that_it_names(family, place, model):
    (place / "sub").mkdir()
    with pytest.raises(ValueError, match="The output out lies in the input"):
        merge(family[0], [family[1][0], Path(model)], Linear(), Path("out"))
    assert tree(place) == {place / "sub": (place / "sub").stat().st_mode}


def test_a_folder_that_was_there_stays_the_folder_it_is(family, tmp_path):
    (tmp_path / "out").mkdir(mode=0o750)
    before = (tmp_path / "out").stat()
    merge(*family, Linear(), tmp_path / "out")
    after = (tmp_path / "out").stat()
    assert (after.st_ino, after.st_mode) == (before.st_ino, before.st_mode)
