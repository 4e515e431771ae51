"""The command that checks what was finished."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fusion.cli.app import app


@app.command()
def verify(
    path: Annotated[Path, typer.Argument(metavar="PATH", help="Folder of a run, a cache or a merged model.")],
) -> None:
    """Compare every finished file below a folder with what was written. Exit status 1 where one differs."""
    from fusion.analysis.verify import verify as verify_below

    found = verify_below(path)
    for each in found:
        typer.echo(f"{each.kind:12}  {each.path}: {'; '.join(each.problems) or 'as it was written'}")
    if damaged := [each for each in found if each.problems]:
        typer.echo(f"{len(damaged)} of {len(found)} are damaged.")
        raise typer.Exit(1)
    typer.echo(f"All {len(found)} are as they were written.")
