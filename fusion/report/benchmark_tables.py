"""Tables of `fusion benchmark`: scores by subset, the gap that fusion closes, and test questions found in training data."""

from __future__ import annotations

from collections.abc import Sequence

from rich.markup import escape
from rich.text import Text

from fusion.runtime.console_table import ConsoleTable
from fusion_eval.results import Result
from fusion_eval.runners.contamination import DomainOverlap
from fusion_eval.statistics.comparison import by_subset, summarise
from fusion_eval.statistics.gap import Gap
from fusion_eval.statistics.metrics import METRICS


def subset_tables(results: Sequence[Result]) -> list[ConsoleTable]:
    """One table for each task that has subsets, with all models side by side."""
    subsets = [by_subset(result) for result in results]
    return [subset_table([of_model[task] for of_model in subsets]) for task in subsets[0]]


def subset_table(results: Sequence[Result]) -> ConsoleTable:
    """Accuracy of each model in each subset of one task, a row for each subset."""
    table = ConsoleTable("subset", title=results[0].suite, title_justify="left")
    for name in ("n", *(escape(result.model) for result in results)):
        table.add_column(name, justify="right")
    scores = [summarise(result) for result in results]
    for subset, metrics in scores[0].items():
        cells = [score[subset]["accuracy"] for score in scores]
        shown = (f"{METRICS['accuracy'].show(i.value)} {METRICS['accuracy'].show_spread(i)}" for i in cells)
        table.add_row(Text(subset), str(metrics["accuracy"].n), *shown)
    return table


def gap_table(gaps: Sequence[Gap]) -> ConsoleTable:
    """How far fusion has come from plain fine-tuning to the best source, a row for each task and metric."""
    table = ConsoleTable(
        "task", "metric", title="The gap that fusion closes", title_justify="left", caption_justify="left",
        caption="(fused - fine-tuned) / (best source - fine-tuned), with its 95% interval over questions",
    )  # fmt: skip
    for name in ("fine-tuned", "fused", "best source", "gap closed %"):
        table.add_column(name, justify="right")
    for gap in gaps:
        show = METRICS[gap.metric].show
        share = "no source is better" if gap.closed is None else _percent(gap.closed.value)
        if gap.closed is not None:
            share += f" ({_percent(gap.closed.low)} to {_percent(gap.closed.high)})"
        source = f"{show(gap.source)} {gap.best_source}".rstrip()
        table.add_row(
            Text(gap.domain), METRICS[gap.metric].label, show(gap.baseline), show(gap.fused), Text(source), share
        )
    return table


def contamination_table(overlaps: Sequence[DomainOverlap], ngram: int) -> ConsoleTable:
    """How many test questions share an n-gram of words with the fusion data, and the accuracy on these and on the others."""
    table = ConsoleTable(
        "task", title=f"Test questions in the fusion data: {ngram} words in a row", title_justify="left"
    )
    for name in ("checked", "in the data", "too short", "accuracy there %", "elsewhere %"):
        table.add_column(name, justify="right")
    for overlap in overlaps:
        scores = [
            "" if i is None else METRICS["accuracy"].show(i.value)
            for i in (overlap.contaminated_score, overlap.clean_score)
        ]
        counts = (overlap.checked, len(overlap.contaminated_ids), overlap.too_short)
        table.add_row(Text(overlap.domain), *map(str, counts), *scores)
    return table


def _percent(value: float) -> str:
    return f"{'-' if value < 0 else ''}∞" if value in (float("inf"), float("-inf")) else f"{100 * value:.0f}"
