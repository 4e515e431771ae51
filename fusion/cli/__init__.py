"""The command `fusion`. Torch and its friends are imported by the command that needs them, so that help is quick."""

from __future__ import annotations

import os
import sys

import typer

from fusion import ranks
from fusion.cli import caches, models, recipes, runs  # noqa: F401  (each registers its commands)
from fusion.cli.app import app


def main() -> None:
    """Run the command; what a user can mend is said in one message. FUSION_TRACEBACK=1 shows where it arose."""
    try:
        app()
    except (ValueError, FileNotFoundError, FileExistsError, KeyError) as error:
        message = error.args[0] if isinstance(error, KeyError) and error.args else error
        place = "" if ranks.is_main() else f" in process {ranks.rank()}"
        typer.secho(f"Error{place}: {message}", fg="red", err=True)
        if os.environ.get("FUSION_TRACEBACK"):
            raise
        sys.exit(1)
