"""Commands on configurations: recipes of the package, studies of several, the JSON schema."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from fusion.cli.app import app


@app.command()
def recipes(
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="Print this one instead, as it stands.")] = None,
) -> None:
    """List the configurations that come with the package, or print one."""
    from fusion.config.recipes import recipes as known
    from fusion.core.settings import suggest

    if name is not None:
        if name not in known():
            raise ValueError(f"There is no recipe {name}{suggest(name, set(known()))}")
        typer.echo(known()[name].read_text(), nl=False)
        return
    for each, file in known().items():
        typer.echo(f"{each:<24} {file.read_text().splitlines()[0].removeprefix('# ')}")


@app.command()
def study(
    file: Annotated[
        str, typer.Argument(metavar="STUDY", help="A YAML file, or the name of a study that comes with the package.")
    ],
    override: Annotated[
        list[str],
        typer.Option(
            "--set", metavar="A.B=C", help="Override a value of every run, or name, runs and seeds of the study."
        ),
    ] = [],  # noqa: B006
    page: Annotated[
        Path | None, typer.Option("--write", metavar="PAGE", help="A Markdown page to put the tables into.")
    ] = None,
    jobs: Annotated[
        int, typer.Option("--jobs", min=1, help="Number of runs at once, each in a process of its own.")
    ] = 1,
) -> None:
    """Train one pivot in several ways, each tuned alike and from several seeds, and compare them with intervals."""
    from fusion.runtime.console import quiet
    from fusion.study import StudyGrid, load, run, with_overrides
    from fusion.study.results_page import find_markers, insert_into_page

    quiet()
    settings, override = with_overrides(load(file), override)
    if page is not None:
        find_markers(page, settings.name)  # an error now, not after hours
    results = run(StudyGrid(settings, override), jobs)
    if page is not None:
        insert_into_page(page, settings.name, results)


@app.command()
def schema() -> None:
    """Print the JSON schema of a configuration, for editors."""
    from fusion.config import Config

    typer.echo(json.dumps(Config.model_json_schema(), indent=2))
