"""The program to launch, the resources it runs on, and the command that launches it."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

PORT = 29500  # torch's own default


@dataclass(frozen=True)
class Program:
    """A Python module and its arguments, run as `python -m module arguments` in each process."""

    module: str
    arguments: tuple[str, ...]
    name: str
    """Name of the job; in `label`, anything but letters, digits, dots, dashes and underscores becomes a dash."""
    python: str = sys.executable

    @property
    def label(self) -> str:
        """The name in characters that every queue accepts."""
        return re.sub(r"[^A-Za-z0-9._-]", "-", self.name).strip("-.") or "fusion"


@dataclass(frozen=True)
class Resources:
    """Nodes and their GPUs; one process runs on each GPU."""

    gpus: int = 1
    """GPUs of one node."""
    nodes: int = 1
    head: str | None = None
    """`host` or `host:port` where the processes of several nodes meet."""
    hostfile: str | None = None
    hosts: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))
    """GPUs by host, as the hostfile says."""

    def __post_init__(self) -> None:
        if self.gpus < 1 or self.nodes < 1:
            raise ValueError(f"--gpus and --nodes are at least 1, got {self.gpus} and {self.nodes}.")
        if self.head is not None and not re.fullmatch(r"[A-Za-z0-9._-]+(:\d{1,5})?", self.head):
            raise ValueError(f"--head is host or host:port, got {self.head!r}.")

    @classmethod
    def from_options(
        cls, *, gpus: int | None = None, nodes: int | None = None, hostfile: str | None = None, head: str | None = None
    ) -> Resources:
        """Resources from command-line options; what is None is read from the hostfile, or is one process.

        Raises ValueError for what the hostfile cannot give.
        """
        hosts = read_hostfile(Path(hostfile)) if hostfile else {}
        if nodes is not None and hosts and nodes > len(hosts):
            raise ValueError(f"--nodes is {nodes}, but {hostfile} names {len(hosts)} hosts.")
        nodes = nodes or len(hosts) or 1
        used = dict(list(hosts.items())[:nodes])
        if gpus is None and len(set(used.values())) > 1:
            raise ValueError(f"{hostfile} gives hosts different numbers of slots ({_format_slots(used)}); say --gpus.")
        if gpus is not None and (small := {host: slots for host, slots in used.items() if slots < gpus}):
            raise ValueError(f"--gpus is {gpus}, but {hostfile} gives {_format_slots(small)} slots.")
        gpus = gpus if gpus is not None else next(iter(used.values()), 1)
        return cls(gpus, nodes, head or next(iter(used), None), hostfile, MappingProxyType(used))

    @property
    def endpoint(self) -> str:
        """`host:port` of the rendezvous. Raises ValueError where several nodes have no head."""
        if self.head is None:
            raise ValueError(f"{self.nodes} nodes need a place to meet: give --head HOST[:PORT] or --hostfile FILE.")
        return self.head if ":" in self.head else f"{self.head}:{PORT}"


@dataclass(frozen=True)
class Launch:
    """The command to run on this machine, and what it reads."""

    argv: tuple[str, ...]
    stdin: str = ""
    """Text that it reads from its standard input: a script or a manifest; empty for none."""
    note: str = ""
    """What the user has to do besides; empty for nothing."""

    @property
    def command(self) -> str:
        """The command as a shell reads it."""
        return shlex.join(self.argv)


def read_hostfile(file: Path) -> dict[str, int]:
    """Read GPUs by host from lines such as `node1 slots=8`; `#` begins a comment. Raises ValueError that names the line."""
    if not file.is_file():
        raise ValueError(f"There is no hostfile {file}.")
    hosts: dict[str, int] = {}
    try:
        text = file.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{file} is no hostfile: it is not UTF-8 (byte {error.start}).") from error
    for number, line in enumerate(text.splitlines(), 1):
        if not (line := line.split("#")[0].strip()):
            continue
        match = re.fullmatch(r"([A-Za-z0-9][A-Za-z0-9._-]*)\s+slots=([1-9]\d*)", line)
        if match is None:
            raise ValueError(f"{file}, line {number}: write it as `host slots=8`, got {line!r}.")
        if match[1] in hosts:
            raise ValueError(f"{file}, line {number}: {match[1]} is there twice.")
        hosts[match[1]] = int(match[2])
    if not hosts:
        raise ValueError(f"{file} names no host; write lines such as `node1 slots=8`.")
    return hosts


def _format_slots(hosts: Mapping[str, int]) -> str:
    return ", ".join(f"{host} {slots}" for host, slots in hosts.items())
