"""The command that evaluates the models of a run."""

from __future__ import annotations

from typing import Annotated

import typer

from fusion.cli.app import ConfigFile, Set, app
from fusion.cli.runs import until


@app.command(context_settings={"ignore_unknown_options": True})  # which then are among `others`
def evaluate(
    config: ConfigFile,
    others: Annotated[list[str], typer.Argument(hidden=True)] = [],  # noqa: B006
    override: Set = [],  # noqa: B006
) -> None:
    """Measure the models of a run on its held-out examples; `fusion benchmark` measures any models on benchmarks."""
    if others:
        raise ValueError(
            f"fusion evaluate takes one CONFIG and --set, not {' '.join(others)}. Any models are measured on "
            "benchmarks by fusion benchmark MODELS... --suite NAME, such as --suite quick."
        )
    until(config, override, "evaluate")
