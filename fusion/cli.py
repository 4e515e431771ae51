"""The command `fusion`. Torch and its friends are imported by the command that needs them, so that help is quick."""

from __future__ import annotations

import json
import os
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Literal

import typer

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Fuse several language models, each with its own tokenizer, into one better model.",
)

ConfigFile = Annotated[
    str, typer.Argument(metavar="CONFIG", help="A YAML file, or the name of a recipe (fusion recipes).")
]
Set = Annotated[list[str], typer.Option("--set", metavar="A.B=C", help="Override a value; may be given again.")]


@app.command()
def run(config: ConfigFile, override: Set = []) -> None:  # noqa: B006  (typer reads the default, nothing writes to it)
    """Do everything: extract, train, merge, evaluate, report. What is done is not done again."""
    _run(config, override, "report")


@app.command()
def plan(config: ConfigFile, override: Set = []) -> None:  # noqa: B006
    """Say what a run will take, before anything runs; no weights are read."""
    from fusion import configfile
    from fusion.job import Job
    from fusion.plan import domains
    from fusion.plan import plan as estimate
    from fusion.progress import console, quiet
    from fusion.tables import plan_table

    quiet()
    job = Job(configfile.load(config, override))
    console.print(plan_table(estimate(job)))
    console.print(domains(job))


@app.command()
def extract(config: ConfigFile, override: Set = []) -> None:  # noqa: B006
    """Let every model read the training examples, and keep what it would have said in the cache."""
    _run(config, override, "extract")


@app.command()
def train(config: ConfigFile, override: Set = []) -> None:  # noqa: B006
    """Train the pivot; extracts first what is missing."""
    _run(config, override, "train")


@app.command()
def merge(config: ConfigFile, override: Set = []) -> None:  # noqa: B006
    """Merge pairwise models and write the fused model; trains first what is missing."""
    _run(config, override, "merge")


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
        _run(targets[0], override, "evaluate")
        return
    if override:
        raise ValueError("--set changes a CONFIG; with --suite there is none.")
    if find_spec("lm_eval") is None:
        raise ValueError("Benchmarks need lm-eval: pip install 'logit-fusion[eval]'.")
    os.environ.setdefault("TQDM_DISABLE", "1")  # read when lm-eval is imported; the bars are ours
    from fusion.benchmark import Wanted, benchmark
    from fusion.progress import quiet
    from fusion.steps import device
    from fusion_eval.evaluate import Settings

    quiet()
    how = Settings(data, limit, max_new_tokens, template, allow_code_execution, backend, dtype, device())
    names = [name.strip() for name in guard.split(",") if name.strip()]
    worse = benchmark(targets, suite, how, Wanted(names, baseline, fusion_data, ngram, subsets), out)
    for regression in worse:
        typer.secho(f"Worse: {regression}", fg="red", err=True)
    if worse:
        raise typer.Exit(3)


@app.command()
def report(
    folder: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a run, such as runs/quickstart.")],
) -> None:
    """Write report.html of a run again from what lies in its folder."""
    from fusion.report.page import write_report

    typer.echo(write_report(folder))


@app.command()
def inspect(
    config: ConfigFile,
    override: Set = [],  # noqa: B006
    alignment: Annotated[
        bool, typer.Option("--alignment", help="Audit how tokens of each source meet the pivot's.")
    ] = False,
) -> None:
    """Show the models, the vocabularies and the caches of a run; with --alignment what matches and what never does."""
    from fusion import configfile
    from fusion.inspect import audit_all, overview
    from fusion.job import Job
    from fusion.progress import console, quiet
    from fusion.tables import audit_tables, overview_table

    quiet()
    job = Job(configfile.load(config, override))
    console.print(overview_table(overview(job)))
    if alignment:
        for name, audit in audit_all(job).items():
            console.print(*audit_tables(name, audit))


@app.command()
def recipes() -> None:
    """List the configurations that come with the package."""
    from fusion.recipes import recipes as known

    for name, file in known().items():
        typer.echo(f"{name:<24} {file.read_text().splitlines()[0].removeprefix('# ')}")


@app.command()
def schema() -> None:
    """Print the JSON schema of a configuration, for editors."""
    from fusion.config import Config

    typer.echo(json.dumps(Config.model_json_schema(), indent=2))


def _run(config: str, override: list[str], until: str) -> None:
    from fusion import configfile, pipeline
    from fusion.progress import quiet

    quiet()
    pipeline.run(configfile.load(config, override), until)


def _only_with_suite(targets: list[str], **given: object) -> None:
    """Raise ValueError where something was asked that only `--suite` can do."""
    if options := [f"--{name.replace('_', '-')}" for name, value in given.items() if value]:
        raise ValueError(f"{', '.join(options)} needs --suite, such as --suite quick; without it a CONFIG says all.")
    if len(targets) > 1:
        raise ValueError("Several models need --suite, such as --suite quick; without it, name one CONFIG.")


def main() -> None:
    """Run the command; what a user can mend is said in one message. FUSION_TRACEBACK=1 shows where it arose."""
    try:
        app()
    except (ValueError, FileNotFoundError, KeyError) as error:
        message = error.args[0] if isinstance(error, KeyError) and error.args else error
        typer.secho(f"Error: {message}", fg="red", err=True)
        if os.environ.get("FUSION_TRACEBACK"):
            raise
        sys.exit(1)
