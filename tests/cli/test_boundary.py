"""What becomes of an error: a sentence where a user can mend it, a traceback and a word about it where the bug is ours."""

import errno
import os
import signal
import subprocess
import sys
import threading

import pytest
import torch

from fusion import cli
from fusion.cli import boundary, recipes
from fusion.config import recipes as packaged
from fusion.core import yaml_files
from fusion.runtime import console


def failing_with(error):
    def fail(*_, **__):
        raise error

    return fail


@pytest.fixture
def ending(monkeypatch, capsys):
    """Run `fusion recipes` where an error arises deep inside; return exit status and standard error."""

    def run(error):
        monkeypatch.setattr(packaged, "recipes", failing_with(error))
        monkeypatch.setattr(sys, "argv", ["fusion", "recipes"])
        status = cli.run()
        return status, capsys.readouterr().err

    return run


@pytest.mark.parametrize(
    "error",
    [
        KeyError("role"), ValueError("not foreseen"), IndexError("list index out of range"), TypeError("NoneType"),
        AttributeError("no attribute"), AssertionError(), RuntimeError("shapes"), ZeroDivisionError(), EOFError("ended"),
    ],
)  # fmt: skip
def test_a_bug_of_ours_shows_its_traceback_and_that_it_is_one(ending, error):
    status, said = ending(error)
    assert status == 1
    assert "Traceback" in said
    assert type(error).__name__ in said
    assert "in fail" in said  # the place
    assert said.rstrip().endswith(boundary.BUG)


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "/runs/a"), "/runs/a: No space left on device. Free some space"),
        (PermissionError(errno.EACCES, "Permission denied", "/runs/a"), "/runs/a: Permission denied. Give yourself"),
        (OSError(errno.EFBIG, "File too large"), "File too large. Raise the limit"),
        (ConnectionError("hub.example is not reached"), "hub.example is not reached. Check the path, the network"),
        (MemoryError("cannot allocate"), "The memory does not suffice: cannot allocate. Lower extract.batch_tokens"),
        *(
            (error, f"Another process of this run ended or cannot be reached: {error}")
            for error in [
                RuntimeError("[/gloo/transport/tcp/pair.cc:534] Connection closed by peer [127.0.0.1]:4321."),
                RuntimeError("[/gloo/transport/tcp/pair.cc:547] Connection reset by peer."),
                torch.distributed.DistNetworkError("failed to recv, got 0 bytes."),
                torch.distributed.DistBackendError("NCCL error: remote process exited or there was a network error."),
            ]
        ),
        (torch.OutOfMemoryError("CUDA out of memory."), "The memory does not suffice: CUDA out of memory. Lower"),
    ],
)  # fmt: skip
def test_what_disk_memory_and_network_refuse_is_a_sentence_with_a_way_out(ending, error, message):
    status, said = ending(error)
    assert (status, said.count("\n")) == (1, 1)
    assert said.startswith(f"Error: {message}")


def test_a_message_of_our_own_is_a_sentence_and_one_of_a_library_in_the_same_place_is_not(tmp_path):
    file = tmp_path / "list.yaml"
    file.write_text("- 1")
    with pytest.raises(ValueError) as ours:
        yaml_files.read_yaml(file)
    assert boundary.user_message(ours.value) == f"{file} should hold keys and values, it holds list."
    with pytest.raises(ValueError) as libraries:
        recipes.json.loads("{")
    assert boundary.user_message(libraries.value) is None


def test_control_characters_of_a_file_do_not_reach_the_terminal(ending):
    _, said = ending(OSError(errno.ENOENT, "No such file", "a\x1b[31m\ud800"))
    assert "a\\x1b[31m\\ud800: No such file." in said


def test_ctrl_c_says_what_is_kept_and_has_a_status_of_its_own(ending):
    status, said = ending(KeyboardInterrupt())
    assert status == 130
    assert "run the same command again" in said
    assert "Traceback" not in said


def test_a_reader_who_has_had_enough_is_no_error(ending):
    assert ending(BrokenPipeError(errno.EPIPE, "Broken pipe")) == (1, "")
    command = f"{sys.executable} -m fusion schema | head -n 1; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("{\n", "")


def test_an_error_gives_the_cursor_back_that_a_training_bar_hid(ending, monkeypatch):
    calls = []
    monkeypatch.setattr(console.console, "show_cursor", calls.append)
    monkeypatch.setattr(console, "draws_bars", lambda: True)
    (bar,) = console.training_bar("unified")
    state = type("State", (), {"is_world_process_zero": True, "max_steps": 3, "global_step": 0})()
    bar.on_train_begin(None, state, None)
    ending(RuntimeError("in the middle"))
    assert not bar.progress.live.is_started
    assert calls[-1] is True


def test_a_process_among_several_names_itself(ending, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "4")
    monkeypatch.setenv("RANK", "2")
    assert ending(OSError(errno.EIO, "Input/output error", "x"))[1].startswith("Error in process 2: x: ")
    assert f"Error in process 2: {boundary.BUG}" in ending(KeyError("x"))[1]


def test_a_process_that_is_interrupted_while_it_works_ends_with_130():
    lines = [
        "import signal, time",
        "signal.signal(signal.SIGINT, signal.default_int_handler)",  # which a shell's background job has not
        "from fusion import cli",
        "from fusion.config import recipes",
        "recipes.recipes = lambda: (print('x', flush=True), time.sleep(60))",
        "cli.main()",
    ]
    child = subprocess.Popen(
        [sys.executable, "-c", "\n".join(lines), "recipes"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
    )  # fmt: skip
    assert child.stdout.readline() == "x\n"
    child.send_signal(signal.SIGINT)
    _, said = child.communicate(timeout=60)
    assert (child.returncode, said) == (130, f"{boundary.STOPPED}\n")


def test_a_full_disk_in_a_thread_of_a_library_is_a_sentence_and_a_bug_there_is_not(capsys, monkeypatch):
    monkeypatch.setattr(threading, "excepthook", boundary.tell_of_thread)
    for error in (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), KeyError("absent")):
        thread = threading.Thread(target=failing_with(error))
        thread.start()
        thread.join()
        said = capsys.readouterr().err
        assert ("Traceback" in said) == isinstance(error, KeyError)
        assert ("No space left on device" in said) == isinstance(error, OSError)


def test_the_command_line_speaks_for_threads(ending, monkeypatch):
    monkeypatch.setattr(threading, "excepthook", threading.__excepthook__)
    ending(ValueError("any"))
    assert threading.excepthook is boundary.tell_of_thread
