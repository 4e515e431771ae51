"""Which figures a run has: each with a name, for its file, and words for those who do not see it."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from matplotlib.figure import Figure

from fusion.report.differences import SuiteDifferences
from fusion.report.figures import scores
from fusion.report.figures.bars import bars, helping
from fusion.report.figures.curves import curves
from fusion.report.figures.drawing import Colours, Look
from fusion.report.figures.round_curves import round_curves
from fusion.report.figures.validation_curves import VALIDATION_CURVES, validation_curves
from fusion.report.model_roles import LABEL_LENGTH, NARROW_LABEL, label
from fusion.report.run_contents import RunContents
from fusion_eval.statistics.bootstrap import RESAMPLES
from fusion_eval.statistics.metrics import METRICS


@dataclass(frozen=True)
class ReportFigure:
    """A figure, drawn for a page and for a phone."""

    figure: Figure
    narrow: Figure
    alt: str
    """What it shows, in words."""


RunFigures = dict[str, ReportFigure]
"""Figures by name."""

CURVES = {
    "loss": "Loss and its terms",
    "grad_norm": "Norm of the gradient",
    "entropy": "Entropy of the model's predictions",
    "calibration": "Confidence and accuracy",
    "match": "Match rate of each source",
    "weight": "Weight of each source",
}
"""Heads of the curves of training, by what they show."""


def run_figures(
    contents: RunContents, compared: SuiteDifferences, colours: Colours, *, resamples: int = RESAMPLES
) -> RunFigures:
    """Every figure that the contents of the run allow, by name."""
    wide, narrow = (
        {model: label(model, contents.run, letters) for model in contents.models}
        for letters in (LABEL_LENGTH, NARROW_LABEL)
    )
    looks = Look(colours, wide), Look(colours, narrow, narrow=True)
    found: RunFigures = {}
    for suite in contents.results:
        found |= _of_suite(contents, suite, compared, looks, resamples)
    if contents.run.helping:
        alt = "Match rate and weight of each source by domain"
        found["helping"] = _twice(looks, alt, lambda look: helping(contents.run.helping, look))
    if (rounds := contents.run.rounds) is not None and rounds.is_validated:
        alt = "Share of answers to validation prompts that pass, after each round"
        found["rounds-pass_at_1"] = _twice(looks, alt, partial(round_curves, rounds.scores, rounds.kept))
    for key, curve in VALIDATION_CURVES.items():
        if any(key in entry for log in contents.logs.values() for entry in log):
            draw = partial(validation_curves, contents.logs, key)
            found[f"validation-{key.removeprefix('eval_')}"] = _twice(looks, f"{curve.head}, over steps", draw)
    keys = {key.split("/")[0] for log in contents.logs.values() for entry in log for key in entry}
    for key, head in CURVES.items():
        if key in keys:
            draw = partial(curves, contents.logs, key)
            found[f"training-{key}"] = _twice(looks, f"{head} over steps", draw)
    return found


def _twice(looks: tuple[Look, Look], alt: str, draw: Callable[[Look], Figure]) -> ReportFigure:
    wide, narrow = looks
    return ReportFigure(draw(wide), draw(narrow), alt)


def figure_name(suite: str, metric: str, kind: str) -> str:
    """Name of a figure of one suite, fit for a file."""
    slug = re.sub(r"[^A-Za-z0-9._-]+", "-", suite).strip("-.")
    if slug != suite:  # so that no two suites share a file
        slug = f"{slug[:40]}-{hashlib.sha256(suite.encode()).hexdigest()[:6]}".strip("-")
    return f"{slug}-{metric}-{kind}"


def _of_suite(
    contents: RunContents, suite: str, compared: SuiteDifferences, looks: tuple[Look, Look], resamples: int
) -> RunFigures:
    results, sources = contents.results[suite], contents.run.names_by_role("source")
    domains = {sample.domain for result in results for sample in result.samples}
    found: RunFigures = {}
    for metric, kind in METRICS.items():
        known = any(kind.parts(sample) is not None for result in results for sample in result.samples)
        if not known:
            continue
        title = f"{kind.label} on {suite}"
        draw: Callable[[Look], Figure] = partial(bars, results, metric, resamples=resamples)
        alt = f"{title}: each model in each domain, as in the table"
        found[figure_name(suite, metric, "bars")] = _twice(looks, alt, draw)
        if len(domains) >= 3 and not kind.lower_is_better:
            draw = partial(scores.radar, results, metric, sources, resamples=resamples)
            alt = f"{title}: models over domains, as in the table"
            found[figure_name(suite, metric, "radar")] = _twice(looks, alt, draw)
        numbers = compared.get((suite, metric))
        if numbers is not None and numbers.model in numbers.gap_shares:
            draw = partial(scores.gap, numbers.gap_shares, kind.label, numbers.gap_start)
            alt = f"{title}: share of the gap from {numbers.gap_start} to best source that is closed"
            found[figure_name(suite, metric, "gap")] = _twice(looks, alt, draw)
    return found
