"""Commands on models: evaluate those of a run, draft for them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

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


@app.command()
def draft(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="Folder or hub id, such as runs/<name>/fused.")],
    data: Annotated[str, typer.Option(help="Texts: builtin:SKILL, a file of rows, or a hub id.")],
    out: Annotated[Path, typer.Option(help="Folder of the draft.")],
    prompt: Annotated[str, typer.Option(help="Prompt with columns in braces.")] = "{prompt}",
    response: Annotated[str, typer.Option(help="Response with columns in braces.")] = "{response}",
    limit: Annotated[int | None, typer.Option(min=2, help="At most so many examples.")] = None,
    heldout: Annotated[int, typer.Option(min=1, help="The last so many are measured on instead.")] = 16,
    max_length: Annotated[int, typer.Option(min=2, help="Tokens of prompt and response.")] = 1024,
    dtype: Annotated[Literal["float32", "bfloat16"], typer.Option(help="Type of the model's weights.")] = "float32",
    override: Annotated[list[str], typer.Option("--set", metavar="A=B", help="Such as epochs=5 or depth=3.")] = [],  # noqa: B006
    only_measure: Annotated[
        bool, typer.Option("--only-measure", help="Measure the draft in --out as it is, on MODEL; train nothing.")
    ] = False,
) -> None:
    """Train a small draft model that guesses a (fused) model's next tokens, and measure how many of them stand.

    What guess and check writes is what the model alone would have written.
    """
    from fusion.data.datasets import load
    from fusion.extras.draft import command
    from fusion.models.loading import ModelRef
    from fusion.report.command_tables import acceptance_table
    from fusion.runtime.console import console, quiet

    quiet()
    settings = command.parse(override)
    examples = load(data, domain="draft", prompt=prompt, response=response, limit=limit)
    if only_measure:
        found = command.measure_again(ModelRef(model), out, examples[-heldout:], settings)
    else:
        found = command.run(ModelRef(model), examples, heldout, settings, max_length, out, dtype)
    console.print(acceptance_table(str(out), found))
