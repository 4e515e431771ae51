"""The command that uploads a finished model to a hub."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fusion.cli.app import app

if TYPE_CHECKING:
    from fusion.extras.hub import Pushed


@app.command()
def push(
    folder: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a finished run, or of a merged model.")],
    repo: Annotated[str, typer.Argument(metavar="REPO", help="OWNER/NAME on the hub; made if it does not exist.")],
    private: Annotated[bool, typer.Option("--private", help="Make a new repository private.")] = False,
    revision: Annotated[
        str | None, typer.Option("--revision", "--branch", help="Branch to write to; made if it does not exist.")
    ] = None,
    message: Annotated[str | None, typer.Option(help="Message of the commit.")] = None,
    no_report: Annotated[
        bool, typer.Option("--no-report", help="Leave the report here, which shows held-out questions and answers.")
    ] = False,
    delete_others: Annotated[
        bool, typer.Option("--delete-others", help="Delete what else is in the repository.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check the files and list them; nothing is asked of the hub.")
    ] = False,
) -> None:
    """Upload the fused model with its tokenizer, card and report to a hub, as one commit.

    A model that is unfinished, damaged or holds a secret is refused. The token is read from HF_TOKEN or hf auth login.
    """
    from fusion.extras.hub import PushSettings, push_folder

    settings = PushSettings(
        private=private,
        revision=revision,
        message=message,
        report=not no_report,
        delete_others=delete_others,
        dry_run=dry_run,
    )
    _tell(repo, push_folder(folder, repo, settings))


def _tell(repo: str, pushed: Pushed) -> None:
    """Say what was uploaded, and what became of what was there."""
    from fusion.extras.hub import megabytes

    if pushed.url is None:
        for name, size in pushed.files.items():
            typer.echo(f"{megabytes(size):>16}  {name}")
    total = f"{len(pushed.files)} files, {megabytes(sum(pushed.files.values()))}"
    typer.echo(f"{pushed.url}: {total}." if pushed.url else f"{total}, would go to {repo}.")
    for what in ("replaced", "deleted", "kept"):
        if names := getattr(pushed, what):
            typer.echo(f"{what} there: {', '.join(names)}")
    if pushed.left:
        typer.echo(f"left here: {', '.join(pushed.left)}")
