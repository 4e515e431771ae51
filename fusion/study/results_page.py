"""Output of a study: tables in the terminal, results.md with all of them, results.csv for pandas, results.json, and figures."""

from __future__ import annotations

import csv
import io
import json
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
from matplotlib import rc_context
from matplotlib.figure import Figure

from fusion.core.markdown import plain
from fusion.core.text_files import read_text
from fusion.report.figures.drawing import BLUE, GREY, INK, ORANGE, STYLE, WIDTH, png
from fusion.runtime.artifacts import write_json, write_text
from fusion.runtime.console import console
from fusion.runtime.console_table import ConsoleTable
from fusion.study.growth import growth, numbered_arms
from fusion.study.growth_table import growth_tables
from fusion.study.results import ArmResult, StudyResults
from fusion.study.tuning import tuning_table
from fusion_eval.results import MEAN
from fusion_eval.statistics.intervals import Interval
from fusion_eval.statistics.metrics import METRICS

MARKS = {None: "", True: "★", False: "▼"}


def show_results(results: StudyResults, folder: Path) -> None:
    """Print the means, and where everything is written."""
    for metric in results.metrics:
        console.print(_table(results.rows(metric), metric))
    console.print(f"{folder / 'results.md'}, with figures and results.csv in the same folder.")


def write_results(results: StudyResults, folder: Path, so_far: str = "") -> None:
    """Write everything into the study's folder; `so_far` says on top of the page what is still missing."""
    for metric in results.metrics:
        (folder / f"{metric}.png").write_bytes(_figure(results, metric))
    rows = [(m, d, row) for m in results.metrics for d in results.domains for row in results.rows(m, d)]
    write_json(folder / "results.json", [{"metric": m, "domain": d} | asdict(row) for m, d, row in rows])
    write_text(folder / "results.csv", csv_table(rows))
    write_text(folder / "results.md", "\n\n".join([*([so_far] if so_far else []), markdown(results)]))


def csv_table(rows: Sequence[tuple[str, str, ArmResult]]) -> str:
    """One line for each metric, domain and arm, which pandas.read_csv reads: values and ends of intervals, unrounded.

    Shares are from 0 to 1; fields are empty where there is no such number, and `inf` where an interval has no end.
    """
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    parts = ("value", "difference", "gap_closed")
    columns = [name for part in parts for name in (part, f"{part}_low", f"{part}_high")]
    writer.writerow(["metric", "domain", "arm", "n", *columns])
    for metric, domain, row in rows:
        intervals = (getattr(row, part) for part in parts)
        cells = [[i.value, i.low, i.high] if i is not None else [None] * 3 for i in intervals]
        writer.writerow([metric, domain, row.name, row.value.n, *(cell for three in cells for cell in three)])
    return out.getvalue()


def markdown(results: StudyResults) -> str:
    """A table of means for each metric, then of each domain's differences, then what was tried and chosen.

    Where arms differ in a number, the tables of domains compare methods at the same number.
    """
    parts = [*(_means(results, metric) for metric in results.metrics)]
    if numbered_arms(list(results.by_arm)):
        parts.append(growth_tables(results))
    elif len(results.domains) > 2:
        parts += [_by_domain(results, metric) for metric in results.metrics]
    closed = "Closed: the share of the way from there to each domain's best source."
    return "\n\n".join([*parts, f"{caption(results)} {closed}", *_tuning(results)]) + "\n"


def summary(results: StudyResults) -> str:
    """One table of the means of all metrics, the best difference in the first of them on top; for a page."""
    first = _first(results)
    metrics = [first, *(metric for metric in results.metrics if metric != first)]
    rows = {metric: {row.name: row for row in results.rows(metric)} for metric in metrics}
    sign = -1 if METRICS[first].lower_is_better else 1
    names = sorted(results.by_arm, key=lambda name: -sign * rows[first][name].value.value)
    heads = [f"{METRICS[metric].label} (minus {plain(results.baseline)}, 95%)" for metric in metrics]
    lines = [f"| arm | {' | '.join(heads)} |", f"| --- |{' ---: |' * len(metrics)}"]
    for name in [*(result.model for result in results.original_models), *names]:
        lines.append(f"| {plain(name)} | {' | '.join(_one(rows[metric].get(name), metric) for metric in metrics)} |")
    return "\n".join([*lines, "", caption(results), *_chosen(results), ""])


def caption(results: StudyResults) -> str:
    """Return a paragraph that says how to read the tables: what is compared, over what, and what the marks mean."""
    runs = results.by_arm[results.baseline]
    several = len(runs) > 1
    over = (
        "paired by seed and example: a t interval over seeds, added to that over examples"
        if several
        else "paired by example; the luck of a training is not in it"
    )
    return (
        f"{len(runs)} seed{'s' if several else ''}, {len(runs[0].samples)} held-out examples; means over domains"
        f"{' and seeds' if several else ''}. In brackets the difference and its 95% interval, {over}. ★ better, ▼ worse than "
        f"{plain(results.baseline)}: the interval excludes 0."
    )


def insert_into_page(page: Path, name: str, results: StudyResults) -> None:
    """Put table and figure between the lines `<!-- study NAME -->` and `<!-- end -->` of a page; the figure goes to images/.

    Raises ValueError where the lines are not there.
    """
    found, first = find_markers(page, name), _first(results)
    images = page.parent / "images"
    images.mkdir(exist_ok=True)
    (images / f"{name}.png").write_bytes(_figure(results, first))
    text = f"{summary(results)}\n![{METRICS[first].label}, by arm](images/{name}.png)\n"
    whole = read_text(page)
    write_text(page, whole[: found.start(1)] + text + whole[found.end(1) :])


def find_markers(page: Path, name: str) -> re.Match[str]:
    """Match whose group 1 is the text between the markers of a page. Raises ValueError as `insert_into_page` does.

    Call it before a long study, so that a page without markers is an error at the start.
    """
    found = re.search(f"<!-- study {re.escape(name)} -->\n(.*?)<!-- end -->", read_text(page), re.DOTALL)
    if not found:
        raise ValueError(f"{page} has no place for it: write the lines <!-- study {name} --> and <!-- end --> there.")
    return found


def _figure(results: StudyResults, metric: str) -> bytes:
    """The PNG of a metric: over the number, where arms differ in one, else differences from the baseline."""
    if numbered_arms(list(results.by_arm)):
        return png(growth(results, metric))
    return png(differences(results.rows(metric), metric, results.baseline))


@rc_context(STYLE)
def differences(rows: list[ArmResult], metric: str, baseline: str) -> Figure:
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


def _first(results: StudyResults) -> str:
    """The metric that a page is sorted by."""
    return "exact_match" if "exact_match" in results.metrics else results.metrics[0]


def _table(rows: list[ArmResult], metric: str) -> ConsoleTable:
    table = ConsoleTable("arm", title=f"{METRICS[metric].label}, mean over domains", title_justify="left")
    for head in ("value", "minus baseline", "95% interval", "gap closed"):
        table.add_column(head, justify="right")
    for row in rows:
        table.add_row(row.name, *_cells(row, metric))
    return table


def _cells(row: ArmResult, metric: str) -> tuple[str, str, str, str]:
    value = METRICS[metric].show(row.value.value)
    if row.difference is None:
        return value, "", "", ""
    difference = f"{METRICS[metric].show_signed(row.difference.value)}{MARKS[row.better(metric)]}"
    return value, difference, _ends(row.difference, metric), _share(row.gap_closed)


def _means(results: StudyResults, metric: str) -> str:
    label = METRICS[metric].label
    lines = [
        f"| arm | {label} | minus {plain(results.baseline)} | 95% interval | gap closed |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    lines += [f"| {plain(row.name)} | {' | '.join(_cells(row, metric))} |" for row in results.rows(metric)]
    return "\n".join(lines)


def _by_domain(results: StudyResults, metric: str) -> str:
    """Differences in each domain; of the baseline, and in brackets, the values."""
    domains = [domain for domain in results.domains if domain != MEAN]
    found = {domain: {row.name: row for row in results.rows(metric, domain)} for domain in domains}
    names = list(dict.fromkeys(name for rows in found.values() for name in rows))
    lines = [f"| {METRICS[metric].label} | {' | '.join(map(plain, domains))} |", f"| --- |{' ---: |' * len(domains)}"]
    lines += [f"| {plain(name)} | {' | '.join(_one(found[d].get(name), metric) for d in domains)} |" for name in names]
    return "\n".join(lines)


def _one(row: ArmResult | None, metric: str) -> str:
    if row is None:
        return "–"
    value, difference, ends, _ = _cells(row, metric)
    return f"{value} ({difference}, {ends})" if difference else value


def _tuning(results: StudyResults) -> Iterator[str]:
    if results.tried:
        yield tuning_table(results.tried)


def _chosen(results: StudyResults) -> Iterator[str]:
    if any(results.chosen.values()):
        settings = (f"{arm}: {json.dumps(setting)}" for arm, setting in results.chosen.items())
        yield f"Chosen on validation data: {'; '.join(settings)}."


def _ends(interval: Interval, metric: str) -> str:
    return " to ".join(map(METRICS[metric].show_signed, (interval.low, interval.high)))


def _share(closed: Interval | None) -> str:
    if closed is None:
        return "–"
    ends = "no bounds" if math.isinf(closed.half) else f"{100 * closed.low:.0f} to {100 * closed.high:.0f}"
    return f"{100 * closed.value:.0f}% ({ends})"
