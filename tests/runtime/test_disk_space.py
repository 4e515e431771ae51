"""What is said where something does not fit on a disk."""

import errno
import os
import shutil

import pytest

from fusion.runtime import disk_space
from fusion.runtime.disk_space import check_space, explaining_full_disk, gigabytes, written_bytes


@pytest.fixture
def disk(monkeypatch):
    """A disk of 10 GB with 2 GB free."""
    monkeypatch.setattr(
        disk_space.shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**10, 8 * 10**9, 2 * 10**9)
    )
    return monkeypatch


def test_what_does_not_fit_is_refused_with_what_is_needed_free_and_missing(disk, tmp_path):
    check_space(tmp_path / "out", 2 * 10**9, "the model")
    with pytest.raises(
        OSError, match=rf"{tmp_path} has 2.0 GB free, the model takes 5.0 GB: 3.0 GB are missing. Free some"
    ):
        check_space(tmp_path / "a/out", 5 * 10**9, "the model")
    disk.setattr(disk_space.shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(0, 0, 0))
    check_space(tmp_path / "out", 5 * 10**9, "the model")  # a disk that does not say its size


def test_what_is_written_already_is_not_asked_for_again_and_holes_are_not_written(disk, tmp_path):
    (tmp_path / "out").mkdir()
    with (tmp_path / "out/hole").open("wb") as file:
        file.truncate(10**6)
    assert written_bytes(tmp_path / "out") == 0
    (tmp_path / "out/full").write_bytes(bytes(range(1, 256)) * 4096)
    written = written_bytes(tmp_path / "out")
    assert 10**6 < written < 1.1 * 10**6
    check_space(tmp_path / "out", 2 * 10**9 + written, "the model")
    with pytest.raises(OSError, match=r"takes 2.1 GB, of which 0.001\d+ GB are written: 0.09\d GB are missing"):
        check_space(tmp_path / "out", 2 * 10**9 + 10**8, "the model")


@pytest.mark.parametrize(("number", "full"), [(errno.ENOSPC, "The disk is full"), (errno.EDQUOT, "The quota is full")])
def test_a_disk_that_fills_in_the_middle_says_the_same(disk, tmp_path, number, full):
    sentence = rf"{full}. {tmp_path} has 2.0 GB free, the model takes 5.0 GB: 3.0 GB are missing. Free that"
    with (
        pytest.raises(OSError, match=sentence),
        explaining_full_disk(tmp_path / "out", 5 * 10**9, "the model", "Free that."),
    ):
        raise OSError(number, os.strerror(number))
    with (
        pytest.raises(OSError, match="Input/output"),
        explaining_full_disk(tmp_path / "out", 1, "the model", "Free that."),
    ):
        raise OSError(errno.EIO, os.strerror(errno.EIO))


def test_sizes_keep_their_digits_however_small():
    assert [gigabytes(size) for size in (123, 4 * 10**7, 5 * 10**9)] == ["0.000000123 GB", "0.040 GB", "5.0 GB"]
