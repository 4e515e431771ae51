"""Which figures a run has: each with a name, for its file, and words for those who do not see it."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass

from matplotlib.figure import Figure

from fusion.report.differences import SuiteDifferences
from fusion.report.figures import scores
from fusion.report.figures.curves import curves
from fusion.report.figures.drawing import Colours
from fusion.report.run_contents import RunContents
from fusion_eval.statistics.bootstrap import RESAMPLES
from fusion_eval.statistics.metrics import METRICS


@dataclass(frozen=True)
class ReportFigure:
    """A figure."""

    figure: Figure
    alt: str
    """What it shows, in words."""


RunFigures = dict[str, ReportFigure]
"""Figures by name."""

CURVES = {"loss": "Loss over steps", "match": "Match rate of each source", "weight": "Weight of each source"}


def run_figures(
    contents: RunContents, compared: SuiteDifferences, colours: Colours, *, resamples: int = RESAMPLES
) -> RunFigures:
    """Every figure that the contents of the run allow, by name."""
    found: RunFigures = {}
    for suite in contents.results:
        found |= _of_suite(contents, suite, compared, colours, resamples)
    if contents.run.helping:
        alt = "Match rate and weight of each source by domain"
        found["helping"] = ReportFigure(scores.helping(contents.run.helping, colours), alt)
    keys = {key.split("/")[0] for log in contents.logs.values() for entry in log for key in entry}
    return found | {
        f"training-{key}": ReportFigure(curves(contents.logs, key, colours), alt)
        for key, alt in CURVES.items()
        if key in keys
    }


def figure_name(suite: str, metric: str, kind: str) -> str:
    """Name of a figure of one suite, fit for a file."""
    slug = re.sub(r"[^A-Za-z0-9._-]+", "-", suite).strip("-.")
    if slug != suite:  # so that no two suites share a file
        slug = f"{slug[:40]}-{hashlib.sha256(suite.encode()).hexdigest()[:6]}".strip("-")
    return f"{slug}-{metric}-{kind}"


def _of_suite(
    contents: RunContents, suite: str, compared: SuiteDifferences, colours: Colours, resamples: int
) -> RunFigures:
    results, sources = contents.results[suite], contents.run.names_by_role("source")
    domains = {sample.domain for result in results for sample in result.samples}
    found: RunFigures = {}
    for metric, kind in METRICS.items():
        known = any(kind.parts(sample) is not None for result in results for sample in result.samples)
        if not known:
            continue
        name = f"{kind.label} on {suite}"
        bars = scores.bars(results, metric, colours, resamples=resamples)
        found[figure_name(suite, metric, "bars")] = ReportFigure(
            bars, f"{name}: each model in each domain, as in the table"
        )
        if len(domains) >= 3 and not kind.lower_is_better:
            radar = scores.radar(results, metric, sources, colours, resamples=resamples)
            found[figure_name(suite, metric, "radar")] = ReportFigure(
                radar, f"{name}: models over domains, as in the table"
            )
        numbers = compared.get((suite, metric))
        if numbers is not None and numbers.gap_closed_from_pivot:
            gap = scores.gap(numbers.gap_closed_from_pivot, kind.label, colours)
            found[figure_name(suite, metric, "gap")] = ReportFigure(
                gap, f"{name}: share of the way from pivot to best source"
            )
    return found
