"""What is to run, on what, and what that becomes."""

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
    """`python -m module arguments`, in each process."""

    module: str
    arguments: tuple[str, ...]
    name: str
    """What a queue calls it; anything but letters, digits, dots, dashes and underscores becomes a dash."""
    python: str = sys.executable

    @property
    def label(self) -> str:
        """The name as every queue takes it."""
        return re.sub(r"[^A-Za-z0-9._-]", "-", self.name).strip("-.") or "fusion"


@dataclass(frozen=True)
class Resources:
    """GPUs, which are also processes: one each."""

    gpus: int = 1
    """Of one node."""
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
    def of(cls, gpus: int | None, nodes: int | None, hostfile: str | None, head: str | None) -> Resources:
        """From what a user gave; nodes, GPUs of a node and head follow from a hostfile where they are not said."""
        hosts = read_hostfile(Path(hostfile)) if hostfile else {}
        if nodes is not None and hosts and nodes > len(hosts):
            raise ValueError(f"--nodes is {nodes}, but {hostfile} names {len(hosts)} hosts.")
        nodes = nodes or len(hosts) or 1
        used = dict(list(hosts.items())[:nodes])
        if gpus is None and len(set(used.values())) > 1:
            raise ValueError(f"{hostfile} gives hosts different numbers of slots ({_shown(used)}); say --gpus.")
        if gpus is not None and (small := {host: slots for host, slots in used.items() if slots < gpus}):
            raise ValueError(f"--gpus is {gpus}, but {hostfile} gives {_shown(small)} slots.")
        gpus = gpus if gpus is not None else next(iter(used.values()), 1)
        return cls(gpus, nodes, head or next(iter(used), None), hostfile, MappingProxyType(used))

    @property
    def endpoint(self) -> str:
        """Where processes meet. Raises ValueError where several nodes have no head."""
        if self.head is None:
            raise ValueError(f"{self.nodes} nodes need a place to meet: give --head HOST[:PORT] or --hostfile FILE.")
        return self.head if ":" in self.head else f"{self.head}:{PORT}"


@dataclass(frozen=True)
class Launch:
    """What runs here."""

    argv: tuple[str, ...]
    text: str = ""
    """What it reads from its standard input: a script or a manifest; empty for nothing."""
    note: str = ""
    """What else the user has to do."""

    @property
    def command(self) -> str:
        """For a shell to read."""
        return shlex.join(self.argv)


def read_hostfile(file: Path) -> dict[str, int]:
    """GPUs by host from lines such as `node1 slots=8`; `#` begins a comment. Raises ValueError that names the line."""
    if not file.is_file():
        raise ValueError(f"There is no hostfile {file}.")
    hosts: dict[str, int] = {}
    for number, line in enumerate(file.read_text().splitlines(), 1):
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


def _shown(hosts: Mapping[str, int]) -> str:
    return ", ".join(f"{host} {slots}" for host, slots in hosts.items())
