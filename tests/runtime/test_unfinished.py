"""What processes leave unfinished: removed when the process is dead, never while it lives, never another machine's."""

import os
import signal
import subprocess
import sys

import pytest

from fusion.runtime import unfinished
from fusion.runtime.artifacts import write_text
from fusion.runtime.unfinished import (
    remove_abandoned,
    remove_abandoned_below,
    temporary_folder,
    unfinished_file,
    unfinished_path,
)

CODE = """
import sys
from pathlib import Path
from fusion.runtime.unfinished import temporary_folder, unfinished_file, unfinished_path
folder = Path(sys.argv[1])
with unfinished_file(folder / "a.json") as file, unfinished_path(folder / "b") as path, temporary_folder("fusion-x-") as temp:
    file.write_text("half"), path.mkdir(), (path / "c").touch(), (temp / "d").touch()
    with unfinished_path(folder / "e") as other:
        other.write_text("half"), print(flush=True), input()
"""


def start(folder):
    command, environment = [sys.executable, "-c", CODE, str(folder)], os.environ | {"TMPDIR": str(folder)}
    process = subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    process.stdout.readline()
    return process


def end(process):
    process.send_signal(signal.SIGKILL)
    process.communicate()


def test_what_a_dead_process_left_is_removed_and_what_a_living_one_writes_is_not(tmp_path):
    process = start(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    assert len(before) == 9
    remove_abandoned_below(tmp_path)
    assert sorted(tmp_path.rglob("*")) == before
    end(process)
    assert sorted(tmp_path.rglob("*")) == before
    remove_abandoned_below(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_an_old_file_of_a_living_process_stays(tmp_path):
    with unfinished_file(tmp_path / "a") as file:
        os.utime(file, (0, 0))
        remove_abandoned(tmp_path)
        assert file.exists()
        sweep = f"remove_abandoned(Path({str(tmp_path)!r}))"
        words = f"from pathlib import Path; from fusion.runtime.unfinished import remove_abandoned; {sweep}"
        subprocess.run([sys.executable, "-c", words], check=True)
        assert file.exists()


def test_what_another_machine_left_stays(tmp_path, monkeypatch):
    end(start(tmp_path))
    before = sorted(tmp_path.rglob("*"))
    monkeypatch.setattr("socket.gethostname", lambda: "another")
    remove_abandoned_below(tmp_path)
    assert sorted(tmp_path.rglob("*")) == before


def test_files_of_other_programs_stay(tmp_path):
    for name in ("film.part", "a.part", f"x.{unfinished.host()}.part"):
        (tmp_path / name).touch()
    remove_abandoned_below(tmp_path)
    assert len(list(tmp_path.iterdir())) == 3


def test_where_there_are_no_locks_everything_is_written_and_nothing_removed(tmp_path, monkeypatch):
    end(start(tmp_path))
    monkeypatch.setattr(unfinished, "fcntl", None)
    before = sorted(tmp_path.rglob("*"))
    remove_abandoned_below(tmp_path)
    write_text(tmp_path / "text", "whole")
    assert sorted(tmp_path.rglob("*")) == sorted([*before, tmp_path / "text"])


def test_a_link_that_somebody_put_in_the_place_of_a_folder_is_not_followed(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/file").touch()
    token = tmp_path / f".b.{unfinished.host()}-00000000.part"
    token.touch()
    token.with_suffix("").symlink_to(tmp_path / "mine")
    remove_abandoned(tmp_path)
    assert (tmp_path / "mine/file").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


MAKERS = {
    "a file": lambda folder: unfinished_file(folder / "a"),
    "a folder": lambda folder: unfinished_path(folder / "a"),
    "a file that a library puts there": lambda folder: unfinished_path(folder / "a"),
    "a temporary folder": lambda _: temporary_folder("x-"),
}


@pytest.mark.parametrize("what", MAKERS)
def test_nothing_is_left_after_an_error(what, tmp_path, monkeypatch):
    def fail(path):
        path.mkdir(exist_ok=True) if "file" not in what else path.write_text("half")
        raise ValueError("broken")

    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with pytest.raises(ValueError, match="broken"), MAKERS[what](tmp_path) as path:
        fail(path)
    assert list(tmp_path.iterdir()) == []


def test_a_new_temporary_folder_sweeps_those_of_dead_processes(tmp_path, monkeypatch):
    end(start(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with temporary_folder("fusion-x-") as folder:
        assert [path for path in tmp_path.glob("fusion-x-*") if path.is_dir()] == [folder]
        assert folder.stat().st_mode & 0o777 == 0o700
