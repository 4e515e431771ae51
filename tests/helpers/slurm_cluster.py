"""A Slurm of two nodes on this machine: its own daemons, ports and folders, none of them the system's.

Needs root and Debian's packages: apt-get install --no-install-recommends slurmd slurmctld slurm-client munge
"""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import psutil

PROGRAMS = ("slurmctld", "slurmd", "sbatch", "scontrol", "squeue", "srun", "munged")
HOST = socket.gethostname()
NODES = (HOST, f"z-{HOST}")
"""The first in Slurm's order has a name that resolves: processes meet there."""
UNKNOWN = "0-has-no-address"
"""A node that Slurm reaches by its address and nobody by its name; it sorts before the others."""
ENDED = {"COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "OUT_OF_MEMORY"}
"""Without NODE_FAIL, which a job also is for a moment before it is requeued."""
UNDELIVERED = 75
"""Seconds for which Slurm repeats what it could not tell a node."""
CONF = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
CredType=cred/munge
SlurmUser=root
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
SlurmdSpoolDir={folder}/spool-%n
StateSaveLocation={folder}/state
SlurmdParameters=config_overrides
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SlurmdTimeout=20
MessageTimeout=5
KillWait=5
ReturnToService=2
{nodes}
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""
# cred_expire: a job that is requeued stays in the queue for as long (Slurm's own: 120). SlurmdTimeout: a node that does not
# answer is DOWN after as long (300). ReturnToService: a node that answers again is used again.


def missing() -> str:
    """Why there can be no such cluster on this machine; empty where there can be."""
    if not sys.platform.startswith("linux") or os.geteuid() != 0:
        return "the daemons of a Slurm are started as root, on Linux"
    absent = [name for name in PROGRAMS if shutil.which(name) is None]
    if absent:
        return f"{', '.join(absent)} not installed; on Debian: apt-get install slurmd slurmctld slurm-client munge"
    try:
        socket.gethostbyname(HOST)
    except OSError:
        return f"this machine's name, {HOST}, does not resolve"
    return ""


class SlurmCluster:
    """The daemons; a context manager that ends them and all that they started."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.daemons: dict[str, subprocess.Popen[bytes]] = {}
        self.environment = os.environ | {"SLURM_CONF": str(folder / "slurm.conf"), "OMP_NUM_THREADS": "1"}

    def __enter__(self) -> SlurmCluster:
        try:
            self._start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for name in [name for name in self.daemons if name.startswith("slurmd-")]:
            self.kill_node(name.removeprefix("slurmd-"))
        for daemon in reversed(self.daemons.values()):
            daemon.terminate()
            try:
                daemon.wait(15)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()

    def run(self, *command: str, check: bool = True) -> str:
        """What a command of Slurm prints."""
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True, timeout=120, check=False)
        assert not check or done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
        return done.stdout

    def job(self, number: str) -> dict[str, str]:
        """What Slurm knows of a job: JobState, Restarts, TimeLimit and so on."""
        words = self.run("scontrol", "--oneliner", "show", "job", number).split()
        return dict(word.split("=", 1) for word in words if "=" in word)

    def state(self, node: str) -> str:
        """The state of a node, such as IDLE or DOWN+NOT_RESPONDING."""
        words = self.run("scontrol", "--oneliner", "show", "node", node).split()
        return next(word.removeprefix("State=") for word in words if word.startswith("State="))

    def wait_for_end(self, number: str, seconds: int = 400) -> dict[str, str]:
        """The job once it has ended."""
        wait_until(lambda: self.job(number)["JobState"] in ENDED, seconds, lambda: self.words(number))
        return self.job(number)

    def words(self, number: str) -> str:
        """What a job has printed."""
        file = Path(self.job(number)["StdOut"])
        return file.read_text(errors="replace") if file.exists() else ""

    def kill_node(self, node: str) -> None:
        """Let a node die at once, with everything that runs on it."""
        steps = [each for each in psutil.process_iter(["name"]) if self._is_step(each, node)]
        trees = [psutil.Process(self.daemons[f"slurmd-{node}"].pid), *steps]
        for process in [*trees, *(child for tree in trees for child in tree.children(recursive=True))]:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        self.daemons.pop(f"slurmd-{node}").wait()

    def start_node(self, node: str) -> None:
        """Start a node, as `kill_node` ended it."""
        self._daemon(f"slurmd-{node}", "slurmd", "-D", "-N", node)

    def start_lost_node(self, node: str) -> None:
        """Start a node that was killed under a job, once Slurm has given it up.

        Slurm tells a node for about a minute to end the job that was on it; a node that is back within it would end the job's
        next start. Slurm's own settings, by which a job is requeued for two minutes, leave no room for that.
        """
        wait_until(lambda: "DOWN" in self.state(node), 200, lambda: self.state(node))
        time.sleep(UNDELIVERED)
        self.start_node(node)

    def mend(self) -> None:
        """End all jobs, and start nodes that were killed."""
        self.run("scancel", "--user=root", "--full", "--signal=KILL", check=False)
        self.run("scancel", "--user=root")
        for node in NODES:
            if f"slurmd-{node}" not in self.daemons:
                self.start_node(node)
        wait_until(lambda: all(self.state(node) == "IDLE" for node in NODES), 60, self._logs)

    def _is_step(self, process: psutil.Process, node: str) -> bool:
        """Whether a process is Slurm's for a job on a node of this cluster: it holds the node's log open."""
        try:
            return process.info["name"] == "slurmstepd" and any(
                file.path == f"{self.folder}/slurmd-{node}.log" for file in process.open_files()
            )
        except psutil.Error:
            return False

    def _start(self) -> None:
        with ExclusivePorts(2 + len(NODES)) as ports:
            names = (*NODES, UNKNOWN)
            nodes = "\n".join(
                f"NodeName={name} NodeHostname={HOST} NodeAddr=127.0.0.1 Port={port} CPUs=2 RealMemory=1000 State=UNKNOWN"
                for name, port in zip(names, ports[1:], strict=True)
            )
            (self.folder / "slurm.conf").write_text(
                CONF.format(host=HOST, ports=ports, folder=self.folder, nodes=nodes)
            )
        (self.folder / "state").mkdir()
        (self.folder / "munge.key").write_bytes(secrets.token_bytes(1024))
        (self.folder / "munge.key").chmod(0o400)
        files = {"key-file": "key", "socket": "socket", "pid-file": "pid", "log-file": "log", "seed-file": "seed"}
        self._daemon(
            "munged", "munged", "--foreground", "--force", "--num-threads=1",
            *(f"--{option}={self.folder}/munge.{name}" for option, name in files.items()),
        )  # fmt: skip
        wait_until((self.folder / "munge.socket").exists, 30, self._logs)
        self._daemon("slurmctld", "slurmctld", "-D", "-i")
        for node in NODES:
            self.start_node(node)
        wait_until(lambda: all(self.state(node) == "IDLE" for node in NODES), 60, self._logs)

    def _daemon(self, name: str, *command: str) -> None:
        log = (self.folder / f"{name}.out").open("ab")
        self.daemons[name] = subprocess.Popen(
            command, env=self.environment, stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True
        )
        log.close()

    def _logs(self) -> str:
        return "\n".join(file.read_text()[-1500:] for file in sorted(self.folder.glob("*.out")))


class ExclusivePorts:
    """Free ports of this machine, kept from others until they are to be used."""

    def __init__(self, count: int) -> None:
        self.sockets = [socket.socket() for _ in range(count)]

    def __enter__(self) -> Sequence[int]:
        for each in self.sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in self.sockets]

    def __exit__(self, *_: object) -> None:
        for each in self.sockets:
            each.close()


def wait_until(happens: Callable[[], bool], seconds: int, words: Callable[[], str]) -> None:
    """Wait for something; what it failed with says `words`."""
    deadline = time.monotonic() + seconds
    while not happens():
        assert time.monotonic() < deadline, words()
        time.sleep(0.5)
