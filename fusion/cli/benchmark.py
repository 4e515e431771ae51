"""The command `fusion benchmark`: any models on one suite of benchmarks, and how the last one compares with the others."""

from __future__ import annotations

import os
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from fusion.cli.app import app

if TYPE_CHECKING:
    from fusion_eval.runners.benchmark import BenchmarkOutcome, Comparisons
    from fusion_eval.runners.evaluate import BenchmarkSettings
    from fusion_eval.suites.suite import Suite


@app.command()
def benchmark(
    models: Annotated[
        list[str], typer.Argument(metavar="[NAME=]MODEL...", help="The pivot first, the fused one last.")
    ],
    suite: Annotated[str, typer.Option(help="infi11, infi11-stock, quick, math, code, reasoning, or a YAML file.")],
    data: Annotated[Path | None, typer.Option(help="Folder with the benchmarks' files; else the hub.")] = None,
    out: Annotated[Path, typer.Option(help="Folder for results and answers.")] = Path("evaluations"),
    limit: Annotated[int | None, typer.Option(min=1, help="Questions of each task.")] = None,
    max_new_tokens: Annotated[int | None, typer.Option(min=1, help="Longest answer, in tokens.")] = None,
    template: Annotated[
        Literal["auto", "chat", "plain"] | None, typer.Option(help="How prompts are written; else as the suite says.")
    ] = None,
    scoring: Annotated[
        Literal["fusion", "lm_eval"] | None,
        typer.Option(help="Whose rules say which answers are right; else as the suite says."),
    ] = None,
    backend: Annotated[Literal["transformers", "vllm"], typer.Option(help="What runs the models.")] = "transformers",
    dtype: Annotated[Literal["float32", "bfloat16", "float16"], typer.Option(help="Type of weights.")] = "float32",
    allow_code_execution: Annotated[
        bool, typer.Option("--allow-code-execution", help="Run the programs models write, in a sandbox.")
    ] = False,
    guard: Annotated[str, typer.Option(metavar="NAMES", help="Fail where the last model is worse than these.")] = "",
    baseline: Annotated[str | None, typer.Option(metavar="NAME", help="The fine-tuned model, for the gap.")] = None,
    fusion_data: Annotated[list[Path], typer.Option(help="JSON lines to search for test questions.")] = [],  # noqa: B006
    ngram: Annotated[int, typer.Option(help="Words in a row that count as found.")] = 13,
    subsets: Annotated[bool, typer.Option("--subsets", help="Print a table of each task's subsets.")] = False,
) -> None:
    """Measure models on benchmarks and compare the last one, the fused model, with the others."""
    if find_spec("lm_eval") is None:
        raise ValueError("Benchmarks need lm-eval: pip install 'logit-fusion[eval]'.")
    os.environ.setdefault("TQDM_DISABLE", "1")  # read when lm-eval is imported; the bars are ours
    from fusion.core.secrets import refuse_secrets
    from fusion.core.system_errors import naming
    from fusion.runtime.console import quiet
    from fusion.runtime.distributed import device
    from fusion_eval.runners.benchmark import Comparisons
    from fusion_eval.runners.evaluate import BenchmarkSettings

    quiet()
    refuse_secrets([word.partition("=")[2] if "=" in word else word for word in models], "MODEL")
    settings = BenchmarkSettings(
        data, limit, max_new_tokens, template, allow_code_execution, backend, dtype, device(), scoring=scoring
    )
    guards = [name.strip() for name in guard.split(",") if name.strip()]
    comparisons = Comparisons(guards, baseline, fusion_data, ngram)
    with naming(out):
        outcome = _run(models, suite, settings, comparisons, out=out)
    _print(outcome, comparisons, subsets)
    for regression in outcome.regressions:
        typer.secho(f"Worse: {regression}", fg="red", err=True)
    if outcome.regressions:
        raise typer.Exit(3)


def _run(
    models: Sequence[str], suite: str, settings: BenchmarkSettings, comparisons: Comparisons, *, out: Path
) -> BenchmarkOutcome:
    from fusion.runtime.console import pending_bar
    from fusion_eval.runners.benchmark import benchmark as run_benchmark
    from fusion_eval.runners.benchmark import check_comparisons, parse_models
    from fusion_eval.suites.suite import load_suite

    refs, loaded = parse_models(models), load_suite(suite)
    check_comparisons(refs, comparisons)
    _announce(list(refs), loaded, settings)
    return run_benchmark(
        refs,
        loaded,
        settings,
        comparisons,
        out=out,
        progress=lambda name: pending_bar(f"{loaded.name}, {name}", "requests"),
    )


def _announce(models: Sequence[str], suite: Suite, settings: BenchmarkSettings) -> None:
    from fusion.grading.sandbox import describe_containment
    from fusion.runtime.console import console
    from fusion_eval.runners.evaluate import doc_limit, scoring_of, why_skipped
    from fusion_eval.suites.tasks import runs_code

    code = [task for task in suite.tasks if runs_code(task)]
    questions = ", ".join(f"{task} ({doc_limit(suite, settings, task) or 'all'})" for task in suite.tasks)
    console.print(f"[bold]{suite.name}[/]: {len(models)} models, questions of each task: {questions}")
    if scoring_of(suite, settings) == "lm_eval":
        console.print("Scored by lm-eval's own filters and metrics.")
    if code and settings.allow_code_execution:
        console.print(describe_containment())
    skipped = {task: reason for task in suite.tasks if (reason := why_skipped(task, suite, settings))}
    for reason in dict.fromkeys(skipped.values()):
        console.print(
            f"[yellow]Left out: {', '.join(task for task in skipped if skipped[task] == reason)}; {reason}.[/]"
        )


def _print(outcome: BenchmarkOutcome, comparisons: Comparisons, subsets: bool) -> None:
    from fusion.report.benchmark_tables import contamination_table, gap_table, subset_tables
    from fusion.report.score_table import terminal_tables
    from fusion.runtime.console import console

    console.print(*terminal_tables(outcome.results, baseline=comparisons.baseline), sep="\n")
    if subsets:
        console.print(*subset_tables(outcome.results), sep="\n")
    if outcome.gaps:
        console.print(gap_table(outcome.gaps))
    elif outcome.gaps is not None:
        console.print("No gap to close: no sources stand between the first and the last model.")
    if outcome.overlaps is not None:
        console.print(contamination_table(outcome.overlaps, comparisons.ngram))
