"""A batch script for Slurm: torchrun as the one task of each node, in a job that is requeued and resumes."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping

from fusion_launch.processes import torchrun_arguments
from fusion_launch.resources import Launch, Program, Resources

SCRIPT = """#!/bin/bash
{directives}

set -euo pipefail

# Cut off by a time limit, a preemption or a lost node, the job runs again and continues: finished stages are skipped,
# a training goes on from its newest checkpoint.
requeued=
requeue() {{
  echo "fusion: $1; job $SLURM_JOB_ID goes back to the queue, and will go on from what is finished." >&2
  if scontrol requeue "$SLURM_JOB_ID"; then requeued=1; else
    echo "fusion: Slurm did not requeue job $SLURM_JOB_ID; submit it again, and it goes on from what is finished." >&2
  fi
}}
trap 'requeue "its time is nearly up"' USR1
{cpus}{meeting}
srun --kill-on-bad-exit=1 {command} &
step=$!
while :; do  # the signal above ends a wait before the step has ended
  wait "$step" && code=0 || code=$?
  kill -0 "$step" 2>/dev/null || break
done
{lost}exit "$code"
"""
CPUS = """
# srun does not take the number of cores over from the job by itself
if [[ -n "${SLURM_CPUS_PER_TASK:-}" ]]; then export SRUN_CPUS_PER_TASK="$SLURM_CPUS_PER_TASK"; fi
"""
MEETING = """
# where the processes of all nodes meet: the first node, at a port that is another job's only by chance
mapfile -t hosts < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
head=${hosts[0]:-}
if [[ -z "$head" ]]; then echo "fusion: scontrol names no node of job $SLURM_JOB_ID: $SLURM_JOB_NODELIST." >&2; exit 1; fi
port=$(( 20000 + SLURM_JOB_ID % 10000 ))
"""
LOST = """
# Slurm requeues a job whose node dies, but not one that it starts on a node that has just died. So a step that failed is
# followed by one that cannot fail on nodes that are there.
if [[ "$code" != 0 && -z "$requeued" ]] && ! timeout 120 srun --quiet true 2>/dev/null; then
  requeue "a node of $SLURM_JOB_NODELIST does not answer"
fi
"""
OWNED = {
    "nodes": "give --nodes",
    "ntasks": "torchrun is the one task of a node, and starts a process for each of --gpus",
    "ntasks-per-node": "torchrun is the one task of a node, and starts a process for each of --gpus",
    "array": "the jobs of an array would all work on the same run; launch each run by itself, with --set name=...",
    "wrap": "the script is ours",
}
"""Options of sbatch that would contradict the rest of the script, and what to do instead."""


def slurm(program: Program, resources: Resources, options: Mapping[str, str | None]) -> Launch:
    """Prepare a batch script for sbatch.

    `options` become #SBATCH lines, such as {"partition": "gpu", "exclusive": None}; an empty value removes one.
    """
    several = resources.nodes > 1
    text = SCRIPT.format(
        directives="\n".join(_directives(program, resources, options)),
        cpus=CPUS,
        meeting=MEETING if several and resources.head is None else "",
        command=_command(program, resources),
        lost=LOST if several else "",
    )
    return Launch(("sbatch",), stdin=text)


def _command(program: Program, resources: Resources) -> str:
    """The torchrun command in the script; everything is quoted but the variables that Slurm sets."""
    variables = {"@id": '"$SLURM_JOB_ID"', "@head": '"$head:$port"'}
    head = "@head" if resources.head is None else resources.endpoint
    rendezvous = ("--rdzv-backend=c10d", "--rdzv-id", "@id", "--rdzv-endpoint", head)
    whole = torchrun_arguments(program, resources, rendezvous if resources.nodes > 1 else None)
    module = ("-m", program.module, *program.arguments)
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
        _refuse_contradiction(key, value)
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


def _refuse_contradiction(key: str, value: str | None) -> None:
    """Raise ValueError for an option that would make the script wait for nodes in vain, or end it with a signal."""
    given = f"--option {key}" + ("" if value is None else f"={value}")
    if key in OWNED:
        raise ValueError(f"{given}: that is not the job's to choose: {OWNED[key]}.")
    if key == "signal" and value != "" and not re.fullmatch(r"B:USR1(@\d+)?", value or ""):
        raise ValueError(
            f"{given}: the script requeues the job at USR1, which is sent to it alone: write B:USR1@SECONDS before the time "
            "limit, such as B:USR1@300, or signal= for none."
        )
