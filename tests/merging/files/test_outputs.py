"""Where a merge is written: every kind of `--out`, looked at before anything is read; what is finished is never removed."""

import contextlib
import errno
import json
import os
import shutil
from pathlib import Path

import pytest

from fusion.cli.boundary import user_message
from fusion.merging.files import checkpoint_writer, stream
from fusion.merging.files.output_folder import OutputFolder
from fusion.merging.files.stream import merge
from fusion.merging.methods.registry import TIES, Linear
from tests.helpers.families import WEIGHTS, tree


@pytest.fixture
def place(family, tmp_path, monkeypatch):
    """A folder with nothing in it, which is the current one."""
    folder = tmp_path / "place"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def expected(family, tmp_path):
    """The weights of the merge."""
    return (merge(*family, Linear(), tmp_path / "whole").folder / WEIGHTS).read_bytes()


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
    "a lock that leads elsewhere": ("out", lambda _: [a_file("f"), link_to("f")(".out.lock")], "is no lock of fusion"),
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


def test_a_folder_that_was_there_stays_the_folder_it_is(family, tmp_path):
    (tmp_path / "out").mkdir(mode=0o750)
    before = (tmp_path / "out").stat()
    merge(*family, Linear(), tmp_path / "out")
    after = (tmp_path / "out").stat()
    assert (after.st_ino, after.st_mode) == (before.st_ino, before.st_mode)


# The last step


def refuse(*_):
    raise OSError(16, "Device or resource busy")


@pytest.mark.parametrize("existed", [False, True])
def test_a_result_that_cannot_be_moved_is_kept_and_the_next_merge_only_moves_it(
    family, tmp_path, monkeypatch, expected, existed
):
    out = tmp_path / "out"
    if existed:
        out.mkdir()
    partial = OutputFolder.find(out, []).partial
    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", refuse)
        patch.setattr(OutputFolder, "_move_up", refuse)
        with pytest.raises(
            OSError, match=r"is whole, in \S+partial, but could not be moved to \S+out: Device or resource"
        ):
            merge(*family, Linear(), out)
    assert (partial / WEIGHTS).read_bytes() == expected
    monkeypatch.setattr(stream, "_write_weights", lambda *_, **__: pytest.fail("merged again"))
    assert merge(*family, Linear(), out).created
    assert (out / WEIGHTS).read_bytes() == expected
    assert not partial.exists()


@pytest.mark.parametrize("moved", range(6))
def test_a_kill_while_files_are_moved_up_leaves_no_model_and_the_next_merge_moves_the_rest(
    family, tmp_path, monkeypatch, expected, moved
):
    out, number, once = tmp_path / "out", iter(range(100)), Path.replace
    out.mkdir()

    def replace(self, target):
        if target.parent == out and next(number) == moved:
            raise KeyboardInterrupt
        return once(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", replace)
        with pytest.raises(KeyboardInterrupt):
            merge(*family, Linear(), out)
    assert not (out / "config.json").exists()
    if moved:
        with pytest.raises(
            FileExistsError, match="holds files of another merge, which was stopped at its end; empty it"
        ):
            merge(*family, TIES(), out)
    assert merge(*family, Linear(), out).created
    assert (out / WEIGHTS).read_bytes() == expected
    assert {path.name for path in out.iterdir()} == {path.name for path in (tmp_path / "whole").iterdir()}


# What is there already


@pytest.mark.parametrize("name", [WEIGHTS, "config.json", "tokenizer.json", "recipe.yaml"])
@pytest.mark.parametrize("how", ["cut", "changed", "gone"])
def test_a_result_whose_files_are_not_whole_does_not_pass_for_done(family, tmp_path, name, how):
    out = tmp_path / "out"
    merge(*family, Linear(), out)
    file = out / name
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.unlink() if how == "gone" else file.write_bytes(content[:-1] if how == "cut" else content)
    before = tree(out)
    with pytest.raises(FileExistsError, match=f"but {name} is gone or changed; remove the folder"):
        merge(*family, Linear(), out)
    assert tree(out) == before


def test_a_card_may_be_edited_and_a_merge_into_it_is_still_known(family, tmp_path):
    merge(*family, Linear(), tmp_path / "out")
    (tmp_path / "out/README.md").write_text("# Our model")
    assert not merge(*family, Linear(), tmp_path / "out").created


def test_ends_that_are_added_do_not_make_a_result_another(family, tmp_path):
    base, models = family
    for folder, ends in ((base, 2), *((model, [2, 5]) for model in models)):
        (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": ends}))
    merge(base, models, Linear(), tmp_path / "out")
    assert json.loads((tmp_path / "out/generation_config.json").read_text())["eos_token_id"] == [2, 5]
    assert not merge(base, models, Linear(), tmp_path / "out").created


@pytest.mark.parametrize("text", ["{}", "[1]", "{", '{"files": 3}', ""])
def test_a_record_that_is_none_of_ours_is_refused_in_a_sentence(family, tmp_path, text):
    merge(*family, Linear(), tmp_path / "out")
    (tmp_path / "out/merge.json").write_text(text)
    with pytest.raises((ValueError, FileExistsError), match="remove"):
        merge(*family, Linear(), tmp_path / "out")


# Disks that fill, and what may not be read or written


def on_call(module, name, number, error):
    """A stand-in for `module.name` that raises `error` from its n-th call on."""
    calls, once = iter(range(10**6)), getattr(module, name)

    def call(*arguments, **options):
        if next(calls) >= number:
            raise error
        return once(*arguments, **options)

    return call


@pytest.mark.parametrize("existed", [False, True])
@pytest.mark.parametrize(
    ("module", "name", "number", "sentence"),
    [
        (os, "pwrite", 7, "GB are missing. Free that, and run"),
        (os, "ftruncate", 1, "GB are missing. Free that, and run"),
        (os, "fsync", 0, "GB are missing. Free that, and run"),
        (os, "fsync", 5, "GB are missing. Free that, and run"),
        (shutil, "copyfile", 2, "GB are missing. Free that, and run"),
        (Path, "write_text", 2, "GB are missing. Free that, and run"),
        (Path, "rename", 0, "is whole, in"),
    ],
)
def test_a_disk_that_fills_is_named_with_what_is_missing_and_the_same_merge_goes_on(
    family, tmp_path, monkeypatch, expected, module, name, number, sentence, existed
):
    out = tmp_path / "out"
    if existed:
        out.mkdir()
    before = {folder: tree(folder) for folder in (family[0], *family[1])}
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    with monkeypatch.context() as patch:
        patch.setattr(module, name, on_call(module, name, number, full))
        if (name, existed) != ("rename", True):  # nothing is renamed as a whole
            with pytest.raises(OSError, match=sentence):
                merge(*family, Linear(), out)
            assert not (out / "config.json").exists()
    assert merge(*family, Linear(), out).created
    assert (out / WEIGHTS).read_bytes() == expected
    assert before == {folder: tree(folder) for folder in (family[0], *family[1])}
    assert {path.name for path in tmp_path.iterdir() if "out" in path.name} == {"out"}


def test_after_a_sync_that_failed_no_tensor_counts_as_written(family, tmp_path, monkeypatch):
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    monkeypatch.setattr(checkpoint_writer, "SYNC_BYTES", 2000)
    calls, once = iter(range(10**6)), os.fsync

    def fail_once(handle):  # the system has dropped what it could not write, and the next call succeeds
        if next(calls) == 6:
            raise full
        return once(handle)

    monkeypatch.setattr(os, "fsync", fail_once)
    with pytest.raises(OSError, match="GB are missing"):
        merge(*family, Linear(), tmp_path / "out")
    synced = len(checkpoint_writer.synced_tensors(tmp_path / ".out.partial"))
    assert 0 < synced < 21


@pytest.fixture
def as_nobody(family, tmp_path):
    """Run as a user who owns nothing, for root may read and write all; `tmp_path` can be read, its `results` be written."""
    (tmp_path / "results").mkdir()
    if os.geteuid() != 0:
        return contextlib.nullcontext
    for folder in [tmp_path, *tmp_path.parents]:
        folder.chmod(folder.stat().st_mode | 0o055)
    for file in tmp_path.rglob("*"):
        file.chmod(file.stat().st_mode | 0o044)
    (tmp_path / "results").chmod(0o777)

    @contextlib.contextmanager
    def switch():
        os.seteuid(65534)
        try:
            yield
        finally:
            os.seteuid(0)

    return switch


def test_a_folder_that_may_not_be_written_is_refused_before_anything_is_read(family, tmp_path, monkeypatch, as_nobody):
    (tmp_path / "closed/empty").mkdir(parents=True)
    for name in ("closed/empty", "closed"):
        (tmp_path / name).chmod(0o555)
    monkeypatch.setattr(stream, "prepare_merge", lambda *_, **__: pytest.fail("something was read"))
    for out in ("closed/new", "closed/a/b/new", "closed/empty"):
        with as_nobody(), pytest.raises(PermissionError) as caught:
            merge(*family, Linear(), tmp_path / out)
        assert user_message(caught.value) == (
            f"{tmp_path / out}: Permission denied. Give yourself the right to it, or name another place."
        )


@pytest.mark.parametrize("name", [WEIGHTS, "config.json", "generation_config.json", "tokenizer.json"])
def test_an_input_that_may_not_be_read_is_named_and_nothing_is_left(family, tmp_path, as_nobody, name):
    (tmp_path / "base" / name).chmod(0)
    with as_nobody(), pytest.raises(PermissionError) as caught:
        merge(*family, Linear(), tmp_path / "results" / "out")
    assert user_message(caught.value) == (
        f"{tmp_path / 'base' / name}: Permission denied. Give yourself the right to it, or name another place."
    )
    assert list((tmp_path / "results").iterdir()) == []


def test_inputs_that_may_not_be_written_are_merged(family, tmp_path, as_nobody):
    with as_nobody():
        assert merge(*family, Linear(), tmp_path / "results" / "out").created


# Resuming


@pytest.mark.parametrize("how", ["gone", "cut", "longer"])
def test_weights_that_were_spoiled_since_the_interruption_are_not_gone_on_with(family, tmp_path, expected, how):
    def stop(stage, done, total):
        if done == 12:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        merge(*family, Linear(), tmp_path / "out", progress=stop)
    file = tmp_path / ".out.partial" / WEIGHTS
    content = file.read_bytes()
    file.unlink() if how == "gone" else file.write_bytes(content[:-9] if how == "cut" else content + b"0")
    merge(*family, Linear(), tmp_path / "out")
    assert (tmp_path / "out" / WEIGHTS).read_bytes() == expected
