"""The command `fusion`. Torch and its friends are imported by the command that needs them, so that help is quick."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Annotated, Any

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
def merge(
    inputs: Annotated[
        list[str],
        typer.Argument(
            metavar="CONFIG | RECIPE | MODEL[:WEIGHT]...", help="What to merge; see above.", show_default=False
        ),
    ],
    override: Annotated[
        list[str],
        typer.Option("--set", metavar="A.B=C", help="Override a value of CONFIG, or set one of --method: density=0.5."),
    ] = [],  # noqa: B006
    method: Annotated[
        str | None, typer.Option(help="Merge the models that follow: linear, ties, sce, slerp, ...")
    ] = None,
    base: Annotated[Path | None, typer.Option(help="The model they grew from.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder of the merged model.")] = None,
    dtype: Annotated[str | None, typer.Option(help="float32, bfloat16 or float16; the base's if not said.")] = None,
    vocabulary: Annotated[str | None, typer.Option(help="refuse or pad models with more or fewer tokens.")] = None,
    search: Annotated[
        str | None, typer.Option(metavar="DATA", help="Choose the weights on this validation file, such as dev.jsonl.")
    ] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="As many as cores if not said.")] = None,
) -> None:
    """Merge models: those of a run, of a recipe, or of the command line.

    fusion merge CONFIG: everything of a run up to the merge of its pairwise models.

    fusion merge RECIPE.yaml --out DIR: a merge as a file, ours or mergekit's. A run has a pivot, a recipe has models.

    fusion merge --method ties --base DIR A:0.3 B:0.3 --out DIR: the same without a file.
    """
    from fusion.merge import recipe as recipes

    file = Path(inputs[0])
    raw = recipes.read(file) if method is None and len(inputs) == 1 and file.is_file() else None
    if method is None and (raw is None or not recipes.is_recipe(raw)):
        if len(inputs) > 1 or any(option is not None for option in (base, out, dtype, vocabulary, search, threads)):
            raise ValueError(
                f"{inputs[0]} is no recipe of a merge; give a recipe, or --method and the models to merge."
            )
        _run(inputs[0], override, "merge")
        return
    _merge(raw, inputs, override, method, base, out, threads, dtype=dtype, vocabulary=vocabulary, search=search)


@app.command()
def evaluate(config: ConfigFile, override: Set = []) -> None:  # noqa: B006
    """Measure every model of the run on held-out examples; does first what is missing."""
    _run(config, override, "evaluate")


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


def _merge(
    raw: dict[str, Any] | None,
    inputs: list[str],
    settings: list[str],
    method: str | None,
    base: Path | None,
    out: Path | None,
    threads: int | None,
    search: str | None,
    **options: str | None,
) -> None:
    from fusion import merging
    from fusion.merge.recipe import parse

    given: dict[str, Any] = {name: value for name, value in options.items() if value is not None}
    if search is not None:
        given["search"] = {"validation": {"path": search}}
    if method is not None:
        raw, origin = merging.from_arguments(method, base, inputs, settings, **given), "fusion merge"
    else:
        assert raw is not None
        origin = inputs[0]
        if settings or base:
            raise ValueError(
                f"{origin} is a recipe: write its base and settings there; --base and --set go with --method."
            )
    if out is None:
        raise ValueError("Name the folder of the merged model with --out.")
    recipe = parse(raw, origin)
    recipe = recipe if method else parse(recipe.model_dump(exclude_unset=True) | given, origin)
    merged = merging.run(recipe, out, threads)
    typer.echo(f"{out}: merged." if merged.made else f"{out}: there already, from exactly these inputs.")


def main() -> None:
    """Run the command; what a user can mend is said in one message. FUSION_TRACEBACK=1 shows where it arose."""
    try:
        app()
    except (ValueError, FileNotFoundError, FileExistsError, KeyError) as error:
        message = error.args[0] if isinstance(error, KeyError) and error.args else error
        typer.secho(f"Error: {message}", fg="red", err=True)
        if os.environ.get("FUSION_TRACEBACK"):
            raise
        sys.exit(1)
