"""Suites, which are lists of tasks, and the catalogue of tasks, lm-eval's own or ours. Both are YAML in the package."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Annotated, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from fusion.core.yaml_files import read_yaml
from fusion_eval.results import format_mistakes

HERE = Path(__file__).parent


Scoring = Literal["fusion", "lm_eval"]
"""Who says which answers are right: our extraction and comparison, or lm-eval's filters and metrics for the same benchmark."""


class LmEvalScoring(BaseModel):
    """How lm-eval scores written answers to a benchmark that we ask in words of our own."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    file: str
    """lm-eval's task file whose filters, metrics and targets are taken."""
    metric: str
    """The metric that is the score of a question."""
    filter: str | None = None
    """Name of the filter after which the metric is taken; None for the only one."""


class TaskSpec(BaseModel):
    """A task of the catalogue: one line of catalogue.yaml."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    data: str
    """The benchmark whose files it reads with `--data`; see `local_data`."""
    stock: str | None = None
    """Pattern of lm-eval's own task files; where several match, each is a subset."""
    task_file: str | None = None
    """File in task_files/: a task of our own, or what is changed in `stock`."""
    metric: str | None = None
    """The metric that is the score of a question; None for a text of which only the likelihood is measured."""
    filter: str | None = None
    """Name of lm-eval's filter after which the metric is taken; None for the only or first one."""
    mean_over: Literal["questions", "subsets"] = "questions"
    """Whether each question or each subset counts the same."""
    lm_eval: LmEvalScoring | None = None
    """How lm-eval scores answers to a task of ours; None where it has no written form of it. Its own tasks need none."""


class Suite(BaseModel):
    """Tasks that are evaluated together, as read from YAML."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    name: str = Field(min_length=1)
    template: Literal["auto", "chat", "plain"]
    """How prompts are written: by the chat template, as plain text, or by the template where the model has one (`auto`)."""
    tasks: list[str] = Field(min_length=1)
    scoring: Scoring = "fusion"
    """Whether answers to tasks of ours are scored as we do, or by lm-eval's filters, to compare with published numbers."""
    limit: dict[str, Annotated[int, Field(ge=1, strict=True)]] = {}
    """Questions of a task, spread evenly over it and its subsets; all where it is not named."""


@cache
def catalogue() -> Mapping[str, TaskSpec]:
    """Read the catalogue: every task that a suite may name."""
    return TypeAdapter(dict[str, TaskSpec]).validate_python(yaml.safe_load((HERE / "catalogue.yaml").read_text()))


def suites() -> dict[str, Path]:
    """Files of the package's suites by name."""
    return {file.stem: file for file in sorted((HERE / "suite_files").glob("*.yaml"))}


def load_suite(name: str) -> Suite:
    """Load a suite of the package by name, or one from a YAML file. Raises ValueError with every mistake."""
    known = suites()
    file = known.get(name, Path(name))
    if not file.is_file():
        raise ValueError(f"There is no suite {name}; known are {', '.join(known)}, or give a YAML file.")
    try:
        suite = Suite.model_validate({"name": file.stem, **read_yaml(file)})
    except ValidationError as error:
        raise ValueError(f"{file} is not a suite:{format_mistakes(error)}") from error
    if unknown := sorted({*suite.tasks, *suite.limit} - catalogue().keys()):
        raise ValueError(f"{file}: unknown task {', '.join(unknown)}; known are {', '.join(catalogue())}.")
    return suite
