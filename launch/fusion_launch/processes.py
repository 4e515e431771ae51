"""Launchers that start processes directly: one process on this machine, torchrun, or DeepSpeed's launcher."""

from __future__ import annotations

import shlex

from fusion_launch.resources import PORT, Launch, Program, Resources


def local(program: Program, resources: Resources) -> Launch:
    """Prepare one process on this machine. Raises ValueError for more."""
    if (resources.gpus, resources.nodes) != (1, 1):
        raise ValueError(
            f"local is one process, got --gpus {resources.gpus} --nodes {resources.nodes}; use --on torchrun."
        )
    return Launch((program.python, "-m", program.module, *program.arguments))


def torchrun(program: Program, resources: Resources) -> Launch:
    """Prepare torchrun with a process for each GPU; with several nodes the same command is run on each of them."""
    note = (
        f"Run this on each of the {resources.nodes} nodes; they meet at {resources.endpoint}."
        if resources.nodes > 1
        else ""
    )
    return Launch((program.python, *torchrun_arguments(program, resources)), note=note)


def torchrun_arguments(
    program: Program, resources: Resources, rendezvous: tuple[str, ...] | None = None
) -> tuple[str, ...]:
    """Arguments of `python` that run torchrun. `rendezvous` are options by which nodes find each other; None: the head's."""
    if rendezvous is None:
        rendezvous = ("--standalone",)
        if resources.nodes > 1:
            rendezvous = ("--rdzv-backend=c10d", f"--rdzv-endpoint={resources.endpoint}", f"--rdzv-id={program.label}")
    processes = (f"--nnodes={resources.nodes}", f"--nproc-per-node={resources.gpus}")
    return ("-m", "fusion_launch.torchrun", *processes, *rendezvous, "-m", program.module, *program.arguments)


def deepspeed(program: Program, resources: Resources) -> Launch:
    """Prepare DeepSpeed's launcher, which starts the processes of all hosts of a hostfile from this machine."""
    options = [f"--num_gpus={resources.gpus}"]
    if resources.nodes > 1:
        _check_remote(program, resources)
        host, _, port = resources.endpoint.partition(":")
        options += [f"--hostfile={resources.hostfile}", f"--num_nodes={resources.nodes}"]
        options += [f"--master_addr={host}", f"--master_port={port or PORT}"]
    else:
        options += ["--hostfile=/dev/null"]  # else it reads /job/hostfile where there is one
    argv = (program.python, "-m", "deepspeed.launcher.runner", *options, "--no_local_rank", "--module", program.module)
    return Launch((*argv, *program.arguments))


def _check_remote(program: Program, resources: Resources) -> None:
    """DeepSpeed hands arguments to a shell on each host, and quotes hardly any."""
    if resources.hostfile is None:
        raise ValueError(f"DeepSpeed reaches {resources.nodes} nodes by a hostfile: give --hostfile FILE.")
    for argument in program.arguments:
        if shlex.quote(argument) != argument or "%" in argument:
            raise ValueError(
                f"DeepSpeed's launcher would change the argument {argument!r} on its way to other hosts. Write it into the "
                "configuration file, or use --on torchrun."
            )
