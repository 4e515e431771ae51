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


# landlock: rights by the version of the interface that brought them; those to read files are left alone
_WRITING = sum(1 << bit for bit in (1, 4, 5, 6, 7, 8, 9, 10, 11, 12))  # write, remove, make anything
_LATER = {2: 1 << 13, 3: 1 << 14, 5: 1 << 15}  # move between folders, truncate, device control


def install_landlock(folder: str) -> None:
    """Let nothing be written, made, moved or removed outside `folder`; from Linux 6.7 on, no TCP port is reached."""
    _linux()
    version = _check(_libc.syscall(444, None, 0, 1))
    writing = _WRITING | sum(right for since, right in _LATER.items() if version >= since)
    tcp = 3 if version >= 4 else 0  # bind, connect
    scoped = 3 if version >= 6 else 0  # abstract sockets, signals to others
    rules = struct.pack("=QQQ", writing, tcp, scoped)[: 24 if version >= 6 else 16 if version >= 4 else 8]
    ruleset = _check(_libc.syscall(444, rules, len(rules), 0))
    root = os.open(folder, os.O_PATH | os.O_CLOEXEC)
    null = os.open(os.devnull, os.O_PATH | os.O_CLOEXEC)
    _check(_libc.syscall(445, ruleset, 1, struct.pack("=Qi", writing, root), 0))
    _check(_libc.syscall(445, ruleset, 1, struct.pack("=Qi", 1 << 1, null), 0))
    _check(_libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
    _check(_libc.syscall(446, ruleset, 0))
    for descriptor in (ruleset, root, null):
        os.close(descriptor)


# calls that fail, by architecture: its number in `struct seccomp_data`, and the number of each call
_FORBIDDEN = {
    "x86_64": (0xC000003E, {
        "socket": 41, "connect": 42, "bind": 49, "listen": 50, "socketpair": 53, "fork": 57, "vfork": 58, "execve": 59,
        "kill": 62, "ptrace": 101, "pivot_root": 155, "chroot": 161, "mount": 165, "umount2": 166, "tkill": 200,
        "kexec_load": 246, "add_key": 248, "keyctl": 250, "unshare": 272, "tgkill": 234, "perf_event_open": 298,
        "setns": 308, "process_vm_readv": 310, "process_vm_writev": 311, "bpf": 321, "execveat": 322,
        "userfaultfd": 323, "pidfd_send_signal": 424, "io_uring_setup": 425, "pidfd_open": 434, "pidfd_getfd": 438,
        "setpgid": 109, "setsid": 112, "prlimit64": 302,
    }, 56, 435),
    "aarch64": (0xC00000B7, {
        "socket": 198, "socketpair": 199, "bind": 200, "listen": 201, "connect": 203, "execve": 221, "kill": 129,
        "ptrace": 117, "pivot_root": 41, "chroot": 51, "mount": 40, "umount2": 39, "tkill": 130, "kexec_load": 104,
        "add_key": 217, "keyctl": 219, "unshare": 97, "tgkill": 131, "perf_event_open": 241, "setns": 268,
        "process_vm_readv": 270, "process_vm_writev": 271, "bpf": 280, "execveat": 281, "userfaultfd": 282,
        "pidfd_send_signal": 424, "io_uring_setup": 425, "pidfd_open": 434, "pidfd_getfd": 438,
        "setpgid": 154, "setsid": 157, "prlimit64": 261,
    }, 220, 435),
}  # fmt: skip
_LOAD, _JUMP_EQUAL, _JUMP_SET, _JUMP_GREATER, _RETURN = 0x20, 0x15, 0x45, 0x35, 0x06
_ALLOW, _KILL, _FAIL, _ABSENT = 0x7FFF0000, 0x80000000, 0x00050000 | 1, 0x00050000 | 38  # EPERM, ENOSYS
_THREAD = 0x00010000  # CLONE_THREAD


def install_seccomp() -> None:
    """Forbid processes, programs, sockets, signals, tracing, mounts and other ways around; threads may be started."""
    _linux()
    forbidden = _FORBIDDEN.get(platform.machine())
    if forbidden is None:
        raise OSError(f"no list of calls for {platform.machine()}")
    program = _filter(*forbidden)
    size = len(program) // 8
    buffer = ctypes.create_string_buffer(program, len(program))
    header = struct.pack("@HxxxxxxP", size, ctypes.addressof(buffer))
    _check(_libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
    _check(_libc.prctl(PR_SET_SECCOMP, 2, ctypes.c_char_p(header), 0, 0))


def _filter(architecture: int, forbidden: dict[str, int], clone: int, clone3: int) -> bytes:
    """Build the filter in the instructions of the kernel's packet filter, each 8 bytes: code, two jumps, a value.

    `seccomp_data` begins with the number of the call (4 bytes), the architecture (4), the pointer (8), six arguments (8).
    """
    lines = [
        (_LOAD, 0, 0, 4),
        (_JUMP_EQUAL, 1, 0, architecture),
        (_RETURN, 0, 0, _KILL),
        (_LOAD, 0, 0, 0),
        (_JUMP_GREATER, 0, 1, 0x40000000),  # the x32 interface of x86-64 has other numbers for the same calls
        (_RETURN, 0, 0, _KILL),
        (_JUMP_EQUAL, 0, 1, clone3),  # its flags lie in memory where no filter sees them; libc falls back to clone
        (_RETURN, 0, 0, _ABSENT),
        (_JUMP_EQUAL, 0, 4, clone),
        (_LOAD, 0, 0, 16),
        (_JUMP_SET, 0, 1, _THREAD),
        (_RETURN, 0, 0, _ALLOW),
        (_RETURN, 0, 0, _FAIL),
    ]
    for number in forbidden.values():
        lines += [(_JUMP_EQUAL, 0, 1, number), (_RETURN, 0, 0, _FAIL)]
    lines.append((_RETURN, 0, 0, _ALLOW))
    return b"".join(struct.pack("=HBBI", *line) for line in lines)
