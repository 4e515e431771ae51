"""Locks of outputs: one at a time, whoever else comes learns who has it, and the dead hold nothing."""

import errno
import json
import os
import signal
import subprocess
import sys
import threading

import pytest

from fusion.runtime import locks
from fusion.runtime.locks import exclusive

HOLD = (
    "import sys, time; from pathlib import Path; from fusion.runtime.locks import exclusive\n"
    "with exclusive(Path(sys.argv[1]), 'out'): print('held', flush=True); time.sleep(60)\n"
)


@pytest.fixture
def holder(tmp_path):
    """Another process that holds the lock."""
    process = subprocess.Popen([sys.executable, "-c", HOLD, tmp_path / "lock"], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()


def test_the_second_learns_which_process_holds_it_where_and_since_when(holder, tmp_path):
    sentence = (
        rf"out is being written by process {holder.pid} on {os.uname().nodename} since 20\d\d-\S+ \S+; wait until"
    )
    with pytest.raises(BlockingIOError, match=sentence), exclusive(tmp_path / "lock", "out"):
        pytest.fail("two have it")
    assert json.loads((tmp_path / "lock").read_text())["pid"] == holder.pid


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_what_a_dead_process_left_blocks_nobody(holder, tmp_path, how):
    holder.send_signal(how)
    holder.wait()
    assert (tmp_path / "lock").exists()
    with exclusive(tmp_path / "lock", "out"):
        assert json.loads((tmp_path / "lock").read_text())["pid"] == os.getpid()
    assert not (tmp_path / "lock").exists()


def test_a_thread_may_enter_its_own_lock_again_and_another_thread_may_not(tmp_path):
    refused = []

    def other():
        with pytest.raises(BlockingIOError, match=f"process {os.getpid()} "), exclusive(tmp_path / "lock", "out"):
            refused.append(False)
        refused.append(True)

    with exclusive(tmp_path / "lock", "out"):
        with exclusive(tmp_path / "lock", "out"):
            pass
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
    assert refused == [True]


def test_a_lock_that_is_removed_while_one_waits_to_open_it_is_not_held_by_two(tmp_path, monkeypatch):
    once, opened = locks._lock, []

    def late(handle, lock, guarded):
        if not opened:
            lock.unlink()  # as its holder does when it ends
        opened.append(handle)
        once(handle, lock, guarded)

    monkeypatch.setattr(locks, "_lock", late)
    with exclusive(tmp_path / "lock", "out"):
        assert len(opened) == 2
        assert json.loads((tmp_path / "lock").read_text())["pid"] == os.getpid()


def test_folders_that_are_made_for_a_lock_go_with_it_unless_they_are_used(tmp_path):
    with exclusive(tmp_path / "a/b/lock", "out"):
        pass
    assert not (tmp_path / "a").exists()
    with exclusive(tmp_path / "a/b/lock", "out"):
        (tmp_path / "a/mine").touch()
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["mine"]


def test_a_disk_without_locks_is_said_and_one_that_fails_is_an_error(tmp_path, monkeypatch, capsys):
    def fail_with(number):
        def fail(handle, how):
            raise OSError(number, os.strerror(number))

        monkeypatch.setattr(locks.fcntl, "flock", fail)

    fail_with(errno.ENOLCK)
    with exclusive(tmp_path / "lock", "the folder out"):
        assert "has no file locks: see to it that nothing else writes the folder out" in capsys.readouterr().out
    fail_with(errno.EIO)
    with pytest.raises(OSError, match="Input/output error"), exclusive(tmp_path / "lock", "out"):
        pytest.fail("it is held")


def test_whoever_waits_for_a_lock_says_for_whom_and_gets_it(holder, tmp_path, monkeypatch):
    said = []
    monkeypatch.setattr(locks, "SECONDS_BETWEEN_NOTES", 0)
    monkeypatch.setattr(locks, "show", lambda lines: [said.extend(lines), holder.kill()])
    with exclusive(tmp_path / "lock", "out", wait=True):
        assert f"out is being written by process {holder.pid} on " in said[0]
        assert "waiting until that ends" in said[0]
