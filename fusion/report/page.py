"""One self-contained page about a run: no script, no request, light and dark, fit for print."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from matplotlib.figure import Figure

from fusion.report import figures
from fusion.report.record import Record, read_run
from fusion.report.table import HELPING_CAPTION, grid, helping_cells
from fusion.report.verdict import judge
from fusion_eval.results import Item, Result, write_whole
from fusion_eval.statistics import METRICS, RESAMPLES

SAMPLES = 2
"""Answers shown of each domain."""


def write_report(run: Path, *, resamples: int = RESAMPLES) -> Path:
    """Write `report.html` into the folder of a run and return its path; same run, same page.

    Only `run.json` must be there; the page says what it leaves out. Raises what `read_run` and `grid` raise.
    """
    path = run / "report.html"
    write_whole(path, page(read_run(run), resamples=resamples))
    return path


def page(record: Record, *, resamples: int = RESAMPLES) -> str:
    """The page as text; everything that comes from the run is escaped."""
    facts = record.run
    return (
        _templates()
        .get_template("page.html")
        .render(
            run=facts,
            pivots=[name for name, model in facts.models.items() if model.role == "pivot"],
            sources=[name for name, model in facts.models.items() if model.role == "source"],
            suites=[_suite(record, name, f"suite{index}", resamples) for index, name in enumerate(record.results)],
            helping=[helping_cells(row) for row in facts.helping],
            helping_caption=HELPING_CAPTION,
            helping_figure=_helping(record),
            training=_training(record),
            data_domains=sorted({*facts.data.train, *facts.data.heldout}) if facts.data else [],
            seconds=sum(stage.seconds for stage in facts.stages if not stage.skipped),
            samples=[sample for suite, results in record.results.items() for sample in _samples(suite, results)],
            samples_each=SAMPLES,
            config=record.config,
        )
    )


@cache
def _templates() -> Environment:
    loader = FileSystemLoader(Path(__file__).parent)
    environment = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    environment.filters |= {"size": size, "grouped": grouped, "duration": duration}
    return environment


def _suite(record: Record, name: str, key: str, resamples: int) -> dict[str, Any]:
    results, baseline = record.results[name], record.baseline(name)
    numbers = grid(results, None if baseline is None else baseline.model, resamples=resamples)
    shown = [metric for metric in METRICS if any(metric == column for _, column in numbers.columns)]
    found, missing = judge(record, name, resamples=resamples)
    return {
        "name": name,
        "verdict": found,
        "no_verdict": f"the verdict on {name}; {missing}",
        "tables": [(metric, *numbers.of_metric(metric)) for metric in shown],
        "caption": numbers.caption,
        "figures": [_bars(results, metric, f"{key}-{metric}", resamples) for metric in shown],
    }


def _bars(results: Sequence[Result], metric: str, name: str, resamples: int) -> Markup:
    figure = figures.bars(results, metric, resamples=resamples)
    return _inline(figure, name, f"{METRICS[metric].label} of each model in each domain, as in the table above")


def _helping(record: Record) -> Markup | None:
    if not record.run.helping:
        return None
    return _inline(figures.helping(record.run.helping), "helping", "Match rate and weight of each source by domain")


def _training(record: Record) -> list[Markup]:
    """Curves of the losses, and of the match rates and weights where the trainer followed them."""
    wanted = {"loss": "Loss over steps", "match": "Match rate of each source", "weight": "Weight of each source"}
    keys = {key.split("/")[0] for log in record.logs.values() for entry in log for key in entry}
    return [_inline(figures.curves(record.logs, key), key, alt) for key, alt in wanted.items() if key in keys]


def _samples(suite: str, results: Sequence[Result]) -> list[dict[str, Any]]:
    """The first items of each domain that any model answered, with the answers of all models."""
    answers: dict[str, list[tuple[str, Item]]] = {}
    for result in results:
        for item in result.items:
            answers.setdefault(item.id, []).append((result.model, item))
    taken: dict[str, list[dict[str, Any]]] = {}
    for given in answers.values():
        first = given[0][1]
        if any(item.answer is not None for _, item in given) and len(taken.get(first.domain, [])) < SAMPLES:
            taken.setdefault(first.domain, []).append({"suite": suite, "item": first, "answers": given})
    return [sample for samples in taken.values() for sample in samples]


def _inline(figure: Figure, name: str, alt: str) -> Markup:
    return Markup(figures.svg(figure, name, alt))  # safe: matplotlib escapes the text of a figure


def size(count: int | None) -> str:
    """A number of parameters in three digits: 812, 1.21M, 14.8B."""
    if count is None:
        return "–"
    for limit, letter in [(1e9, "B"), (1e6, "M"), (1e3, "K")]:
        if count >= limit:
            return f"{count / limit:.3g}{letter}"
    return str(count)


def grouped(count: int | None) -> str:
    """A count with its thousands apart; – where there is none."""
    return "–" if count is None else f"{count:,}"


def duration(seconds: float) -> str:
    """Wall time for people: 0.4 s, 12 s, 3 min 5 s, 2 h 7 min."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
