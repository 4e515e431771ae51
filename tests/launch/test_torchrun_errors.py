"""torchrun whose errors are sentences: what it says and the code it ends with, against real processes."""

import re
import socket
import subprocess
import sys
import time

import pytest

from fusion_launch import torchrun

FIVE = "import sys; print('a sentence of its own'); sys.exit(5)"
DIES = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
WAITS = "import time; print('waiting', flush=True); time.sleep(60)"


@pytest.fixture
def program(tmp_path):
    """A torchrun of one process of this code."""

    def write(code):
        (tmp_path / "program.py").write_text(code)
        words = ("--standalone", "--nproc-per-node=1", str(tmp_path / "program.py"))
        return [sys.executable, "-m", "fusion_launch.torchrun", *words]

    return write


@pytest.mark.parametrize(
    ("code", "status", "message"),
    [
        (FIVE, 5, "process 0 ended with exit code 5; its own words are above."),
        (DIES, 128 + 9, "process 0 was ended by SIGKILL. Often its machine, or its job, lacked memory."),
    ],
)
def test_a_program_that_fails_is_named_by_its_process_and_code(program, code, status, message):
    done = subprocess.run(program(code), capture_output=True, text=True, check=False)
    assert (done.returncode, "Traceback" in done.stderr) == (status, False)
    assert f"Error on {socket.gethostname()}: {message}" in done.stderr


def test_a_program_that_ends_well_is_followed_by_nothing_and_what_torch_logs_in_it_is_as_ever(program):
    code = "import os; print('TORCH_CPP_LOG_LEVEL' in os.environ)"
    done = subprocess.run(program(code), capture_output=True, text=True, check=True)
    assert (done.stdout, "Error" in done.stderr) == ("False\n", False)


def test_one_that_is_stopped_says_by_what(program):
    with subprocess.Popen(program(WAITS), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "waiting\n"
        process.terminate()
        _, said = process.communicate(timeout=60)
    assert process.returncode == 128 + 15
    assert said.endswith(": stopped by SIGTERM; what was finished is kept.\n")
    assert "Traceback" not in said


def nodes(*words):
    return ["--nnodes=2", "--nproc-per-node=1", *words, "-m", "fusion"]


def endpoint(host, *words):
    return nodes("--rdzv-backend=c10d", "--rdzv-id=1", f"--rdzv-endpoint={host}", *words)


@pytest.mark.parametrize("words", [endpoint("no-such-node:29500"), nodes("--master-addr=no-such-node")])
def test_a_head_without_an_address_is_named_with_what_to_do(words, monkeypatch, capsys):
    monkeypatch.setattr(torchrun, "PATIENCE", 0.01)
    monkeypatch.setattr(torchrun, "_unknown", lambda host: "Name or service not known")
    assert torchrun.main(words) == 1
    (said,) = capsys.readouterr().err.splitlines()
    assert (
        "are to meet at no-such-node, and this machine knows no address of that name (Name or service not known)."
        in said
    )
    assert (
        "Let its DNS or /etc/hosts name it, on every node, or name another host with fusion launch --head HOST" in said
    )


def test_a_name_that_is_known_after_a_while_is_waited_for(monkeypatch):
    answers = iter(["Name or service not known", ""])
    monkeypatch.setattr(torchrun, "_unknown", lambda host: next(answers))
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    from torch.distributed.run import parse_args

    torchrun.refuse_unknown_host(parse_args(endpoint("late:29500")))
    assert next(answers, None) is None


@pytest.mark.parametrize(
    ("how", "reason"),
    [
        ("--rdzv-backend=c10d --rdzv-id=1 --rdzv-endpoint=127.0.0.1:{port} --rdzv-conf=is_host=1,join_timeout=1", ""),
        ("--rdzv-backend=c10d --rdzv-id=1 --rdzv-endpoint=127.0.0.1:{port} --rdzv-conf=is_host=0,read_timeout=1", ""),
        ("--master-addr=127.0.0.1 --master-port={port} --node-rank=1 --rdzv-conf=timeout=1", "timed out after"),
        ("--master-addr=127.0.0.1 --master-port={taken} --node-rank=0 --rdzv-conf=timeout=1", "EADDRINUSE"),
    ],
    ids=["nobody-joins", "nobody-listens", "no-master", "port-taken"],
)
def test_nodes_that_do_not_meet_are_told_where_they_were_to(how, reason):
    with socket.socket() as taken, socket.socket() as free:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        free.bind(("127.0.0.1", 0))
        ports = {"taken": taken.getsockname()[1], "port": free.getsockname()[1]}
        free.close()
        words = nodes(*how.format(**ports).split())
        command = [sys.executable, "-m", "fusion_launch.torchrun", *words]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    port = ports["taken" if "taken" in how else "port"]
    assert done.returncode == 1
    assert f"the processes of 2 nodes did not meet at 127.0.0.1:{port} (" in done.stderr
    assert reason in done.stderr
    assert "look at what the other nodes said" in done.stderr
    assert not re.search("Traceback|frame #", done.stderr), done.stderr
