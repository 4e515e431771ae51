"""A suite is a list of tasks; a task is what lm-eval asks, as it comes or with our changes. Both are YAML in the package."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from fusion_eval.results import mistakes

HERE = Path(__file__).parent


class TaskSpec(BaseModel):
    """One line of catalogue.yaml."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    data: str
    """Which files it reads with `--data`; see `local_data`."""
    stock: str | None = None
    """Pattern of task files inside lm-eval; where several match, each is a subset."""
    ours: str | None = None
    """File in task_files/ with a task of our own, or with what is said over `stock`."""
    score: str | None = None
    """The measure that counts; None for a text that is only read."""
    filter: str | None = None
    """Which of lm-eval's filters the measure is taken after; None for the only or first one."""
    mean: Literal["questions", "subsets"] = "questions"
    """Whether each question or each subset counts the same."""


class Suite(BaseModel):
    """Tasks that are evaluated together."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    name: str
    template: Literal["auto", "chat", "plain"]
    """How a prompt is written: by the chat template, as plain text, or by the template where the model has one."""
    tasks: list[str] = Field(min_length=1)
    limit: dict[str, int] = {}
    """Questions of a task, spread evenly over it and its subsets; all where it is not named."""


@cache
def catalogue() -> Mapping[str, TaskSpec]:
    """Every task that a suite may name."""
    return TypeAdapter(dict[str, TaskSpec]).validate_python(yaml.safe_load((HERE / "catalogue.yaml").read_text()))


def suites() -> dict[str, Path]:
    """The suites of the package."""
    return {file.stem: file for file in sorted((HERE / "suite_files").glob("*.yaml"))}


def load_suite(name: str) -> Suite:
    """A suite of the package, or one from a YAML file of your own. Raises ValueError with every mistake."""
    known = suites()
    file = known.get(name, Path(name))
    if not file.is_file():
        raise ValueError(f"There is no suite {name}; known are {', '.join(known)}, or give a YAML file.")
    try:
        suite = Suite.model_validate({"name": file.stem, **_mapping(file)})
    except ValidationError as error:
        raise ValueError(f"{file} is not a suite:{mistakes(error)}") from error
    if unknown := sorted({*suite.tasks, *suite.limit} - catalogue().keys()):
        raise ValueError(f"{file}: unknown task {', '.join(unknown)}; known are {', '.join(catalogue())}.")
    return suite


def _mapping(file: Path) -> dict[str, Any]:
    try:
        read = yaml.safe_load(file.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise ValueError(f"{file} is not YAML: {error}") from error
    if not isinstance(read, dict):
        raise ValueError(f"{file} must be a mapping with template and tasks.")
    return read
