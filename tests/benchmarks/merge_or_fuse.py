"""Merging the pairwise models of a run against its unified fusion: what each is worth on held-out examples, and what it costs.

    python -m tests.benchmarks.merge_or_fuse runs/quickstart [--folder DIR] [--write docs/merging.md]

The run has to be finished, with pairwise models and a unified one; `make quickstart` leaves such a run in 4 minutes on two cores.
Each merge is a `fusion merge` in a process of its own, whose CPU seconds and memory are measured; its row is what `fusion merge
--evaluate runs/quickstart/config.yaml` shows for `merged`. DIR gets the merged models and every answer.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

from fusion.cli.merge_data import merge_evaluations
from fusion.merging.evaluation.evaluated_models import EvaluatedModel
from fusion.merging.evaluation.merge_evaluation import evaluate_models
from fusion.merging.recipes.merge_recipe import MergeRecipe
from fusion.report.score_table import markdown
from fusion.runtime.console import pending_bar, quiet
from fusion_eval.results import MEAN, Result
from fusion_eval.statistics.metrics import METRICS
from fusion_eval.statistics.worst_domain import PairedDifference, differences_to_best
from tests.benchmarks.measure import put_on_page
from tests.benchmarks.merging import Cost, measured

METHODS = ("linear", "task_arithmetic", "ties", "sce", "dare_ties", "karcher", "model_stock")
UNIFIED = "unified fusion"


def main() -> None:
    """Merge, evaluate and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="folder of the run, such as runs/quickstart")
    parser.add_argument("--folder", type=Path, default=Path("/tmp/fusion-merge-or-fuse"))
    parser.add_argument("--write", type=Path, metavar="PAGE", help="a Markdown page to put the tables into")
    given = parser.parse_args()
    quiet()
    base, parts = given.run / "train/pairwise/merged/base", pairwise_models(given.run)
    costs = {method: merge_cost(method, base, parts, given.folder / method) for method in METHODS}
    results = evaluate(given.run, base, parts, given.folder)
    text = "\n".join([markdown(results, UNIFIED), cost_table(given.run, results, costs)])
    print(text)
    if given.write:
        put_on_page(given.write, "merge_or_fuse", f"\n{text}\n")


def pairwise_models(run: Path) -> dict[str, Path]:
    """The run's pairwise models, by the name of their source."""
    folders = sorted((run / "train/pairwise").glob("*/model"))
    return {folder.parent.name: folder for folder in folders if folder.parent.name != "merged"}


def merge_cost(method: str, base: Path, parts: Mapping[str, Path], out: Path) -> Cost:
    """What `fusion merge` takes, start-up included; the model stays in `out`."""
    command = [sys.executable, "-m", "fusion", "merge", "--method", method, "--base-model", str(base)]
    out.parent.mkdir(parents=True, exist_ok=True)
    return measured([*command, *map(str, parts.values()), "--out", str(out)], out)


def evaluate(run: Path, base: Path, parts: Mapping[str, Path], folder: Path) -> list[Result]:
    """All models on the run's held-out examples, put to them as the run does; the unified one last."""
    folders = {
        "base": base,
        **{f"pairwise, {name}": part for name, part in parts.items()},
        **{f"{method} of these": folder / method for method in METHODS},
        "plain fine-tuning": run / "train/fine-tuned/model",
        UNIFIED: run / "train/unified/model",
    }
    models = [EvaluatedModel(name, "input", str(path)) for name, path in folders.items()]
    recipe = MergeRecipe.model_validate(
        {"models": [str(base)], "method": "linear", "evaluation": str(run / "config.yaml")}
    )
    bar = partial(pending_bar, unit="requests")
    [found] = evaluate_models(models, merge_evaluations(recipe, []), folder / "evaluations", progress=bar)
    return found.results


def cost_table(run: Path, results: Sequence[Result], costs: Mapping[str, Cost]) -> str:
    """For each merge what it is worth less the unified model, and what it takes; in Markdown, with what training took."""
    by_name = {result.model: result for result in results}
    heads = ["merge", "less unified: bits per byte", "worst domain", "exact match %", "worst domain", "CPU s", "MB"]
    lines = [heads, ["---", *["---:"] * 6]]
    for method, cost in costs.items():
        found = differences_to_best(by_name[f"{method} of these"], [by_name[UNIFIED]])
        cells = [cell for metric in ("bits_per_byte", "exact_match") for cell in _mean_and_worst(found, metric)]
        lines.append([f"`{method}`", *cells, f"{cost.cpu:.1f}", f"{cost.peak:.0f}"])
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return f"{table}\n\n{' '.join(_training(run))}"


def _mean_and_worst(found: Sequence[PairedDifference], metric: str) -> Iterator[str]:
    of_metric = [each for each in found if each.metric == metric]
    mean = next(each for each in of_metric if each.domain == MEAN)
    worst = max((each for each in of_metric if each.domain != MEAN), key=lambda each: each.lost)
    yield _shown(mean)
    yield f"{worst.domain} {_shown(worst)}"


def _shown(found: PairedDifference) -> str:
    metric, interval = METRICS[found.metric], found.difference
    return f"{metric.show_signed(interval.value)} {metric.show_spread(interval, signed=True)}{found.mark}"


def _training(run: Path) -> Iterator[str]:
    """Sentences on what the trainings of the run took, by its record."""
    stages = {stage["name"]: stage["seconds"] for stage in json.loads((run / "run.json").read_text())["stages"]}
    pairwise = {name: seconds for name, seconds in stages.items() if name.startswith("train pairwise/")}
    shared = sum(seconds for name, seconds in stages.items() if name.startswith(("respond ", "extract ", "choose ")))
    yield f"Training the unified model took {stages['train unified']:.0f} s of wall time, training the {len(pairwise)} pairwise"
    yield f"models {sum(pairwise.values()):.0f} s one after another ({max(pairwise.values()):.0f} s side by side); answers and"
    yield f"logits of the sources, which both need, {shared:.0f} s."


if __name__ == "__main__":
    main()
