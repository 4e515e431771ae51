"""torchrun whose errors are sentences: `python -m fusion_launch.torchrun` takes torchrun's arguments.

A torchrun that does not find the other nodes, or whose program fails, prints the frames of its own code, in which what
happened is hard to find.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import time
from argparse import Namespace
from collections.abc import Sequence

PATIENCE = 60.0
"""Seconds: a pod's name is known to others only a while after it has started."""
AGAIN = "and run the same command again: what was finished is kept."


def main(arguments: Sequence[str]) -> int:
    """Run torchrun and return the exit code: its program's, 128 + n where signal n ended it, 1 where the nodes do not meet."""
    _import_quietly()
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.elastic.rendezvous.api import RendezvousError
    from torch.distributed.run import parse_args, run

    options = parse_args(list(arguments))
    try:
        refuse_unknown_host(options)
        run(options)
    except SignalException as stopped:
        _tell(f"stopped by {signal.Signals(stopped.sigval).name}; what was finished is kept.")
        return 128 + stopped.sigval
    except ChildFailedError as failed:
        return _tell_failure(failed)
    except (RendezvousError, ConnectionError, TimeoutError) as error:
        _tell(_no_meeting(options, error))
        return 1
    except RuntimeError as error:  # of the store in which nodes meet
        if not _of_the_store(error):
            raise
        _tell(_no_meeting(options, error))
        return 1
    except ValueError as error:
        _tell(str(error))
        return 1
    return 0


def _import_quietly() -> None:
    """Import torch such that it does not print the frames of each attempt to connect; our program's torch prints as ever."""
    level = os.environ.get("TORCH_CPP_LOG_LEVEL")
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "FATAL")
    import torch.distributed.run  # noqa: F401  (reads the level when it is first imported)

    if level is None:
        del os.environ["TORCH_CPP_LOG_LEVEL"]


def meeting_place(options: Namespace) -> tuple[str, str]:
    """Host and port where the processes of several nodes meet; empty where there is one node."""
    if options.standalone or options.nnodes in ("1", "1:1"):
        return "", ""
    if options.rdzv_endpoint:
        host, _, port = options.rdzv_endpoint.rpartition(":")
        return host or port, port if host else ""
    return options.master_addr, str(options.master_port)


def refuse_unknown_host(options: Namespace) -> None:
    """Raise ValueError where this machine finds no address for the host where the processes meet, for `PATIENCE` seconds."""
    host, _ = meeting_place(options)
    deadline = time.monotonic() + PATIENCE
    while host and (reason := _unknown(host)):
        if time.monotonic() >= deadline:
            raise ValueError(
                f"the processes are to meet at {host}, and this machine knows no address of that name ({reason}). Let its "
                f"DNS or /etc/hosts name it, on every node, or name another host with fusion launch --head HOST, {AGAIN}"
            )
        time.sleep(min(1, PATIENCE))


def _unknown(host: str) -> str:
    """Why a name has no address; empty where it has one."""
    try:
        socket.getaddrinfo(host, None)
    except OSError as error:
        return str(error.strerror)
    return ""


def _no_meeting(options: Namespace, error: Exception) -> str:
    host, port = meeting_place(options)
    return (
        f"the processes of {options.nnodes} nodes did not meet at {host}:{port} ({_first_line(error)}). Each node must start, "
        f"reach {host} by the network, and find port {port} free there and open: look at what the other nodes said, {AGAIN}"
    )


def _tell_failure(failed: object) -> int:
    """Say which process failed first, and return the exit code of a shell."""
    rank, failure = failed.get_first_failure()  # pyright: ignore[reportAttributeAccessIssue]
    code = failure.exitcode
    if code >= 0:
        _tell(f"process {rank} ended with exit code {code}; its own words are above.")
        return code
    what = signal.Signals(-code).name
    hint = " Often its machine, or its job, lacked memory." if what == "SIGKILL" else ""
    _tell(f"process {rank} was ended by {what}.{hint} What was finished is kept: run the same command again.")
    return 128 - code


def _of_the_store(error: RuntimeError) -> bool:
    from torch.distributed import DistNetworkError, DistStoreError

    return isinstance(error, (DistNetworkError, DistStoreError))


def _first_line(error: Exception) -> str:
    return next((line.strip().rstrip(".") for line in str(error).splitlines() if line.strip()), type(error).__name__)


def _tell(message: str) -> None:
    print(f"Error on {socket.gethostname()}: {message}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
