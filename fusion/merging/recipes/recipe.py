"""A merge as a file: which folders, which method, with which numbers. Ours, or mergekit's for the methods we share."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import Field, ValidationError, field_validator, model_validator

from fusion.core.settings import Settings
from fusion.merging.methods.base import Method, Weighted
from fusion.merging.methods.registry import AnyMethod
from fusion.merging.methods.schedule import Schedule
from fusion.merging.recipes import mergekit
from fusion.merging.search import Search


class ModelEntry(Settings):
    """A folder to merge."""

    path: str
    """A model in safetensors, or a LoRA adapter of the base. Relative paths count from the working directory."""
    weight: Schedule | None = None
    """How much it counts: a number, `{layers: [...]}` or `{tensors: {PATTERN: ...}}`."""
    density: Schedule | None = None
    """Fraction of its changes that is kept, where the method thins out."""


class Recipe(Settings):
    """A whole merge."""

    base: str | None = None
    """The model all others grew from. Methods that need none take configuration and tokenizer from the first model."""
    models: list[ModelEntry] = Field(min_length=1)
    """What is merged. A path alone is enough."""
    method: AnyMethod
    """A name, or a `kind` with settings."""
    dtype: Literal["float32", "bfloat16", "float16"] | None = None
    """Type of the result; the base's where it is left out."""
    vocabulary: Literal["refuse", "pad"] = "refuse"
    """Whether models may have more or fewer tokens than the base."""
    search: Search | None = None
    """Choose the weights on validation data."""

    @field_validator("models", mode="before")
    @classmethod
    def _paths(cls, value: Any) -> Any:
        return [{"path": entry} if isinstance(entry, str) else entry for entry in value] if _listed(value) else value

    @field_validator("method", mode="before")
    @classmethod
    def _kind(cls, value: Any) -> Any:
        return {"kind": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _said_once(self) -> Recipe:
        self.settled()
        return self

    def settled(self) -> Method:
        """The method, with the weights and densities that stand beside the models. Raises ValueError if said twice."""
        given: dict[str, Any] = {}
        for field, plural in (("weight", "weights"), ("density", "density")):
            values = [getattr(model, field) for model in self.models]
            if all(value is None for value in values):
                continue
            lacking = [model.path for model, value in zip(self.models, values, strict=True) if value is None]
            if lacking:
                raise ValueError(
                    f"{field} is given for some models, not for {', '.join(lacking)}; give it to all or none"
                )
            if plural not in type(self.method).model_fields:
                raise ValueError(f"{self.method.kind} has no {field}; leave it out")
            if plural in self.method.model_fields_set:
                raise ValueError(f"{field} is given with the models and as method.{plural}; leave one out")
            given[plural] = [v.model_dump() if isinstance(v, Settings) else v for v in values]
        method = type(self.method).model_validate(self.method.model_dump(exclude_unset=True) | given)
        method.check(len(self.models))
        return method

    def with_weights(self, weights: Sequence[float]) -> Recipe:
        """The same with these weights, or, for slerp, this `t`."""
        models = [model.model_copy(update={"weight": None}) for model in self.models]
        settled = self.settled()
        change = {"weights": list(weights)} if isinstance(settled, Weighted) else {"t": weights[0]}
        method = settled.model_dump() | change
        densities = {"density": None}
        return Recipe.model_validate(
            self.model_dump()
            | {"models": [model.model_dump() | densities for model in models], "method": method, "search": None}
        )

    @staticmethod
    def of(base: Path, models: Sequence[Path], method: Method, dtype: str | None, vocabulary: str) -> Recipe:
        """The recipe of a merge that was called with these arguments."""
        entries = [{"path": str(model)} for model in models]
        return Recipe.model_validate(
            {
                "base": str(base),
                "models": entries,
                "method": method.model_dump(),
                "dtype": dtype,
                "vocabulary": vocabulary,
            }
        )

    def yaml(self) -> str:
        """As a file that `load` reads back."""
        content = self.model_dump(mode="json", exclude_none=True)
        return yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=120)


def load(file: Path) -> Recipe:
    """Read a recipe of ours or mergekit's. Raises ValueError with every mistake."""
    return parse(read(file), str(file))


def parse(raw: dict[str, Any], origin: str) -> Recipe:
    """Check a recipe that was read elsewhere; `origin` names it in messages."""
    if mergekit.wrote(raw):
        raw = mergekit.translated(raw, origin)
    try:
        return Recipe.model_validate(raw)
    except ValidationError as error:
        raise ValueError("\n".join(f"{origin}: {_explained(mistake)}" for mistake in error.errors())) from None


def read(file: Path) -> dict[str, Any]:
    """The keys and values of a YAML file. Raises ValueError where it holds something else."""
    try:
        raw = yaml.safe_load(file.read_text())
    except yaml.YAMLError as error:
        raise ValueError(f"{file} is not valid YAML: {error}") from error
    if not isinstance(raw, dict):
        raise ValueError(f"{file} should hold keys and values, it holds {type(raw).__name__}.")
    return raw


def is_recipe(raw: dict[str, Any]) -> bool:
    """Whether these keys are a merge rather than a whole run, which has a pivot."""
    return "pivot" not in raw and ("models" in raw or mergekit.wrote(raw))


def _explained(mistake: Any) -> str:
    place = ".".join(str(part) for part in mistake["loc"] if not str(part).startswith("("))  # forms of a number
    message = mistake["msg"].removeprefix("Value error, ")
    value = mistake.get("input")
    shown = f", got {value!r}" if isinstance(value, (str, int, float, bool)) and repr(value) not in message else ""
    return f"{place}: {message}{shown}" if place else message


def _listed(value: Any) -> bool:
    return isinstance(value, list)
