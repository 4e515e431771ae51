"""A batch script for Slurm: torchrun as the one task of each node, in a job that is requeued and resumes."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping

from fusion_launch.processes import torchrun_arguments
from fusion_launch.resources import PORT, Launch, Program, Resources

SCRIPT = """#!/bin/bash
{directives}

set -euo pipefail

# Cut off by a time limit, a preemption or a lost node, the job runs again and continues: finished stages are skipped,
# a training goes on from its newest checkpoint.
trap 'scontrol requeue "$SLURM_JOB_ID"' USR1
{cpus}
read -r head < <(scontrol show hostnames "$SLURM_JOB_NODELIST")

srun --kill-on-bad-exit=1 {command} &
step=$!
while :; do  # the signal above ends a wait before the step has ended
  wait "$step" && code=0 || code=$?
  kill -0 "$step" 2>/dev/null || break
done
exit "$code"
"""
CPUS = """
# srun does not take the number of cores over from the job by itself
if [[ -n "${SLURM_CPUS_PER_TASK:-}" ]]; then export SRUN_CPUS_PER_TASK="$SLURM_CPUS_PER_TASK"; fi
"""


def slurm(program: Program, resources: Resources, options: Mapping[str, str | None]) -> Launch:
    """Prepare a batch script for sbatch.

    `options` become #SBATCH lines, such as {"partition": "gpu", "exclusive": None}; an empty value removes one.
    """
    text = SCRIPT.format(
        directives="\n".join(_directives(program, resources, options)), cpus=CPUS, command=_command(program, resources)
    )
    return Launch(("sbatch",), stdin=text)


def _command(program: Program, resources: Resources) -> str:
    """The torchrun command in the script; everything is quoted but the variables that Slurm sets."""
    variables = {"@id": '"$SLURM_JOB_ID"', "@head": f'"$head:{PORT}"'}
    rendezvous = ("--rdzv-backend=c10d", "--rdzv-id", "@id", "--rdzv-endpoint", "@head")
    whole, module = torchrun_arguments(program, resources, rendezvous), ("-m", program.module, *program.arguments)
    torchrun = [variables.get(word, shlex.quote(word)) for word in whole[: -len(module)]]
    return " ".join([shlex.quote(program.python), *torchrun, shlex.join(module)])


def _directives(program: Program, resources: Resources, options: Mapping[str, str | None]) -> list[str]:
    defaults: dict[str, str | None] = {
        "job-name": program.label,
        "nodes": str(resources.nodes),
        "ntasks-per-node": "1",
        "gpus-per-node": str(resources.gpus),
        "requeue": None,
        "open-mode": "append",
        "signal": "B:USR1@120",
    }
    for key, value in options.items():
        if not re.fullmatch(r"[a-z][a-z0-9-]*", key):
            raise ValueError(f"--option {key}: an option of sbatch is its long name, such as partition or time.")
        if value is not None and not re.fullmatch(r"[A-Za-z0-9_.,:;%@/+=&|!\[\]-]*", value):
            raise ValueError(
                f"--option {key}={value}: an #SBATCH line cannot quote this value; leave out spaces and quotes."
            )
    directives = {**defaults, **options}
    return [
        f"#SBATCH --{key}" + ("" if value is None else f"={value}") for key, value in directives.items() if value != ""
    ]
