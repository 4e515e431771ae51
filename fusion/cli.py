"""The command `fusion`. Torch and its friends are imported by the command that needs them, so that help is quick."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Annotated

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
    rescaling: Annotated[
        float | None,
        typer.Option(
            "--rescaling", min=0, max=1, metavar="SHARE", help="How distillation with this share rescales examples."
        ),
    ] = None,
) -> None:
    """Show the models, vocabularies and caches of a run; with --alignment what matches and what never does.

    With --rescaling, of extracted sources, the factor on each true token's gradient by domain and certainty of the pivot.
    """
    from fusion import configfile
    from fusion.inspect import audit_all, overview, rescaling_all
    from fusion.job import Job
    from fusion.progress import console, quiet
    from fusion.tables import audit_tables, overview_table, rescaling_table

    quiet()
    job = Job(configfile.load(config, override))
    console.print(overview_table(overview(job)))
    if alignment:
        for name, audit in audit_all(job).items():
            console.print(*audit_tables(name, audit))
    if rescaling is not None:
        for name, entries in rescaling_all(job, rescaling).items():
            console.print(rescaling_table(name, entries))


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
