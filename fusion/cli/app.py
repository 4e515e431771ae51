"""The program itself, and the arguments that several commands take."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fusion.cli.boundary import Commands

app = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Fuse several language models, each with its own tokenizer, into one better model.",
)

caches = typer.Typer(no_args_is_help=True, help="Look at caches, check them, and bring in those of other programs.")
app.add_typer(caches, name="cache")

CacheFolder = Annotated[Path, typer.Argument(metavar="DIR", help="Such as runs/<name>/cache/<model>.")]
ConfigFile = Annotated[
    str, typer.Argument(metavar="CONFIG", help="A YAML file, or the name of a recipe (fusion recipes).")
]
Set = Annotated[list[str], typer.Option("--set", metavar="A.B=C", help="Override a value; may be given again.")]
