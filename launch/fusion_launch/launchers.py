"""All launchers by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from fusion_launch.kubernetes import kubernetes
from fusion_launch.processes import deepspeed, local, torchrun
from fusion_launch.resources import Launch, Program, Resources
from fusion_launch.slurm import slurm

HERE = {"local": local, "torchrun": torchrun, "deepspeed": deepspeed}
LAUNCHERS = (*HERE, "slurm", "kubernetes")


def prepare(
    on: str, program: Program, resources: Resources, options: Sequence[str] = (), files: Mapping[str, str] | None = None
) -> Launch:
    """What runs `program` on these resources. `options` are KEY=VALUE or KEY, for slurm and kubernetes; `files` go along to
    where the disk of this machine is not seen. Raises ValueError for what the launcher cannot do.
    """
    pairs = {key: value if equals else None for key, equals, value in (option.partition("=") for option in options)}
    if on in HERE:
        if pairs:
            raise ValueError(f"--option {options[0]}: {on} takes none; slurm and kubernetes do.")
        return HERE[on](program, resources)
    if on == "slurm":
        return slurm(program, resources, pairs)
    if on == "kubernetes":
        return kubernetes(program, resources, pairs, files or {})
    raise ValueError(f"--on {on}: there is no such launcher; there are {', '.join(LAUNCHERS)}.")
