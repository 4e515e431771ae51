"""Disks that fill in the middle of a merge, and what may not be read or written: a sentence, and the same command goes on."""

import contextlib
import errno
import os
import shutil
import threading
import time
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path

import pytest

from fusion.cli.boundary import user_message
from fusion.merging.files import checkpoint_writer, merge_record, stream
from fusion.merging.files.stream import merge
from fusion.merging.methods.registry import Linear
from tests.helpers.families import WEIGHTS, tree


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


class AtOnce(ThreadPoolExecutor):
    """An executor that is never late: what is submitted is done when `submit` returns."""

    def submit(self, call, /, *arguments, **options):
        future = super().submit(call, *arguments, **options)
        wait([future])
        return future


def test_a_sync_that_failed_ends_the_merge_and_no_tensor_counts_as_written_after_it(family, tmp_path, monkeypatch):
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    monkeypatch.setattr(checkpoint_writer, "SYNC_BYTES", 2000)
    monkeypatch.setattr(checkpoint_writer, "ThreadPoolExecutor", AtOnce)
    merged, before = [], set()
    calls, once = iter(range(10**6)), os.fsync

    def fail_once(handle):  # the system has dropped what it could not write, and the next call succeeds
        if next(calls) == 7:
            before.update(checkpoint_writer.synced_tensors(tmp_path / ".out.partial"))
            raise full
        return once(handle)

    monkeypatch.setattr(os, "fsync", fail_once)
    with pytest.raises(OSError, match="GB are missing"):
        merge(*family, Linear(), tmp_path / "out", progress=lambda _, done, total: merged.append(done))
    synced = checkpoint_writer.synced_tensors(tmp_path / ".out.partial")
    assert synced == before
    assert 0 < len(synced) < len(merged) < 20


@pytest.mark.parametrize("existed", [False, True])
def test_all_is_on_the_disk_before_it_becomes_the_result(family, tmp_path, monkeypatch, existed):
    out, on_disk, checked = tmp_path / "out", {}, []
    if existed:
        out.mkdir()
    sync, rename, replace = os.fsync, Path.rename, Path.replace

    def record(handle):
        sync(handle)
        path = Path(f"/proc/self/fd/{handle}").resolve()
        on_disk[path.stat().st_ino] = sorted(path.iterdir()) if path.is_dir() else path.read_bytes()

    def is_on_disk(path):
        return on_disk.get(path.stat().st_ino) == (sorted(path.iterdir()) if path.is_dir() else path.read_bytes())

    def checking(move):
        def moved(self, target):
            if Path(target).parent in (out, tmp_path) and Path(target).name in ("out", "config.json", "merge.json"):
                places = [self.parent, out] if existed else [self]
                checked.extend(is_on_disk(path) for place in places for path in place.rglob("*") if path.is_file())
                checked.append(is_on_disk(out if existed else self))
            return move(self, target)

        return moved

    monkeypatch.setattr(os, "fsync", record)
    monkeypatch.setattr(Path, "rename", checking(rename))
    monkeypatch.setattr(Path, "replace", checking(replace))
    merge(*family, Linear(), out)
    assert len(checked) >= 9
    assert all(checked)
    last = out / "merge.json" if existed else out
    assert last in on_disk[last.parent.stat().st_ino]  # the last rename too


def test_an_error_does_not_wait_until_all_inputs_are_read(family, tmp_path, monkeypatch):
    failed, hashed = threading.Event(), []

    def hash_slowly(file):
        failed.wait(20)
        hashed.append(file)
        time.sleep(0.2)
        return ""

    def fail(*_):
        failed.set()
        raise OSError("no room")

    monkeypatch.setattr(merge_record, "_hash", hash_slowly)
    monkeypatch.setattr(stream, "check_space", fail)
    with pytest.raises(OSError, match="no room"):
        merge(*family, Linear(), tmp_path / "out", threads=1)
    assert len(hashed) < 5  # of thirteen files


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
