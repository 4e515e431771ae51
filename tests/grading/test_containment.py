"""What a program could do to others without writing a file: attributes, priorities, signals, reading, filling the disk.

Each is tried in Python, and by system call past the hook inside Python, without bubblewrap unless it says so.
"""

import os
import platform
import shutil
from contextlib import contextmanager
from pathlib import Path

import pytest

from fusion.grading import sandbox
from fusion.grading.sandbox import Limits, containment, processes, run
from fusion.grading.sandbox.calls import ARCHITECTURES

SHORT = Limits(seconds=5)
has = containment()
linux = pytest.mark.skipif(
    platform.machine() not in ARCHITECTURES or not has["seccomp"], reason="no filter of calls here"
)
landlock = pytest.mark.skipif(not has["landlock"], reason="this kernel has no landlock")
bubblewrap = pytest.mark.skipif(not has["bubblewrap"], reason="bubblewrap is not installed, or may not make namespaces")
NUMBERS = {  # of the kernel's headers, once more, so that one that is missing or wrong in our list shows
    "x86_64": {
        "openat": 257, "chmod": 90, "fchmod": 91, "chown": 92, "fchown": 93, "setxattr": 188, "fsetxattr": 190, "utimes": 235,
        "fchownat": 260, "fchmodat": 268, "utimensat": 280, "fchmodat2": 452,
    },
    "aarch64": {
        "openat": 56, "fchmod": 52, "fchmodat": 53, "fchownat": 54, "fchown": 55, "setxattr": 5, "fsetxattr": 7,
        "utimensat": 88, "fchmodat2": 452,
    },
}.get(platform.machine(), {})  # fmt: skip
RAW = "import sys, os\ncall = sys.modules['kernel']._libc.syscall\n"
TIMES = repr((1).to_bytes(8, "little") * 4)


@pytest.fixture
def plain(monkeypatch):
    """Without bubblewrap."""
    monkeypatch.setattr(processes, "bubblewrap", lambda: None)


@pytest.fixture
def victim(tmp_path, plain, monkeypatch):
    """A file outside, of a folder that may be read, so that it can be opened."""
    file = tmp_path / "victim.txt"
    file.write_text("still here")
    readable = [*processes.readable(), str(tmp_path)]
    monkeypatch.setattr(processes, "readable", lambda: readable)
    return file


def state(file):
    found = file.stat()
    attributes = os.listxattr(file) if hasattr(os, "listxattr") else []
    return found.st_mode, found.st_mtime_ns, found.st_uid, found.st_gid, attributes, file.read_text()


@linux
@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("fchmod", "file, 0o777"),
        ("fchmodat", "folder, name, 0o777, 0"),
        ("fchmodat2", "folder, name, 0o777, 0"),
        ("fchown", "file, -1, -1"),
        ("fchownat", "folder, name, -1, -1, 0"),
        ("utimensat", f"folder, name, {TIMES}, 0"),
        ("utimensat", f"file, None, {TIMES}, 0"),
        ("fsetxattr", "file, b'user.a', b'1', 1, 0"),
        ("setxattr", "path, b'user.a', b'1', 1, 0"),
        ("chmod", "path, 0o777"),
        ("chown", "path, -1, -1"),
        ("utimes", f"path, {TIMES}"),
    ],
)
def test_the_kernel_keeps_modes_owners_times_and_attributes(name, arguments, victim):
    if name not in NUMBERS:
        pytest.skip("this architecture has no such call")
    before = state(victim)
    opened = f"path, name = {os.fsencode(victim)!r}, {os.fsencode(victim.name)!r}\n"
    opened += "folder, file = os.open(os.path.dirname(path), 0), os.open(path, 0)\n"
    assert run(f"{RAW}{opened}assert call({NUMBERS[name]}, {arguments}) == -1", SHORT) == sandbox.ProgramResult(
        True, ""
    )
    assert state(victim) == before


@pytest.mark.parametrize(
    "change",
    [
        "os.chmod(file, 0o777)",
        "os.fchmod(file, 0o777)",
        "os.utime(file, (1, 1))",
        "os.chown(file, 1, 1)",
        "os.fchown(file, 1, 1)",
        "os.setxattr(file, 'user.a', b'1')",
        "os.chmod(name, 0o777, dir_fd=folder)",
        "os.utime(name, (1, 1), dir_fd=folder)",
        "os.chown(name, 1, 1, dir_fd=folder)",
        "os.remove(name, dir_fd=folder)",
        "os.rename(name, 'b', src_dir_fd=folder, dst_dir_fd=folder)",
        "os.rename('a', name, dst_dir_fd=folder)",
        "os.link('a', 'b', dst_dir_fd=folder)",
        "os.symlink('a', 'b', dir_fd=folder)",
        "os.mkdir('b', dir_fd=folder)",
    ],
)
def test_the_hook_keeps_what_is_reached_by_a_descriptor_too(change, victim):
    before = state(victim)
    opened = (
        f"name = {victim.name!r}\nfolder = os.open({str(victim.parent)!r}, 0)\nfile = os.open({str(victim)!r}, 0)\n"
    )
    assert "generated code may not do this" in run(f"import os\n{opened}open('a', 'w')\n{change}", SHORT).reason
    assert state(victim) == before
    assert [file.name for file in victim.parent.iterdir()] == ["victim.txt"]


def test_folders_of_its_own_may_be_made_and_removed_by_a_descriptor(plain):
    assert run(
        "import tempfile, os\nwith tempfile.TemporaryDirectory() as a:\n    os.mkdir(a + '/b')\n    open(a + '/b/c', 'w')"
    ).passed


@linux
@pytest.mark.parametrize(
    "program",
    [
        "import os\nos.setpriority(os.PRIO_PROCESS, OTHER, 19)",
        "import os\nos.sched_setaffinity(OTHER, [0])",
        "import os\nos.sched_setscheduler(OTHER, os.SCHED_BATCH, os.sched_param(0))",
        "import os, fcntl\nfcntl.fcntl(os.pipe()[0], fcntl.F_SETOWN, os.getppid())",
        "import os, fcntl\nfcntl.fcntl(os.pipe()[0], fcntl.F_SETSIG, 9)",
    ],
)
def test_priorities_processors_and_signals_of_others_stay(program, plain):
    program = program.replace("OTHER", str(os.getpid()))
    before = os.getpriority(os.PRIO_PROCESS, 0), os.sched_getaffinity(0), os.sched_getscheduler(0)
    assert "Operation not permitted" in run(program, SHORT).reason
    assert (os.getpriority(os.PRIO_PROCESS, 0), os.sched_getaffinity(0), os.sched_getscheduler(0)) == before


@linux
def test_other_commands_of_fcntl_go_through(plain):
    assert run(
        "import fcntl\nfile = open('a', 'w')\nfcntl.fcntl(file, fcntl.F_GETFL)\nfcntl.lockf(file, fcntl.LOCK_EX)"
    ).passed


@pytest.mark.parametrize(
    "program", ["open({path!r}).read()", "import os\nos.listdir({folder!r})", "import os\nos.open({path!r}, 0)"]
)
def test_files_of_others_are_not_read(program, tmp_path, plain):
    (tmp_path / "key").write_text("secret")
    assert "may not read" in run(program.format(path=str(tmp_path / "key"), folder=str(tmp_path)), SHORT).reason


@linux
@landlock
@pytest.mark.parametrize("path", [str(Path("~").expanduser()), "/proc/self/environ", "/etc/passwd", __file__])
def test_the_kernel_alone_lets_home_processes_and_accounts_not_be_read(path, plain):
    assert run(f"{RAW}assert call({NUMBERS['openat']}, -100, {os.fsencode(path)!r}, 0, 0) == -1").passed


@linux
@landlock
def test_the_kernel_lets_libraries_be_read(plain):
    path = os.fsencode(os.__file__)
    assert run(f"{RAW}assert call({NUMBERS['openat']}, -100, {path!r}, 0, 0) >= 0").passed


@pytest.mark.skipif(not has["namespaces"], reason="this kernel has no namespaces for everybody")
@pytest.mark.parametrize("kind", ["net", "user", "ipc"])
def test_namespaces_are_its_own(kind, plain):
    ours = str(Path(f"/proc/self/ns/{kind}").readlink())
    assert run(f"import os\nassert os.readlink('/proc/self/ns/{kind}') not in ({ours!r}, '')").passed


@bubblewrap
def test_in_bubblewrap_other_files_and_processes_are_not_even_there(tmp_path):
    (tmp_path / "a").write_text("a")
    for path in (str(tmp_path / "a"), "/etc/passwd", __file__, f"/proc/{os.getpid()}"):
        assert run(f"import os\nassert not os.path.exists({path!r})") == sandbox.ProgramResult(True, "")
    assert run("import os\nassert os.getpid() < 10").passed


@bubblewrap
@linux
def test_in_bubblewrap_it_has_no_rights_of_root():
    number = {"x86_64": 125, "aarch64": 90}[platform.machine()]  # capget: effective, permitted and inheritable rights
    program = (
        f"{RAW}head, rights = (0x20080522).to_bytes(8, 'little'), bytes(24)\nassert call({number}, head, rights) == 0\n"
    )
    assert run(program + "assert not any(rights[:4] + rights[12:16]), rights") == sandbox.ProgramResult(True, "")


FILL = "import os\nfor i in range(300):\n    open(str(i), 'wb').write(b'x' * 2 ** 20)\n    {pause}\n"


def test_a_folder_that_grows_too_large_ends_the_program(plain):
    result = run(FILL.format(pause="__import__('time').sleep(0.02)"), Limits(seconds=60))
    assert result == sandbox.ProgramResult(
        False, f"wrote more than {2**24} bytes of files, or where they cannot be counted"
    )


def test_many_small_files_end_the_program_too(plain):
    program = "import time\nfor i in range(5000):\n    open(str(i), 'w')\ntime.sleep(5)"  # it ends by itself otherwise
    assert run(program, Limits(seconds=60)).reason.startswith(f"wrote more than {2**24} bytes of files")


@bubblewrap
def test_in_bubblewrap_the_folder_has_no_more_room():
    assert "No space left on device" in run(FILL.format(pause="")).reason


def test_folders_in_folders_without_end_are_removed(plain, monkeypatch):
    made, make = [], processes.temporary_folder

    @contextmanager
    def recorded(prefix):
        with make(prefix) as folder:
            made.append(folder)
            yield folder

    monkeypatch.setattr(processes, "temporary_folder", recorded)
    run("import os\nfor _ in range(3000):\n    os.mkdir('a')\n    os.chdir('a')")
    assert made
    assert not any(map(os.path.exists, made))


@pytest.mark.skipif(not (shutil.which("bwrap") and has["namespaces"]), reason="bubblewrap cannot work here")
def test_bubblewrap_is_used_where_it_is_installed_and_works():
    works = processes.subprocess.run(["bwrap", "--unshare-all", "--ro-bind", "/", "/", "true"], check=False)
    assert has["bubblewrap"] == (works.returncode == 0)


def test_without_bubblewrap_installed_it_is_not_used(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    processes.bubblewrap.cache_clear()
    assert processes.bubblewrap() is None
    processes.bubblewrap.cache_clear()


def test_a_bubblewrap_that_may_not_make_namespaces_is_not_used(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: "/bin/false")
    processes.bubblewrap.cache_clear()
    assert processes.bubblewrap() is None
    processes.bubblewrap.cache_clear()
