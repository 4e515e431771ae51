"""Commands that evaluate models."""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Literal

import typer

from fusion.cli.app import Set, app
from fusion.cli.runs import until


@app.command()
def evaluate(
    targets: Annotated[
        list[str], typer.Argument(metavar="CONFIG | MODELS...", help="A run's CONFIG; with --suite, [NAME=]MODEL each.")
    ],
    override: Set = [],  # noqa: B006
    suite: Annotated[
        str | None, typer.Option(help="infi11, infi11-stock, quick, math, code, reasoning, or a YAML file.")
    ] = None,
    data: Annotated[Path | None, typer.Option(help="Folder with the benchmarks' files; else the hub.")] = None,
    out: Annotated[Path, typer.Option(help="Folder for results and answers.")] = Path("evaluations"),
    limit: Annotated[int | None, typer.Option(min=1, help="Questions of each task.")] = None,
    max_new_tokens: Annotated[int | None, typer.Option(min=1, help="Longest answer, in tokens.")] = None,
    template: Annotated[
        Literal["auto", "chat", "plain"] | None, typer.Option(help="How prompts are written; else as the suite says.")
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
    """Measure the models of a run on held-out examples (CONFIG), or any models on benchmarks (MODELS --suite NAME)."""
    if suite is None:
        _only_with_suite(
            targets, data=data, limit=limit, max_new_tokens=max_new_tokens, template=template, guard=guard,
            allow_code_execution=allow_code_execution, baseline=baseline, fusion_data=fusion_data, subsets=subsets,
            out=out != Path("evaluations"), backend=backend != "transformers", dtype=dtype != "float32", ngram=ngram != 13,
        )  # fmt: skip
        until(targets[0], override, "evaluate")
        return
    if override:
        raise ValueError("--set changes a CONFIG; with --suite there is none.")
    if find_spec("lm_eval") is None:
        raise ValueError("Benchmarks need lm-eval: pip install 'logit-fusion[eval]'.")
    os.environ.setdefault("TQDM_DISABLE", "1")  # read when lm-eval is imported; the bars are ours
    from fusion.cli.benchmark_report import Wanted, benchmark
    from fusion.runtime.console import quiet
    from fusion.runtime.distributed import device
    from fusion_eval.runners.evaluate import Settings

    quiet()
    how = Settings(data, limit, max_new_tokens, template, allow_code_execution, backend, dtype, device())
    names = [name.strip() for name in guard.split(",") if name.strip()]
    worse = benchmark(targets, suite, how, Wanted(names, baseline, fusion_data, ngram, subsets), out)
    for regression in worse:
        typer.secho(f"Worse: {regression}", fg="red", err=True)
    if worse:
        raise typer.Exit(3)


def _only_with_suite(targets: list[str], **given: object) -> None:
    """Raise ValueError where something was asked that only `--suite` can do."""
    if options := [f"--{name.replace('_', '-')}" for name, value in given.items() if value]:
        raise ValueError(f"{', '.join(options)} needs --suite, such as --suite quick; without it a CONFIG says all.")
    if len(targets) > 1:
        raise ValueError("Several models need --suite, such as --suite quick; without it, name one CONFIG.")
