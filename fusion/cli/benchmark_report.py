"""`fusion evaluate MODELS... --suite NAME`: several models on one suite, and what follows from it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.markup import escape
from rich.table import Table
from rich.text import Text

from fusion.grading.sandbox import statement
from fusion.models.loading import ModelRef
from fusion.report.score_table import terminal_tables
from fusion.runtime.artifacts import write_json
from fusion.runtime.console import bar, console
from fusion_eval.results import Result
from fusion_eval.runners.contamination import WORDS, Overlap, overlaps, texts_of
from fusion_eval.runners.evaluate import NO_CODE, Progress, Settings, evaluate
from fusion_eval.statistics.comparison import by_subset, summarise
from fusion_eval.statistics.gap import Gap, gap_closed
from fusion_eval.statistics.guard import Regression, regressions
from fusion_eval.statistics.metrics import METRICS
from fusion_eval.suites.suite import Suite, load_suite
from fusion_eval.suites.tasks import runs_code


@dataclass(frozen=True)
class Wanted:
    """What to compare, and with whom."""

    guard: Sequence[str] = ()
    """Names of models than which the last one must not be worse."""
    baseline: str | None = None
    """Name of the plainly fine-tuned model, from which the gap is counted; None leaves the gap out."""
    fusion_data: Sequence[Path] = ()
    """JSON lines the models were fused on, searched for test questions."""
    ngram: int = WORDS
    subsets: bool = False
    """Whether to print a table of each task's subsets."""


def benchmark(models: Sequence[str], suite: str, how: Settings, wanted: Wanted, out: Path) -> list[Regression]:
    """Evaluate all models, print and keep what follows, and give what the guard found: pivot first, fused model last.

    Raises ValueError for models that bear one name, for unknown names in `wanted`, and what evaluation raises.
    """
    refs, chosen = named(models), load_suite(suite)
    _check(list(refs), wanted)
    for ref in refs.values():
        ref.local  # a wrong path is told before the first model is asked  # noqa: B018
    _announce(list(refs), chosen, how)
    results = [_evaluate(name, ref, chosen, how, out) for name, ref in refs.items()]
    others = {result.model: result for result in results[:-1]}
    console.print(*terminal_tables(results, baseline=wanted.baseline), sep="\n")
    if wanted.subsets:
        console.print(*(subset_table(parts) for parts in _by_subset(results)), sep="\n")
    if wanted.baseline is not None:
        sources = [result for result in results[1:-1] if result.model != wanted.baseline]
        _show_gap(gap_closed(results[-1], others[wanted.baseline], sources) if sources else [])
    if wanted.fusion_data:
        found = overlaps(results[-1].items, texts_of(wanted.fusion_data), wanted.ngram)
        write_json(out / f"contamination-{chosen.name}.json", [asdict(overlap) for overlap in found])
        console.print(contamination_table(found, wanted.ngram))
    return regressions(results[-1], [others[name] for name in wanted.guard])


def named(models: Sequence[str]) -> dict[str, ModelRef]:
    """Each model by its name: what stands before `=`, else the last part of its path. Raises ValueError for one name twice."""
    refs: dict[str, ModelRef] = {}
    for model in models:
        match = None if Path(model).exists() else re.fullmatch(r"([\w.-]+)=(.+)", model)
        name, path = (
            match.groups() if match else (Path(model).stem if model.endswith(".gguf") else Path(model).name, model)
        )
        if name in refs:
            raise ValueError(f"Two models are called {name}; give one another name: other={path}.")
        refs[name] = ModelRef(path)
    return refs


def _check(names: Sequence[str], wanted: Wanted) -> None:
    for option, given in [("--guard", wanted.guard), ("--baseline", [wanted.baseline] if wanted.baseline else [])]:
        if unknown := [name for name in given if name not in names[:-1]]:
            raise ValueError(
                f"{option} {','.join(unknown)}: no such model to compare {names[-1]} with; there are "
                f"{', '.join(names[:-1]) or 'none'}. Name a model with name=path."
            )


def _announce(names: Sequence[str], suite: Suite, how: Settings) -> None:
    code = [task for task in suite.tasks if runs_code(task)]
    limits = {task: suite.limit.get(task) if how.limit is None else how.limit for task in suite.tasks}
    asked = ", ".join(f"{task} ({limit or 'all'})" for task, limit in limits.items())
    console.print(f"[bold]{suite.name}[/]: {len(names)} models, questions of each task: {asked}")
    if code and how.allow_code_execution:
        console.print(statement())
    elif code:
        console.print(f"[yellow]Left out: {', '.join(code)}; {NO_CODE}.[/]")


def _evaluate(name: str, ref: ModelRef, suite: Suite, how: Settings, out: Path) -> Result:
    with _bar(f"{suite.name}, {name}") as start:
        return evaluate(name, ref, suite, how, out, start)


@contextmanager
def _bar(title: str) -> Iterator[Callable[[int], Progress]]:
    """A bar that begins once the number of requests is known."""
    with ExitStack() as stack:
        yield lambda total: stack.enter_context(bar(title, total))


def _by_subset(results: Sequence[Result]) -> list[list[Result]]:
    parts = [by_subset(result) for result in results]
    return [[found[domain] for found in parts] for domain in parts[0]]


def subset_table(results: Sequence[Result]) -> Table:
    """Accuracy of each model in each subset of one task, a row for each subset."""
    table = Table(
        "subset", "n", *(escape(result.model) for result in results), title=results[0].suite, title_justify="left"
    )
    scores = [summarise(result) for result in results]
    for subset, metrics in scores[0].items():
        cells = [score[subset]["accuracy"] for score in scores]
        shown = (f"{METRICS['accuracy'].show(i.value)} ±{METRICS['accuracy'].show(i.half)}" for i in cells)
        table.add_row(Text(subset), str(metrics["accuracy"].n), *shown)
    return table


def _show_gap(gaps: Sequence[Gap]) -> None:
    console.print(
        gap_table(gaps) if gaps else "No gap to close: no sources stand between the first and the last model."
    )


def gap_table(gaps: Sequence[Gap]) -> Table:
    """The share of the way from fine-tuning to the best source that fusion has gone."""
    table = Table(
        "task", "metric", "fine-tuned", "fused", "best source", "gap closed %",
        title="The gap that fusion closes", title_justify="left", caption_justify="left",
        caption="(fused - fine-tuned) / (best source - fine-tuned), with its 95% interval over questions",
    )  # fmt: skip
    for gap in gaps:
        show = METRICS[gap.metric].show
        share = "no source is better" if gap.closed is None else _percent(gap.closed.value)
        if gap.closed is not None:
            share += f" ({_percent(gap.closed.low)} to {_percent(gap.closed.high)})"
        source = f"{show(gap.source)} {gap.best}".rstrip()
        table.add_row(
            Text(gap.domain), METRICS[gap.metric].label, show(gap.baseline), show(gap.fused), Text(source), share
        )
    return table


def _percent(value: float) -> str:
    return f"{'-' if value < 0 else ''}∞" if value in (float("inf"), float("-inf")) else f"{100 * value:.0f}"


def contamination_table(found: Sequence[Overlap], n: int) -> Table:
    """How many test questions stand in the fusion data."""
    table = Table(
        "task", "checked", "in the data", "too short", "accuracy there %", "elsewhere %",
        title=f"Test questions in the fusion data: {n} words in a row", title_justify="left",
    )  # fmt: skip
    for overlap in found:
        scores = [
            "" if i is None else METRICS["accuracy"].show(i.value) for i in (overlap.score_found, overlap.score_clean)
        ]
        counts = (overlap.checked, len(overlap.found), overlap.short)
        table.add_row(Text(overlap.domain), *map(str, counts), *scores)
    return table
