"""All launchers by name, and the function that prepares a launch with one of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from fusion_launch.kubernetes import kubernetes
from fusion_launch.processes import deepspeed, local, torchrun
from fusion_launch.resources import Launch, Program, Resources
from fusion_launch.slurm import slurm

PROCESS_LAUNCHERS = {"local": local, "torchrun": torchrun, "deepspeed": deepspeed}
LAUNCHERS = (*PROCESS_LAUNCHERS, "slurm", "kubernetes")


def prepare(
    launcher: str, program: Program, resources: Resources, options: Sequence[str] = (), *,
    files: Mapping[str, str] | None = None,
) -> Launch:  # fmt: skip
    """Prepare the command that runs `program` on these resources, by one of `LAUNCHERS`.

    `options` are KEY=VALUE or KEY, for slurm and kubernetes. `files`, by name, are copied to where the disk of this machine
    is not mounted. Raises ValueError for what the launcher cannot do.
    """
    pairs = {key: value if equals else None for key, equals, value in (option.partition("=") for option in options)}
    if launcher in PROCESS_LAUNCHERS:
        if pairs:
            raise ValueError(f"--option {options[0]}: {launcher} takes none; slurm and kubernetes do.")
        return PROCESS_LAUNCHERS[launcher](program, resources)
    if launcher in LAUNCHERS and resources.hostfile is not None:
        raise ValueError(
            f"--hostfile {resources.hostfile}: {launcher} chooses the machines; leave it out, and give --nodes."
        )
    if launcher == "slurm":
        return slurm(program, resources, pairs)
    if launcher == "kubernetes":
        return kubernetes(program, resources, pairs, files or {})
    raise ValueError(f"--on {launcher}: there is no such launcher; there are {', '.join(LAUNCHERS)}.")
