"""Merging the pairwise models of a run against its unified fusion: what each is worth on held-out examples, and what it costs.

    python -m tests.benchmarks.merge_or_fuse runs/noisy_references [--folder DIR] [--write docs/merging.md]

The run has to be finished, with pairwise models and a unified one; `fusion run noisy_references` leaves such a run in 4 minutes
of two cores. Each merge is a `fusion merge` in a process of its own, whose CPU seconds and memory are measured; its row is what
the same command shows for `merged` with `--evaluate runs/noisy_references/config.yaml`. DIR gets the merged models and every
answer.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from tests.benchmarks.measure import put_on_page
from tests.benchmarks.merging import Cost, measured

if TYPE_CHECKING:
    from fusion_eval.results import Result
    from fusion_eval.statistics.worst_domain import PairedDifference

METHODS: dict[str, tuple[str, ...]] = {
    "linear": (),
    "task_arithmetic": (),
    "ties": (),
    "sce": (),
    "sce, select_topk=1": ("select_topk=1",),
    "dare_ties": (),
    "dare_ties, density=0.9": ("density=0.9",),
    "karcher": (),
    "model_stock": (),
}
"""What is merged by, with the settings that differ from the method's own."""
UNIFIED = "unified fusion"


def main() -> None:
    """Merge, evaluate and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="folder of the run, such as runs/noisy_references")
    parser.add_argument("--folder", type=Path, default=Path("/tmp/fusion-merge-or-fuse"))
    parser.add_argument("--write", type=Path, metavar="PAGE", help="a Markdown page to put the tables into")
    given = parser.parse_args()
    base, parts = given.run / "train/pairwise/merged/base", pairwise_models(given.run)
    costs = {name: merge_cost(name, base, parts, given.folder) for name in METHODS}
    # imported after the merges: what this process has held would count in the peaks of those it starts
    from fusion.report.score_table import markdown

    results = evaluate(given.run, base, parts, given.folder)
    text = "\n".join([markdown(results, UNIFIED), cost_table(given.run, results, costs, similarity(base, parts))])
    print(text)
    if given.write:
        put_on_page(given.write, "merge_or_fuse", f"\n{text}\n")


def pairwise_models(run: Path) -> dict[str, Path]:
    """The run's pairwise models, by the name of their source."""
    folders = sorted((run / "train/pairwise").glob("*/model"))
    return {folder.parent.name: folder for folder in folders if folder.parent.name != "merged"}


def merge_cost(name: str, base: Path, parts: Mapping[str, Path], folder: Path) -> Cost:
    """What `fusion merge` takes, start-up included; the model stays in the folder."""
    out, kind = merged_folder(folder, name), name.partition(",")[0]
    command = [sys.executable, "-m", "fusion", "merge", "--method", kind, "--base-model", str(base)]
    settings = [word for setting in METHODS[name] for word in ("--set", setting)]
    folder.mkdir(parents=True, exist_ok=True)
    return measured([*command, *settings, *map(str, parts.values()), "--out", str(out)], out)


def merged_folder(folder: Path, name: str) -> Path:
    """Where the model of a merge lies."""
    return folder / name.replace(", ", "-")


def evaluate(run: Path, base: Path, parts: Mapping[str, Path], folder: Path) -> list[Result]:
    """All models on the run's held-out examples, put to them as the run does; the unified one last."""
    from fusion.cli.merge_data import merge_evaluations
    from fusion.merging.evaluation.evaluated_models import EvaluatedModel
    from fusion.merging.evaluation.merge_evaluation import evaluate_models
    from fusion.merging.recipes.merge_recipe import MergeRecipe
    from fusion.runtime.console import pending_bar, quiet

    quiet()
    folders = {
        "base": base,
        **{f"pairwise, {name}": part for name, part in parts.items()},
        **{f"{name} of these": merged_folder(folder, name) for name in METHODS},
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


def cost_table(run: Path, results: Sequence[Result], costs: Mapping[str, Cost], similarity: str) -> str:
    """For each merge what it is worth less the unified model, and what it takes; in Markdown, with what training took."""
    from fusion_eval.statistics.worst_domain import differences_to_best

    by_name = {result.model: result for result in results}
    heads = ["merge", "less unified: bits per byte", "worst domain", "exact match %", "worst domain", "CPU s", "MB"]
    lines = [heads, ["---", *["---:"] * 6]]
    for name, cost in costs.items():
        found = differences_to_best(by_name[f"{name} of these"], [by_name[UNIFIED]])
        cells = [cell for metric in ("bits_per_byte", "exact_match") for cell in _mean_and_worst(found, metric)]
        lines.append([f"`{name}`", *cells, f"{cost.cpu:.1f}", f"{cost.peak:.0f}"])
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return f"{table}\n\n{' '.join(_training(run))} {similarity}"


def _mean_and_worst(found: Sequence[PairedDifference], metric: str) -> Iterator[str]:
    from fusion_eval.statistics.worst_domain import mean_of, worst_of

    mean, worst = mean_of(found, metric), worst_of(found, metric)
    assert mean is not None
    assert worst is not None
    yield _shown(mean)
    yield f"{worst.domain} {_shown(worst)}"


def _shown(found: PairedDifference) -> str:
    from fusion_eval.statistics.metrics import METRICS

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


def similarity(base: Path, parts: Mapping[str, Path]) -> str:
    """A sentence on how alike the pairwise models' ways from the base are: cosines of their deltas over all weights."""
    import torch
    from safetensors.torch import load_file

    start = load_file(base / "model.safetensors")
    ways = []
    for part in parts.values():
        weights = load_file(part / "model.safetensors")
        ways.append(torch.cat([(weights[name] - start[name]).flatten().double() for name in sorted(start)]))
    pairs = [(a @ b / (a.norm() * b.norm())).item() for i, a in enumerate(ways) for b in ways[:i]]
    return f"The cosines between the deltas of two pairwise models are {min(pairs):.2f} to {max(pairs):.2f}."


if __name__ == "__main__":
    main()
