"""The command that trains and measures a draft model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from fusion.cli.app import app

if TYPE_CHECKING:
    from fusion.extras.draft import DraftSettings


@app.command()
def draft(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="Folder or hub id, such as runs/<name>/fused.")],
    data: Annotated[str, typer.Option(help="Texts: builtin:SKILL, a file of rows, or a hub id.")],
    out: Annotated[Path, typer.Option(help="Folder of the draft.")],
    prompt: Annotated[str, typer.Option(help="Prompt with columns in braces.")] = "{prompt}",
    response: Annotated[str, typer.Option(help="Response with columns in braces.")] = "{response}",
    limit: Annotated[int | None, typer.Option(min=2, help="Read at most so many examples.")] = None,
    heldout: Annotated[int, typer.Option(min=1, help="Number of examples, the last ones, to measure on.")] = 16,
    max_length: Annotated[int, typer.Option(min=2, help="Tokens of prompt and response.")] = 1024,
    dtype: Annotated[Literal["float32", "bfloat16"], typer.Option(help="Type of the model's weights.")] = "float32",
    override: Annotated[list[str], typer.Option("--set", metavar="A=B", help="Such as epochs=5 or depth=3.")] = [],  # noqa: B006
    only_measure: Annotated[
        bool, typer.Option("--only-measure", help="Measure the draft in --out as it is, on MODEL; train nothing.")
    ] = False,
) -> None:
    """Train a draft model for speculative decoding with a (fused) model, and measure how many draft tokens are accepted.

    Speculative decoding writes what the model alone would have written.
    """
    from fusion.core.system_errors import naming
    from fusion.data.datasets import load
    from fusion.extras.draft.train_and_measure import DraftData, measure_existing, train_and_measure
    from fusion.models.loading import ModelRef
    from fusion.report.console_tables import acceptance_table
    from fusion.runtime.console import console, quiet

    quiet()
    settings = parse_settings(override)
    examples = load(data, domain="draft", prompt=prompt, response=response, limit=limit)
    if only_measure:
        measured = measure_existing(ModelRef(model), out, examples[-heldout:], settings)
    else:
        texts = DraftData(examples, heldout, max_length)
        with naming(out):
            measured = train_and_measure(ModelRef(model), texts, settings, out, dtype=dtype)
    console.print(acceptance_table(str(out), measured))


def parse_settings(assignments: Sequence[str]) -> DraftSettings:
    """Settings from `name=value` words of the command line, such as `learning_rate=1e-4`.

    Raises ValueError that names every wrong one and what is allowed.
    """
    from pydantic import ValidationError

    from fusion.core.settings import suggest
    from fusion.core.yaml_files import parse_assignment
    from fusion.extras.draft import DraftSettings

    given: dict[str, Any] = {}
    for assignment in assignments:
        name, value = parse_assignment(assignment, "name=value, for example learning_rate=1e-4")
        given[name] = value
    allowed = set(DraftSettings.model_fields)
    if unknown := [f"--set {name}{suggest(name, allowed)}" for name in given if name not in allowed]:
        raise ValueError(f"There is no such setting: {'. '.join(unknown)}")
    try:
        return DraftSettings.model_validate(given)
    except ValidationError as error:
        wrong = [
            f"--set {e['loc'][0]}: {e['msg']}, got {given[str(e['loc'][0])]!r}" if e["loc"] else f"--set: {e['msg']}"
            for e in error.errors()  # a rule about all settings has no place
        ]
        raise ValueError("; ".join(wrong).rstrip(".") + ".") from None
