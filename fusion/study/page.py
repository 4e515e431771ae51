"""What a reader sees of a study: tables in the terminal, results.md with all of them, results.json, and a figure a metric."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import numpy as np
from matplotlib import rc_context
from matplotlib.figure import Figure
from rich.table import Table

from fusion.report.figures.drawing import BLUE, GREY, INK, ORANGE, STYLE, WIDTH, png
from fusion.report.table import plain
from fusion.runtime.artifacts import write_json, write_text
from fusion.runtime.console import console
from fusion.study.outcome import Outcome, Row
from fusion_eval.results import MEAN
from fusion_eval.statistics.bootstrap import Interval
from fusion_eval.statistics.metrics import METRICS

MARKS = {None: "", True: "★", False: "▼"}


def show(outcome: Outcome, folder: Path, name: str) -> None:
    """Print the means, and write everything into the study's folder."""
    for metric in outcome.metrics:
        console.print(_table(outcome.rows(metric), metric))
        (folder / f"{metric}.png").write_bytes(png(differences(outcome.rows(metric), metric, outcome.baseline)))
    rows = [(m, d, row) for m in outcome.metrics for d in outcome.domains for row in outcome.rows(m, d)]
    write_json(folder / "results.json", [{"metric": m, "domain": d} | asdict(row) for m, d, row in rows])
    write_text(folder / "results.md", markdown(outcome))
    console.print(f"{folder / 'results.md'}, with figures beside it.")


def markdown(outcome: Outcome) -> str:
    """A table of means for each metric, then of each domain's differences, then what was chosen."""
    parts = [*(_means(outcome, metric) for metric in outcome.metrics)]
    if len(outcome.domains) > 2:
        parts += [_by_domain(outcome, metric) for metric in outcome.metrics]
    closed = "Closed: the share of the way from there to each domain's best source."
    return "\n\n".join([*parts, f"{caption(outcome)} {closed}", *_chosen(outcome)]) + "\n"


def summary(outcome: Outcome) -> str:
    """One table of the means of all metrics, the best difference in the first of them on top; for a page."""
    first = _first(outcome)
    metrics = [first, *(metric for metric in outcome.metrics if metric != first)]
    rows = {metric: {row.name: row for row in outcome.rows(metric)} for metric in metrics}
    sign = -1 if METRICS[first].lower_is_better else 1
    names = sorted(outcome.results, key=lambda name: -sign * rows[first][name].value.value)
    heads = [f"{METRICS[metric].label} (minus {plain(outcome.baseline)}, 95%)" for metric in metrics]
    lines = [f"| arm | {' | '.join(heads)} |", f"| --- |{' ---: |' * len(metrics)}"]
    for name in [*(result.model for result in outcome.untouched), *names]:
        lines.append(f"| {plain(name)} | {' | '.join(_one(rows[metric].get(name), metric) for metric in metrics)} |")
    return "\n".join([*lines, "", caption(outcome), *_chosen(outcome), ""])


def caption(outcome: Outcome) -> str:
    """How to read the tables."""
    runs = outcome.results[outcome.baseline]
    several = len(runs) > 1
    over = (
        "paired by seed and example, over both" if several else "paired by example; the luck of a training is not in it"
    )
    return (
        f"{len(runs)} seed{'s' if several else ''}, {len(runs[0].samples)} held-out examples; means over domains"
        f"{' and seeds' if several else ''}. In brackets the difference and its 95% interval, {over}. ★ better, ▼ worse than "
        f"{plain(outcome.baseline)}: the interval excludes 0."
    )


def put(page: Path, name: str, outcome: Outcome) -> None:
    """Put table and figure between the lines `<!-- study NAME -->` and `<!-- end -->` of a page; the figure goes to images/.

    Raises ValueError where the lines are not there.
    """
    found, first = place(page, name), _first(outcome)
    images = page.parent / "images"
    images.mkdir(exist_ok=True)
    (images / f"{name}.png").write_bytes(png(differences(outcome.rows(first), first, outcome.baseline)))
    text = f"{summary(outcome)}\n![{METRICS[first].label}, by arm](images/{name}.png)\n"
    write_text(page, page.read_text()[: found.start(1)] + text + page.read_text()[found.end(1) :])


def place(page: Path, name: str) -> re.Match[str]:
    """Where a page has what stands between its marks; to be asked before a long study. Raises ValueError as `put` does."""
    found = re.search(f"<!-- study {re.escape(name)} -->\n(.*?)<!-- end -->", page.read_text(), re.DOTALL)
    if not found:
        raise ValueError(f"{page} has no place for it: write the lines <!-- study {name} --> and <!-- end --> there.")
    return found


@rc_context(STYLE)
def differences(rows: list[Row], metric: str, baseline: str) -> Figure:
    """How every arm differs from the baseline, with its interval, the best on top."""
    scale, sign = METRICS[metric].scale, -1 if METRICS[metric].lower_is_better else 1
    shown = sorted(((row, row.difference) for row in rows if row.difference), key=lambda pair: sign * pair[1].value)
    figure = Figure(figsize=(WIDTH, 0.8 + 0.22 * len(shown)), layout="constrained")
    axes = figure.subplots()
    for y, (row, difference) in enumerate(shown):
        colour = {None: GREY, True: BLUE, False: ORANGE}[row.better(metric)]
        x, low, high = (scale * getattr(difference, end) for end in ("value", "low", "high"))
        axes.errorbar([x], [y], xerr=np.array([[x - low], [high - x]]), fmt="o", ms=4.5, color=colour, elinewidth=1.3)
    axes.axvline(0, color=INK, lw=1, alpha=0.6, zorder=0)
    axes.set_yticks(range(len(shown)), [row.name for row, _ in shown])
    better = "left" if METRICS[metric].lower_is_better else "right"
    axes.set(
        title=f"{METRICS[metric].label}: difference from {baseline}, {better} is better", ylim=(-0.7, len(shown) - 0.3)
    )
    axes.grid(True, axis="x")
    axes.grid(False, axis="y")
    return figure


def _first(outcome: Outcome) -> str:
    """The metric that a page is sorted by."""
    return "exact_match" if "exact_match" in outcome.metrics else outcome.metrics[0]


def _table(rows: list[Row], metric: str) -> Table:
    table = Table("arm", title=f"{METRICS[metric].label}, mean over domains", title_justify="left")
    for head in ("value", "minus baseline", "95% interval", "gap closed"):
        table.add_column(head, justify="right")
    for row in rows:
        table.add_row(row.name, *_cells(row, metric))
    return table


def _cells(row: Row, metric: str) -> tuple[str, str, str, str]:
    value = METRICS[metric].show(row.value.value)
    if row.difference is None:
        return value, "", "", ""
    difference = f"{_signed(row.difference.value, metric)}{MARKS[row.better(metric)]}"
    return value, difference, _ends(row.difference, metric), _share(row.closed)


def _means(outcome: Outcome, metric: str) -> str:
    label = METRICS[metric].label
    lines = [
        f"| arm | {label} | minus {plain(outcome.baseline)} | 95% interval | gap closed |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    lines += [f"| {plain(row.name)} | {' | '.join(_cells(row, metric))} |" for row in outcome.rows(metric)]
    return "\n".join(lines)


def _by_domain(outcome: Outcome, metric: str) -> str:
    """Differences in each domain; of the baseline, and in brackets, the values."""
    domains = [domain for domain in outcome.domains if domain != MEAN]
    found = {domain: {row.name: row for row in outcome.rows(metric, domain)} for domain in domains}
    names = list(dict.fromkeys(name for rows in found.values() for name in rows))
    lines = [f"| {METRICS[metric].label} | {' | '.join(map(plain, domains))} |", f"| --- |{' ---: |' * len(domains)}"]
    lines += [f"| {plain(name)} | {' | '.join(_one(found[d].get(name), metric) for d in domains)} |" for name in names]
    return "\n".join(lines)


def _one(row: Row | None, metric: str) -> str:
    if row is None:
        return "–"
    value, difference, ends, _ = _cells(row, metric)
    return f"{value} ({difference}, {ends})" if difference else value


def _chosen(outcome: Outcome) -> Iterator[str]:
    if any(outcome.chosen.values()):
        said = (f"{arm}: {json.dumps(setting)}" for arm, setting in outcome.chosen.items())
        yield f"Chosen on validation data: {'; '.join(said)}."


def _signed(value: float, metric: str) -> str:
    return f"{'+' if value >= 0 else ''}{METRICS[metric].show(value)}"


def _ends(interval: Interval, metric: str) -> str:
    return f"{_signed(interval.low, metric)} to {_signed(interval.high, metric)}"


def _share(closed: Interval | None) -> str:
    return "–" if closed is None else f"{100 * closed.value:.0f}% ({100 * closed.low:.0f} to {100 * closed.high:.0f})"
