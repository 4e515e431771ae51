"""How far each model is from the truth on the tales, of which the truth is known: `python -m fusion.quickstart.excess RUN`.

The excess of a model is what it needs beyond the truth to write down a held-out tale, in bits per byte: an estimate of
KL(truth ‖ model), 0 for a model that says of every next word exactly how likely it is. RUN is the folder of a run, or of a
study, whose arms are then means over their seeds.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fusion.quickstart.skills import tale_logprob
from fusion_eval.results import Result, Sample
from fusion_eval.statistics.bootstrap import RESAMPLES, bootstrap
from fusion_eval.statistics.comparison import stack_runs
from fusion_eval.statistics.intervals import Interval

DOMAIN = "tales"
BASELINES = ("fine-tuned", "fine_tuned")
"""What plain fine-tuning is called in a run, and as an arm of a study."""


def find_results(folder: Path) -> dict[str, list[Result]]:
    """Return by name the results of a run's models, or of a study's models and arms, a seed each.

    Raises ValueError where the folder holds none.
    """
    found: dict[str, list[Result]] = {}
    for file in sorted(folder.glob("eval/*/heldout.json")):
        found[file.parent.name] = [Result.load(file)]
    for file in sorted(folder.glob("*/original-models/eval/*/heldout.json")):
        if file.parent.name != "unified":
            found[file.parent.name] = [Result.load(file)]
    for file in sorted(folder.glob("*/*seed-*/eval/*/heldout.json")):
        if not file.parents[2].name.startswith("trial-"):
            found.setdefault(file.parents[3].name, []).append(Result.load(file))
    if not found:
        raise ValueError(
            f"{folder} holds no eval/*/heldout.json; give the folder of a run that is finished, or of a study."
        )
    return found


def excess_columns(result: Result) -> NDArray[np.float64]:
    """Return excess bits and bytes of each held-out tale, as [1, 2, n]. Raises ValueError where there is none."""
    tales = [sample for sample in result.samples if sample.domain == DOMAIN]
    if not tales:
        raise ValueError(
            f"{result.model} was not measured on the domain {DOMAIN}, the only one of which the truth is known."
        )
    return np.array([[_excess_bits(sample) for sample in tales], [float(sample.bytes) for sample in tales]])[None]


def _excess_bits(sample: Sample) -> float:
    assert sample.nll is not None, "held-out samples have a likelihood"
    return (sample.nll + tale_logprob(sample.prompt, sample.target)) / math.log(2)


def excess(results: Sequence[Result]) -> Interval:
    """Return the mean excess over tales and seeds, in bits per byte, with its 95% interval over both."""
    return bootstrap(stack_runs([excess_columns(result) for result in results]), 0, RESAMPLES).interval()


def excess_table(results: Mapping[str, Sequence[Result]]) -> list[str]:
    """Return a table in Markdown: of each model its excess, and how much of the excess of fine-tuning it does not have."""
    found = {name: excess(each) for name, each in results.items()}
    baseline = next((found[name].value for name in BASELINES if name in found), None)
    lines = ["| model | seeds | excess bits per byte on tales (95%) | worst seed | of fine-tuning's excess closed |"]
    lines.append("| --- | ---: | ---: | ---: | ---: |")
    for name, each in found.items():
        worst = max(excess([result]).value for result in results[name])
        closed = "" if baseline is None else f"{100 * (1 - each.value / baseline):.0f}%"
        said = f"{each.value:.3f} ({each.low:.3f} to {each.high:.3f})"
        lines.append(f"| {name} | {len(results[name])} | {said} | {worst:.3f} | {closed} |")
    return lines


def main(arguments: list[str] | None = None) -> None:
    """Print the table of a run or a study."""
    parser = argparse.ArgumentParser(
        prog="python -m fusion.quickstart.excess", description="Excess bits per byte of each model on the tales."
    )
    parser.add_argument("run", type=Path, metavar="RUN", help="folder of a run, such as runs/quickstart, or of a study")
    folder = parser.parse_args(arguments).run
    try:
        results = find_results(folder)
        table = excess_table(results)
    except ValueError as error:
        parser.error(str(error))
    print("\n".join(table))
    print(f"\nn: {excess_columns(next(iter(results.values()))[0]).shape[-1]} held-out tales.")


if __name__ == "__main__":
    main()
