"""System calls that fail for a program, by architecture: numbers of the kernel's headers (asm/unistd_64.h, asm-generic)."""

from __future__ import annotations

from typing import NamedTuple

CLONE3 = 435
FCNTL_FORBIDDEN = (8, 10, 15)
"""F_SETOWN, F_SETSIG, F_SETOWN_EX: have the kernel send signals to others."""
AF_UNIX, SOCK_STREAM, SOCK_CLOEXEC = 1, 1, 0o2000000
"""Of `socketpair`: between processes of one machine, a connection, closed where a program is started."""


class CallNumbers(NamedTuple):
    """What the filter must know of a machine."""

    audit_number: int
    """As it stands in `struct seccomp_data`."""
    clone: int
    fcntl: int
    forbidden: dict[str, int]


# processes and programs, sockets, signals, debugging, namespaces and mounts; then the newer calls with one number everywhere
_EVERYWHERE = {
    "pidfd_send_signal": 424, "io_uring_setup": 425, "open_tree": 428, "move_mount": 429, "fsopen": 430, "fsconfig": 431,
    "fsmount": 432, "fspick": 433, "pidfd_open": 434, "pidfd_getfd": 438, "process_madvise": 440, "mount_setattr": 442,
    "process_mrelease": 448, "fchmodat2": 452, "setxattrat": 463, "removexattrat": 466, "open_tree_attr": 467,
    "file_setattr": 469,
}  # fmt: skip
_X86_64 = {
    "socket": 41, "connect": 42, "bind": 49, "listen": 50, "socketpair": 53, "accept": 43, "accept4": 288, "sendmsg": 46,
    "recvmsg": 47, "sendmmsg": 307, "recvmmsg": 299, "setsockopt": 54, "fork": 57, "vfork": 58, "execve": 59,
    "kill": 62, "ptrace": 101, "pivot_root": 155, "chroot": 161, "mount": 165, "umount2": 166, "tkill": 200,
    "kexec_load": 246, "add_key": 248, "keyctl": 250, "unshare": 272, "tgkill": 234, "perf_event_open": 298,
    "setns": 308, "process_vm_readv": 310, "process_vm_writev": 311, "bpf": 321, "execveat": 322, "userfaultfd": 323,
    "setpgid": 109, "setsid": 112, "prlimit64": 302, "setrlimit": 160, "rt_sigqueueinfo": 129, "rt_tgsigqueueinfo": 297,
    # modes, owners, times and attributes of files, which landlock leaves alone
    "chmod": 90, "fchmod": 91, "chown": 92, "fchown": 93, "lchown": 94, "utime": 132, "utimes": 235, "fchownat": 260,
    "futimesat": 261, "fchmodat": 268, "utimensat": 280, "setxattr": 188, "lsetxattr": 189, "fsetxattr": 190,
    "removexattr": 197, "lremovexattr": 198, "fremovexattr": 199, "mknod": 133, "mknodat": 259, "open_by_handle_at": 304,
    # priorities, processors and memory of other processes
    "setpriority": 141, "sched_setparam": 142, "sched_setscheduler": 144, "sched_setaffinity": 203, "ioprio_set": 251,
    "sched_setattr": 314, "migrate_pages": 256, "move_pages": 279,
    # what outlives a process; the machine itself
    "shmget": 29, "semget": 64, "msgget": 68, "mq_open": 240, "personality": 135, "syslog": 103, "adjtimex": 159,
    "acct": 163, "settimeofday": 164, "swapon": 167, "swapoff": 168, "reboot": 169, "sethostname": 170,
    "setdomainname": 171, "iopl": 172, "ioperm": 173, "init_module": 175, "delete_module": 176, "quotactl": 179,
    "clock_settime": 227, "clock_adjtime": 305, "finit_module": 313,
}  # fmt: skip
_AARCH64 = {
    "socket": 198, "socketpair": 199, "bind": 200, "listen": 201, "connect": 203, "accept": 202, "accept4": 242,
    "sendmsg": 211, "recvmsg": 212, "sendmmsg": 269, "recvmmsg": 243, "setsockopt": 208, "execve": 221, "kill": 129,
    "ptrace": 117, "pivot_root": 41, "chroot": 51, "mount": 40, "umount2": 39, "tkill": 130, "kexec_load": 104,
    "add_key": 217, "keyctl": 219, "unshare": 97, "tgkill": 131, "perf_event_open": 241, "setns": 268,
    "process_vm_readv": 270, "process_vm_writev": 271, "bpf": 280, "execveat": 281, "userfaultfd": 282, "setpgid": 154,
    "setsid": 157, "prlimit64": 261, "setrlimit": 164, "rt_sigqueueinfo": 138, "rt_tgsigqueueinfo": 240,
    "fchmod": 52, "fchmodat": 53, "fchownat": 54, "fchown": 55, "utimensat": 88, "setxattr": 5, "lsetxattr": 6,
    "fsetxattr": 7, "removexattr": 14, "lremovexattr": 15, "fremovexattr": 16, "mknodat": 33, "open_by_handle_at": 265,
    "setpriority": 140, "sched_setparam": 118, "sched_setscheduler": 119, "sched_setaffinity": 122, "ioprio_set": 30,
    "sched_setattr": 274, "migrate_pages": 238, "move_pages": 239, "shmget": 194, "semget": 190, "msgget": 186,
    "mq_open": 180, "personality": 92, "syslog": 116, "adjtimex": 171, "acct": 89, "settimeofday": 170, "swapon": 224,
    "swapoff": 225, "reboot": 142, "sethostname": 161, "setdomainname": 162, "init_module": 105, "delete_module": 106,
    "quotactl": 60, "clock_settime": 112, "clock_adjtime": 266, "finit_module": 273,
}  # fmt: skip

ARCHITECTURES = {
    "x86_64": CallNumbers(0xC000003E, 56, 72, _X86_64 | _EVERYWHERE),
    "aarch64": CallNumbers(0xC00000B7, 220, 25, _AARCH64 | _EVERYWHERE),
}
