"""The whole quickstart, its table against the published one."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import dropwhile, takewhile
from pathlib import Path

from fusion import pipeline
from fusion.config import Config, loading
from fusion.quickstart import NUMBERS, STORYTELLER
from fusion.training import BASELINE
from fusion_eval.results import Result
from fusion_eval.statistics.metrics import METRICS, by_domain
from gpu_checks.check import Check, CheckContext

PUBLISHED = Path(__file__).resolve().parents[2] / "docs" / "results.md"
HEADERS = {"exact_match": "mean exact match % ↑", "bits_per_byte": "mean bits per byte ↓"}
UNTRAINED = ("pivot", NUMBERS, "lumi", STORYTELLER)
"""Models that the run does not train: they differ from the published numbers by rounding alone."""
UNTRAINED_BOUNDS, TRAINED_BOUNDS = (2.0, 0.005), (8.0, 0.02)
"""Points of exact match, bits per byte. The luck of a training is a few points; see the seeds in docs/results.md."""
GAIN_BOUND = 15.0
"""Points of exact match of unified fusion above plain fine-tuning; 40 are published."""
TINY = [
    "training.max_steps=2", "data.responses.max_new_tokens=4", "evaluation.max_new_tokens=4",
    *(f"data.{part}.{number}.limit=4" for part, sets in (("train", 8), ("heldout", 4)) for number in range(sets)),
]  # fmt: skip
"""What a tiny run changes: a few examples, steps and letters."""


def quickstart_check(context: CheckContext) -> Iterator[Check]:
    """`fusion run quickstart` as it comes, from the answers to the report; then its means over the skills."""
    folder = pipeline.run(configuration(context))
    stages = json.loads((folder / "run.json").read_text())["stages"]
    how = ", ".join(f"{stage['name']} {stage['seconds']:.0f}" for stage in stages)
    yield Check("quickstart: all stages", sum(stage["seconds"] for stage in stages), "s", how=how)
    exact = {}
    for model, columns in published_means(PUBLISHED.read_text()).items():
        file = folder / "eval" / model / "heldout.json"
        if context.tiny and not file.exists():  # a tiny run leaves strategies out
            continue
        for metric, bound in zip(("exact_match", "bits_per_byte"), bounds(model), strict=True):
            mean = mean_over_domains(Result.load(file), metric)
            expected, unit = columns[metric], METRICS[metric].label
            yield Check(
                f"quickstart: {model}, mean {unit}, difference from the published", abs(mean - expected),
                at_most=context.bound(bound), how=f"{mean:.4g} here, {expected:.4g} published",
            )  # fmt: skip
            if metric == "exact_match":
                exact[model] = mean
    gain = exact["unified"] - exact[BASELINE]
    yield Check("quickstart: unified minus plain fine-tuning", gain, "points", at_least=context.bound(GAIN_BOUND))


def configuration(context: CheckContext) -> Config:
    """Return the recipe `quickstart`, in a folder of this check."""
    raw = loading.read("quickstart") | {"runs": str(context.folder / "quickstart")}
    for change in TINY if context.tiny else ():
        loading.override(raw, change)
    return loading.parse(raw, "the recipe quickstart")


def bounds(model: str) -> tuple[float, float]:
    """Return how far means of exact match (points) and bits per byte may be from the published ones."""
    return UNTRAINED_BOUNDS if model in UNTRAINED else TRAINED_BOUNDS


def mean_over_domains(result: Result, metric: str) -> float:
    """Return the mean over domains of a metric, scaled as tables show it."""
    means = []
    for samples in by_domain(result.samples).values():
        parts = [each for each in map(METRICS[metric].parts, samples) if each is not None]
        if parts:  # the open-ended skill has no right answer
            above, below = (sum(column) for column in zip(*parts, strict=True))
            means.append(METRICS[metric].scale * above / below)
    return sum(means) / len(means)


def published_means(page: str) -> dict[str, dict[str, float]]:
    """Return, by model, the means over skills in the first table under the heading `## Quickstart` of the page of results.

    Raises ValueError where there is none.
    """
    section = page.partition("\n## Quickstart")[2].partition("\n## ")[0]
    lines = dropwhile(lambda line: not line.startswith("|"), section.splitlines())
    table = [
        [cell.strip(" *") for cell in line.strip("|").split("|")]
        for line in takewhile(lambda x: x.startswith("|"), lines)
    ]
    try:
        columns = {metric: table[0].index(header) for metric, header in HEADERS.items()}
    except (IndexError, ValueError):
        raise ValueError(
            f"{PUBLISHED}: there is no table with the columns {', '.join(HEADERS.values())} under the heading `## Quickstart`, "
            "so there is nothing to compare with."
        ) from None
    return {row[0]: {metric: float(row[n].split()[0]) for metric, n in columns.items()} for row in table[2:]}
