"""Processes on this machine, and on others that are reached from it: one process, torchrun, DeepSpeed's launcher."""

from __future__ import annotations

import shlex

from fusion_launch.resources import PORT, Launch, Program, Resources


def local(program: Program, resources: Resources) -> Launch:
    """One process here."""
    if (resources.gpus, resources.nodes) != (1, 1):
        raise ValueError(f"local is one process, got {_shown(resources)}; use --on torchrun.")
    return Launch((program.python, "-m", program.module, *program.arguments))


def torchrun(program: Program, resources: Resources) -> Launch:
    """A process for each GPU; with several nodes the same command is run on each of them."""
    note = (
        f"Run this on each of the {resources.nodes} nodes; they meet at {resources.endpoint}."
        if _many(resources)
        else ""
    )
    return Launch((program.python, *torchrun_arguments(program, resources)), note=note)


def torchrun_arguments(program: Program, resources: Resources, meet: tuple[str, ...] | None = None) -> tuple[str, ...]:
    """What follows `python`. `meet` are the options by which several nodes find each other, if not those of the head."""
    if meet is None:
        meet = ("--standalone",)
        if _many(resources):
            meet = ("--rdzv-backend=c10d", f"--rdzv-endpoint={resources.endpoint}", f"--rdzv-id={program.label}")
    spread = (f"--nnodes={resources.nodes}", f"--nproc-per-node={resources.gpus}")
    return ("-m", "torch.distributed.run", *spread, *meet, "-m", program.module, *program.arguments)


def deepspeed(program: Program, resources: Resources) -> Launch:
    """DeepSpeed's launcher, which starts the processes of all hosts of a hostfile from here."""
    where = [f"--num_gpus={resources.gpus}"]
    if _many(resources):
        _check_remote(program, resources)
        host, _, port = resources.endpoint.partition(":")
        where += [f"--hostfile={resources.hostfile}", f"--num_nodes={resources.nodes}"]
        where += [f"--master_addr={host}", f"--master_port={port or PORT}"]
    else:
        where += ["--hostfile=/dev/null"]  # else it reads /job/hostfile where there is one
    argv = (program.python, "-m", "deepspeed.launcher.runner", *where, "--no_local_rank", "--module", program.module)
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


def _many(resources: Resources) -> bool:
    return resources.nodes > 1


def _shown(resources: Resources) -> str:
    return f"--gpus {resources.gpus} --nodes {resources.nodes}"
