"""What a program may not do: contained by Python and, without it, by the kernel; and what it may."""

import ctypes
import os
import platform
import sys
import threading
import time
from pathlib import Path

import pytest

from fusion.grading import sandbox
from fusion.grading.sandbox import Limits, containment, processes, run

SHORT = Limits(seconds=1)
has = containment()
needs = {
    name: pytest.mark.skipif(not has[name], reason=f"this kernel has no {name}")
    for name in ("namespaces", "landlock", "seccomp", "bubblewrap")
}
# past the hook: a function of libc that was resolved before the hook was there
RAW = "import sys\ncall = sys.modules['kernel']._libc.syscall\n"
NUMBERS = {
    "x86_64": {"fork": 57, "clone": 56, "clone3": 435, "socket": 41, "execve": 59, "kill": 62},
    "aarch64": {"fork": None, "clone": 220, "clone3": 435, "socket": 198, "execve": 221, "kill": 129},
}.get(platform.machine(), {})


@pytest.fixture(params=[False, pytest.param(True, marks=needs["bubblewrap"])], ids=["plain", "bubblewrap"])
def either(request, monkeypatch):
    """Once in bubblewrap, where there is one, and once without."""
    if not request.param:
        monkeypatch.setattr(processes, "bubblewrap", lambda: None)
    return request.param


@pytest.fixture
def victim(tmp_path):
    file = tmp_path / "victim.txt"
    file.write_text("still here")
    return file


@pytest.mark.parametrize(
    "program",
    [
        "assert 1 + 1 == 2",
        "open('a.txt', 'w').write('x')\nimport os\nos.remove('a.txt')",
        "import threading\nt = threading.Thread(target=print)\nt.start()\nt.join()",
        "print('much ' * 1_000_000)",
        "import os\nos.write(1, b'noise')",
        "import asyncio\nasyncio.run(asyncio.sleep(0))",
        "import tempfile\ntempfile.TemporaryFile().write(b'a')",
        "import atexit, os\n@atexit.register\ndef noise():\n    for fd in range(3, 20):\n        try: os.write(fd, b'noise')\n"
        "        except OSError: pass",
        "import numpy\nassert numpy.allclose(numpy.ones((9, 9)) @ numpy.ones((9, 9)), 9)",
        "if __name__ == '__main__':\n    import collections, heapq, itertools, math, re, string, typing",
    ],
)
def test_an_honest_program_passes(program, either):
    assert run(program) == sandbox.ProgramResult(True, "")


@pytest.mark.parametrize(
    ("program", "reason"),
    [
        ("assert 1 == 2, 'no'", "AssertionError: no"),
        ("def", "SyntaxError"),
        ("import sys\nsys.exit(0)", "SystemExit"),
        ("import os\nos._exit(0)", "ended by itself before the tests were through"),
        ("print('passed')\nraise ValueError", "ValueError"),
        ("import ctypes\nctypes.string_at(0)", "generated code may not do this|ended by itself"),
    ],
)
def test_whatever_does_not_run_to_its_end_fails(program, reason):
    outcome = run(program)
    assert not outcome.passed
    assert any(part in outcome.reason for part in reason.split("|"))


def test_an_endless_loop_ends_with_its_cpu_time():
    outcome = run("while True: pass", SHORT)
    assert outcome == sandbox.ProgramResult(False, "took longer than 1 seconds of CPU")


def test_a_sleeper_ends_with_the_wall_time():
    """In a thread, so that a sleeper that nobody ends fails this test instead of holding it up for good."""
    outcomes = []
    thread = threading.Thread(target=lambda: outcomes.append(run("import time\ntime.sleep(1000)", SHORT)), daemon=True)
    thread.start()
    thread.join(60)
    assert outcomes == [sandbox.ProgramResult(False, "took longer than 8 seconds")]


@needs["seccomp"]
def test_the_kernels_limits_are_those_that_were_asked_for(either):
    """Read by system call, since Python's own way is forbidden; the hard limit on CPU ends whoever ignores the signal."""
    limits, number = Limits(), {"x86_64": 97, "aarch64": 163}[platform.machine()]
    wanted = {
        "CPU": limits.seconds, "AS": limits.memory_bytes, "DATA": limits.memory_bytes, "FSIZE": limits.file_bytes,
        "NOFILE": limits.open_files, "CORE": 0, "NPROC": 64,
    }  # fmt: skip
    program = f"""{RAW}import resource, struct
for name, value in {wanted}.items():
    found = bytes(16)
    assert call({number}, getattr(resource, "RLIMIT_" + name), found) == 0
    soft, hard = struct.unpack("QQ", found)
    assert soft <= value and hard <= value + 1, (name, soft, hard)
"""
    assert run(program) == sandbox.ProgramResult(True, "")


def test_a_process_that_writes_without_end_is_not_read_to_its_end():
    with processes.subprocess.Popen(["yes"], stdout=processes.subprocess.PIPE, bufsize=0) as popen:
        data = processes.last_message(processes.Process(popen, "/nonexistent", SHORT), [])
        popen.kill()
    assert processes.VERDICT_BYTES < len(data) <= 3 * processes.VERDICT_BYTES


SLEEPER = """
from fusion.grading.sandbox import processes, run
if {plain}: processes.bubblewrap = lambda: None
run("import time\\ntime.sleep(100)")
"""


def children(pid):
    """Processes below a process, as the kernel lists them."""
    below = [int(child) for file in Path(f"/proc/{pid}/task").glob("*/children") for child in file.read_text().split()]
    return [*below, *(grandchild for child in below for grandchild in children(child))]


def until(condition, seconds=60):
    """Wait until something holds, so long at most; return whether it does."""
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.1)
    return bool(condition())


def is_running(pid):
    try:
        return ") Z " not in Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False


@needs["namespaces"]
def test_a_program_ends_with_whoever_runs_it(either):
    with processes.subprocess.Popen([sys.executable, "-c", SLEEPER.format(plain=not either)]) as popen:
        assert until(lambda: len(children(popen.pid)) > (1 if either else 0))
        time.sleep(2)  # it must have contained itself
        below = children(popen.pid)
        popen.kill()
    ended = until(lambda: not any(map(is_running, below)), 30)
    for pid in filter(is_running, below):
        os.kill(pid, 9)
    assert ended


def test_ten_gigabytes_are_refused():
    assert run("x = bytearray(10 * 2**30)").reason.startswith("MemoryError")


def test_a_large_file_is_refused():
    assert "File too large" in run("open('a', 'w').write('x' * 10**7)").reason


def test_too_many_open_files_are_refused():
    assert "Too many open files" in run("files = [open('a', 'w') for _ in range(100)]").reason


def test_a_fork_bomb_makes_no_process():
    before = sum(entry.name.isdigit() for entry in os.scandir("/proc")) if sys.platform == "linux" else 0
    assert "may not do this: os.fork" in run("import os\nwhile True: os.fork()", SHORT).reason
    assert not run("import subprocess\nwhile True: subprocess.Popen(['sleep', '60'])", SHORT).passed
    assert not run("import multiprocessing\nmultiprocessing.Process(target=print).start()", SHORT).passed
    after = sum(entry.name.isdigit() for entry in os.scandir("/proc")) if sys.platform == "linux" else 0
    assert after - before < 50


@pytest.mark.parametrize(
    "program",
    [
        "import os\nos.remove({path!r})",
        "import os\nos.truncate({path!r}, 0)",
        "import os\nos.rename({path!r}, 'mine')",
        "import pathlib\npathlib.Path({path!r}).unlink()",
        "import shutil\nshutil.rmtree({folder!r})",
        "open({path!r}, 'w')",
        "open({path!r}, 'a')",
        "import os\nos.open({path!r}, os.O_RDWR)",
        "import os\nos.symlink({path!r}, 'link')\nopen('link', 'w')",
        "import os\nos.mkdir({folder!r} + '/new')",
    ],
)
def test_files_outside_stay_as_they_are(victim, program, either):
    outcome = run(program.format(path=str(victim), folder=str(victim.parent)))
    assert "generated code may not" in outcome.reason
    assert [file.name for file in victim.parent.iterdir()] == ["victim.txt"]
    assert victim.read_text() == "still here"


@pytest.mark.parametrize(
    "program",
    [
        "import socket\nsocket.socket()",
        "import socket\nsocket.create_connection(('127.0.0.1', 80))",
        "import urllib.request\nurllib.request.urlopen('http://127.0.0.1')",
        "import os\nos.kill(os.getppid(), 9)",
        "import os\nos.system('true')",
        "import ctypes\nctypes.CDLL(None)",
        "import socket\nsocket.socket(socket.AF_UNIX)",
        "import socket\nsocket.socketpair(type=socket.SOCK_DGRAM)",
        "import socket\nsocket.socketpair()[0].connect('/run/a')",
        "import socket\nsocket.send_fds(socket.socketpair()[0], [b'x'], [1])",
        "import asyncio\nasyncio.run(asyncio.open_connection('127.0.0.1', 80))",
    ],
)
def test_the_way_out_is_closed(program):
    outcome = run(program)
    assert not outcome.passed
    assert "Error" in outcome.reason


@needs["landlock"]
def test_the_kernel_alone_keeps_files(victim, monkeypatch):
    monkeypatch.setattr(processes, "bubblewrap", lambda: None)
    number = {"x86_64": 87, "aarch64": None}.get(platform.machine())
    if number is None:
        pytest.skip("no unlink with a path alone on this architecture")
    path = os.fsencode(victim)
    assert run(RAW + f"assert call({number}, {path!r}) == -1", SHORT).passed
    assert run(RAW + f"assert call(2, {path!r}, 1, 0) == -1", SHORT).passed  # open for writing
    assert victim.read_text() == "still here"


ARGUMENTS = {  # with which the call would succeed, so that the test can fail
    "fork": "",
    "clone": "17, 0, 0, 0, 0",
    "clone3": "bytes(32) + (17).to_bytes(8, 'little') + bytes(24), 64",
    "socket": "2, 1, 0",
    "execve": "b'/bin/true', 0, 0",
    "kill": "os.getpid(), 0",
}


@needs["seccomp"]
@pytest.mark.parametrize("name", NUMBERS)
def test_the_kernel_alone_forbids_processes_sockets_and_signals(name):
    if NUMBERS[name] is None:
        pytest.skip("this architecture has no such call")
    program = f"{RAW}import os\nassert call({NUMBERS[name]}, {ARGUMENTS[name]}) == -1"
    assert run(program, SHORT) == sandbox.ProgramResult(True, "")


@needs["seccomp"]
def test_a_wrong_number_in_the_list_of_calls_would_show():
    """The same calls work without the filter, so that the test above can fail."""
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.syscall(NUMBERS["socket"], 2, 1, 0) >= 0
    assert libc.syscall(NUMBERS["kill"], os.getpid(), 0) == 0


def test_nothing_of_our_environment_is_seen(monkeypatch):
    monkeypatch.setenv("SECRET_TOKEN", "abc")
    assert run("import os\nassert 'SECRET_TOKEN' not in os.environ").passed


def test_a_program_cannot_claim_to_have_passed_without_the_secret():
    program = """
import os, json
verdict = json.dumps(["verdict", {"passed": True, "reason": "", "secret": ""}]).encode()
for fd in range(30):
    try: os.write(fd, len(verdict).to_bytes(4, "big") + verdict)
    except OSError: pass
os._exit(0)
"""
    assert run(program) == sandbox.ProgramResult(False, "ended by itself before the tests were through (exit code 0)")


def test_the_folder_is_gone_afterwards():
    reason = run("import os\nraise ValueError(os.getcwd())").reason
    assert reason.startswith("ValueError: ")
    assert not Path(reason.removeprefix("ValueError: ")).exists()


def test_the_statement_says_what_is_held_back_and_what_is_missing(monkeypatch):
    parts = dict.fromkeys(("rlimits", "namespaces", "landlock", "seccomp", "audit_hook", "bubblewrap"), True)
    monkeypatch.setattr(sandbox, "containment", lambda: parts)
    assert "cannot write outside its folder, read anything but" in sandbox.describe_containment()
    assert "sees no other files or processes (bubblewrap)" in sandbox.describe_containment()
    monkeypatch.setattr(sandbox, "containment", lambda: parts | {"bubblewrap": False})
    assert "that other files exist" in sandbox.describe_containment()
    assert "install bubblewrap" in sandbox.describe_containment()
    monkeypatch.setattr(sandbox, "containment", lambda: parts | {"seccomp": False, "landlock": False})
    assert "lacks: landlock, seccomp" in sandbox.describe_containment()
    assert "container" in sandbox.describe_containment()


def test_where_no_process_starts_the_machine_is_named(monkeypatch):
    containment.cache_clear()
    monkeypatch.setattr(sandbox, "probe", lambda bwrap: b"")
    with pytest.raises(RuntimeError, match="does not start on this machine"):
        containment()
