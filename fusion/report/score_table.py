"""Tables for terminal and Markdown: models against domains and metrics, and what each source knows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.text import Text

from fusion.core.markdown import plain
from fusion.report.run_contents import helping_rows
from fusion.report.verdict import helping_verdict, mark
from fusion.runtime.console_table import ConsoleTable
from fusion.runtime.run_file import Helping
from fusion_eval.results import MEAN, Result
from fusion_eval.statistics.bootstrap import RESAMPLES
from fusion_eval.statistics.comparison import Scores, compare, summarise
from fusion_eval.statistics.intervals import COVERAGE, Interval
from fusion_eval.statistics.metrics import METRICS


@dataclass(frozen=True)
class Cell:
    """One metric of one model in one domain; `interval` is None where it was not measured."""

    metric: str
    interval: Interval | None
    best: bool
    """Whether no other model has a better value in this column; never where there is only one model."""
    mark: str
    """★ or ▼ where the paired interval against the baseline excludes 0."""

    @property
    def value(self) -> str:
        """The value, scaled as the metric's label says; – where there is none."""
        return "–" if self.interval is None else METRICS[self.metric].show(self.interval.value)

    @property
    def spread(self) -> str:
        """± half the interval, or both its ends where it is not symmetric, scaled alike; empty where there is no value."""
        return "" if self.interval is None else METRICS[self.metric].show_spread(self.interval)

    @property
    def text(self) -> str:
        """Value, spread and mark."""
        return f"{self.value} {self.spread}{self.mark}".rstrip()


@dataclass(frozen=True)
class ScoreTable:
    """What every form of the table shows: a row for each model as given, a column for each domain and metric."""

    columns: list[tuple[str, str]]
    rows: list[tuple[str, list[Cell]]]
    caption: str

    def labels(self) -> list[tuple[str, str]]:
        """Head of each column: the domain, and the metric with an arrow towards better."""
        return [
            (domain, f"{METRICS[m].label} {'↓' if METRICS[m].lower_is_better else '↑'}") for domain, m in self.columns
        ]

    def for_metric(self, metric: str) -> tuple[str, list[str], list[tuple[str, list[Cell]]]]:
        """Columns of one metric: its label with the arrow, its domains, and the rows."""
        at = [index for index, (_, column) in enumerate(self.columns) if column == metric]
        labels = self.labels()
        rows = [(model, [cells[index] for index in at]) for model, cells in self.rows]
        return labels[at[0]][1], [labels[index][0] for index in at], rows


def score_table(results: Sequence[Result], baseline: str | None, *, resamples: int = RESAMPLES) -> ScoreTable:
    """Numbers of all models, with marks against the model named `baseline`, or without marks where it is None.

    Raises ValueError when there are no results, two of one model, several suites, an unknown baseline, or when a model
    was measured on other items than the baseline.
    """
    _check(results, baseline)
    scores = {result.model: summarise(result, resamples=resamples) for result in results}
    base = next((result for result in results if result.model == baseline), None)
    differences: dict[str, Scores] = {}
    if base is not None:
        differences = {r.model: compare(r, base, resamples=resamples) for r in results if r is not base}
    domains = list(dict.fromkeys(domain for score in scores.values() for domain in score))
    domains = sorted(domains, key=lambda domain: domain == MEAN)  # keeps the order, but for the mean: last
    columns = [(d, m) for d in domains for m in METRICS if any(m in score.get(d, {}) for score in scores.values())]
    rows = [
        (model, [_cell(column, model, scores, differences.get(model, {})) for column in columns]) for model in scores
    ]
    return ScoreTable(columns, rows, _caption(columns, scores, baseline) + truncated_prompts(results))


def terminal_tables(
    results: Sequence[Result], baseline: str | None, *, resamples: int = RESAMPLES
) -> list[ConsoleTable]:
    """Tables for the terminal, one a metric; see `score_table` for what is in them and for its errors."""
    numbers = score_table(results, baseline, resamples=resamples)
    tables = []
    for metric in dict.fromkeys(metric for _, metric in numbers.columns):
        label, domains, rows = numbers.for_metric(metric)
        tables.append(ConsoleTable("model", title=Text(label, style="bold"), title_justify="left"))
        for domain in domains:
            tables[-1].add_column(Text(domain), justify="right")
        for model, cells in rows:
            tables[-1].add_row(Text(model), *(Text(cell.text, style="bold" if cell.best else "") for cell in cells))
    tables[-1].caption, tables[-1].caption_justify = Text(numbers.caption), "left"
    return tables


def markdown(results: Sequence[Result], baseline: str | None, *, resamples: int = RESAMPLES) -> str:
    """The same as a Markdown table with its caption below, for documents and the model card."""
    numbers = score_table(results, baseline, resamples=resamples)
    head = ["model", *(f"{plain(domain)} {label}" for domain, label in numbers.labels())]
    lines = [head, ["---", *("---:" for _ in numbers.columns)]]
    for model, cells in numbers.rows:
        lines.append([plain(model), *(f"**{cell.text}**" if cell.best else cell.text for cell in cells)])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + f"\n\n{plain(numbers.caption)}\n"


def helping_table(rows: Iterable[Any]) -> ConsoleTable:
    """What each source knows of each domain against the pivot; gold columns in nats per byte, nearer 0 is better."""
    table = ConsoleTable(caption=HELPING_CAPTION, caption_justify="left")
    for name in ("source", "domain"):
        table.add_column(name)
    for name in ("rows", "match", "gold source", "gold pivot", "differ-\nence", "weight"):
        table.add_column(name, justify="right")
    table.add_column("verdict")
    styles = {"knows more": "green", "knows less": "red"}
    for row in helping_rows(rows):
        *cells, verdict = helping_cells(row)
        table.add_row(*map(Text, cells), Text(verdict, style=styles.get(verdict, "")))
    return table


HELPING_CAPTION = (
    "gold: mean log-probability of the text that is learned from, in nats per byte, nearer 0 is better; a source finds likely "
    "what it wrote itself. difference: source less pivot. match: share of the pivot's rows that meet a row of the source. "
    "weight: how much the source counts where they meet, mean over these rows and the training; 0 is not at all."
)


def helping_cells(row: Helping) -> list[str]:
    """The nine columns of `helping_table` as text."""
    gold = ["–"] * 3
    if row.gold_source is not None and row.gold_pivot is not None:
        difference = row.gold_source - row.gold_pivot
        gold = [f"{row.gold_source:.3f}", f"{row.gold_pivot:.3f}", f"{difference:+.3f}"]
    weight = "–" if row.weight is None else f"{row.weight:.2f}"
    return [row.source, row.domain, f"{row.rows:,}", f"{row.match_rate:.1%}", *gold, weight, helping_verdict(row)]


def _cell(column: tuple[str, str], model: str, scores: Mapping[str, Scores], differences: Scores) -> Cell:
    domain, metric = column
    values = {name: s[domain][metric].value for name, s in scores.items() if metric in s.get(domain, {})}
    if model not in values:
        return Cell(metric, None, best=False, mark="")
    beaten = any(METRICS[metric].better(value - values[model]) for value in values.values())
    difference = differences.get(domain, {}).get(metric)
    shown_mark = "" if difference is None else mark(metric, difference)
    return Cell(metric, scores[model][domain][metric], best=len(values) > 1 and not beaten, mark=shown_mark)


def _caption(columns: Sequence[tuple[str, str]], scores: Mapping[str, Scores], baseline: str | None) -> str:
    counts: dict[str, set[int]] = {domain: set() for domain, _ in columns}
    for score in scores.values():
        for domain, metrics in score.items():
            counts[domain] |= {interval.n for interval in metrics.values()}
    n = ", ".join(f"{domain} {' or '.join(map(str, sorted(found)))}" for domain, found in counts.items())
    stars = ""
    if baseline is not None:
        stars = f" ★ better, ▼ worse than {baseline}: the paired {COVERAGE:.0%} interval of the difference excludes 0."
    return (
        f"Value ± half the {COVERAGE:.0%} interval over examples, or both ends where it is not symmetric (of right answers, "
        f"Wilson's interval); the best of a column is bold.{stars} n: {n}."
    )


def truncated_prompts(results: Sequence[Result]) -> str:
    """A sentence on the prompts that were cut to fit a model's context, by model and domain; empty where none was."""
    found: dict[str, Counter[str]] = {}
    for result in results:
        cut = Counter(sample.domain for sample in result.samples if sample.prompt_tokens_cut)
        if cut:
            found[result.model] = cut
    if not found:
        return ""
    listed = "; ".join(f"{model}: {', '.join(f'{n} in {d}' for d, n in cut.items())}" for model, cut in found.items())
    return f" Prompts whose beginning was cut off to fit the model's context: {listed}."


def _check(results: Sequence[Result], baseline: str | None) -> None:
    models, suites = [result.model for result in results], sorted({result.suite for result in results})
    if not results:
        raise ValueError("There are no results to show; evaluate a model first.")
    if len(suites) > 1:
        raise ValueError(f"A table shows one suite, these results are of {', '.join(suites)}; make one table for each.")
    if len(set(models)) < len(models):
        raise ValueError(f"Two results bear the same model name; give each its own: {', '.join(models)}.")
    if baseline is not None and baseline not in models:
        raise ValueError(f"The baseline {baseline!r} is not among the models evaluated: {', '.join(models)}.")
