"""Restrictions that a Linux process can put on itself without privileges. Each function raises OSError where it cannot.

By system call, since Python has no names for these; numbers and layouts are those of the kernel's headers (linux/prctl.h,
linux/landlock.h, linux/seccomp.h, linux/filter.h).
"""

from __future__ import annotations

import ctypes
import os
import platform
import struct
import sys
from collections.abc import Sequence

import calls  # pyright: ignore[reportMissingImports]

if sys.platform == "linux":
    _libc = ctypes.CDLL(None, use_errno=True)

PR_SET_PDEATHSIG, PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP, SIGKILL = 1, 38, 22, 9


def _check(result: int) -> int:
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result


def _linux() -> None:
    if sys.platform != "linux":
        raise OSError("only Linux can do this")


def enter_namespaces() -> None:
    """Enter a user and a network namespace of its own: no devices to reach anybody by, and none of root's rights outside."""
    _linux()
    _check(_libc.prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0))  # dies with the process that waits for it
    _check(_libc.unshare(0x10000000 | 0x40000000 | 0x08000000))  # NEWUSER, NEWNET, NEWIPC


# landlock: rights by the version of the interface that brought them; to map a library is no right of its own
_READ_FILE, _READ_FOLDER = 1 << 2, 1 << 3
_WRITING = sum(1 << bit for bit in (1, 4, 5, 6, 7, 8, 9, 10, 11, 12))  # write, remove, make anything
_LATER = {2: 1 << 13, 3: 1 << 14, 5: 1 << 15}  # move between folders, truncate, device control


def install_landlock(folder: str, readable: Sequence[str]) -> None:
    """Let nothing be written, made, moved or removed outside `folder`, and nothing be read outside it and `readable`.

    From Linux 6.7 on, no TCP port is reached either.
    """
    _linux()
    version = _check(_libc.syscall(444, None, 0, 1))
    writing = _WRITING | sum(right for since, right in _LATER.items() if version >= since)
    tcp = 3 if version >= 4 else 0  # bind, connect
    scoped = 3 if version >= 6 else 0  # abstract sockets, signals to others
    everything = writing | _READ_FILE | _READ_FOLDER
    rules = struct.pack("=QQQ", everything, tcp, scoped)[: 24 if version >= 6 else 16 if version >= 4 else 8]
    ruleset = _check(_libc.syscall(444, rules, len(rules), 0))
    _allow(ruleset, folder, everything)
    _allow(ruleset, os.devnull, 1 << 1 | _READ_FILE)
    for path in [*readable, "/dev/urandom", "/dev/random", "/dev/zero"]:
        _allow(ruleset, path, _READ_FILE | (_READ_FOLDER if os.path.isdir(path) else 0))  # noqa: PTH112
    _check(_libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
    _check(_libc.syscall(446, ruleset, 0))
    os.close(ruleset)


def _allow(ruleset: int, path: str, rights: int) -> None:
    descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        _check(_libc.syscall(445, ruleset, 1, struct.pack("=Qi", rights, descriptor), 0))
    finally:
        os.close(descriptor)


_LOAD, _JUMP_EQUAL, _JUMP_SET, _JUMP_GREATER, _RETURN = 0x20, 0x15, 0x45, 0x35, 0x06
_ALLOW, _KILL, _FAIL, _ABSENT = 0x7FFF0000, 0x80000000, 0x00050000 | 1, 0x00050000 | 38  # EPERM, ENOSYS
_THREAD = 0x00010000  # CLONE_THREAD


def install_seccomp() -> None:
    """Forbid the calls of `calls.FORBIDDEN`; threads may be started."""
    _linux()
    if platform.machine() not in calls.ARCHITECTURES:
        raise OSError(f"no list of calls for {platform.machine()}")
    program = _filter(calls.ARCHITECTURES[platform.machine()])
    size = len(program) // 8
    buffer = ctypes.create_string_buffer(program, len(program))
    header = struct.pack("@HxxxxxxP", size, ctypes.addressof(buffer))
    _check(_libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
    _check(_libc.prctl(PR_SET_SECCOMP, 2, ctypes.c_char_p(header), 0, 0))


def _filter(machine: calls.CallNumbers) -> bytes:
    """Build the filter in the instructions of the kernel's packet filter, each 8 bytes: code, two jumps, a value.

    `seccomp_data` begins with the number of the call (4 bytes), the architecture (4), the pointer (8), six arguments (8).
    """
    lines = [
        (_LOAD, 0, 0, 4),
        (_JUMP_EQUAL, 1, 0, machine.audit_number),
        (_RETURN, 0, 0, _KILL),
        (_LOAD, 0, 0, 0),
        (_JUMP_GREATER, 0, 1, 0x40000000),  # the x32 interface of x86-64 has other numbers for the same calls
        (_RETURN, 0, 0, _KILL),
        (
            _JUMP_EQUAL,
            0,
            1,
            calls.CLONE3,
        ),  # its flags lie in memory where no filter sees them; libc falls back to clone
        (_RETURN, 0, 0, _ABSENT),
        (_JUMP_EQUAL, 0, 4, machine.clone),
        (_LOAD, 0, 0, 16),
        (_JUMP_SET, 0, 1, _THREAD),
        (_RETURN, 0, 0, _ALLOW),
        (_RETURN, 0, 0, _FAIL),
    ]
    lines += _pair_of_sockets(machine.forbidden["socketpair"])
    for number in machine.forbidden.values():
        lines += [(_JUMP_EQUAL, 0, 1, number), (_RETURN, 0, 0, _FAIL)]
    lines += [
        (_JUMP_EQUAL, 0, 1 + 2 * len(calls.FCNTL_FORBIDDEN), machine.fcntl),
        (_LOAD, 0, 0, 24),
    ]  # its second argument
    for command in calls.FCNTL_FORBIDDEN:
        lines += [(_JUMP_EQUAL, 0, 1, command), (_RETURN, 0, 0, _FAIL)]
    lines.append((_RETURN, 0, 0, _ALLOW))
    return b"".join(struct.pack("=HBBI", *line) for line in lines)


def _pair_of_sockets(number: int) -> list[tuple[int, int, int, int]]:
    """Let `socketpair` make two stream sockets that are connected to each other, which every event loop of asyncio needs.

    They reach nobody else: a stream has no address to send to, and connecting, binding and passing descriptors are
    forbidden. Datagrams, which could be sent to any socket of the system, are not let through.
    """
    return [
        (_JUMP_EQUAL, 0, 7, number),
        (_LOAD, 0, 0, 16),
        (_JUMP_EQUAL, 0, 4, calls.AF_UNIX),
        (_LOAD, 0, 0, 24),
        (_JUMP_EQUAL, 1, 0, calls.SOCK_STREAM),
        (_JUMP_EQUAL, 0, 1, calls.SOCK_STREAM | calls.SOCK_CLOEXEC),
        (_RETURN, 0, 0, _ALLOW),
        (_RETURN, 0, 0, _FAIL),
    ]
