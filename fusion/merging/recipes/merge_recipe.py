"""A merge as a file: which folders, which method, with which settings. Ours, or mergekit's for the methods both have."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import Field, ValidationError, field_validator, model_validator

from fusion.core.markdown import with_home, without_home
from fusion.core.settings import Settings, allowed_keys, place_of, suggest
from fusion.core.yaml_files import read_yaml
from fusion.merging.adapters.model_reference import split_reference
from fusion.merging.methods.base import MergeMethod, WeightedMethod
from fusion.merging.methods.registry import METHODS, AnyMethod
from fusion.merging.methods.schedule import Schedule
from fusion.merging.recipes import mergekit
from fusion.merging.recipes.search_settings import WeightSearch

MERGE_OPTIONS = ("dtype", "vocabulary", "allow_different")
"""Keys of a recipe that `merge` has as keyword arguments of the same name."""


class ModelEntry(Settings):
    """A model to merge."""

    model: str
    """Folder of a model in safetensors, of a LoRA adapter of the base, or MODEL+ADAPTER. Relative paths count from the working
    directory, ~ is the home folder."""
    weight: Schedule | None = None
    """How much it counts: a number, `{layers: [...]}` or `{tensors: {PATTERN: ...}}`."""
    density: Schedule | None = None
    """Fraction of its delta that is kept, for methods that sparsify."""


class MergeRecipe(Settings):
    """A whole merge."""

    base_model: str | None = None
    """The model all others grew from. Methods that need none take configuration and tokenizer from the first model."""
    models: list[ModelEntry] = Field(min_length=1)
    """What is merged; a path alone stands for a model without weight and density."""
    method: AnyMethod
    """A name, or a `kind` with settings."""
    dtype: Literal["float32", "bfloat16", "float16"] | None = None
    """Type of the result; the base's where it is left out."""
    vocabulary: Literal["refuse", "pad"] = "refuse"
    """Whether models may have more or fewer tokens than the base."""
    tokenizer_source: str | None = None
    """The model, one of `models`, whose tokenizer, chat template, generation settings and ends of answers the result has; the
    base's where it is left out, or `base`."""
    allow_different: list[str] = Field(default_factory=list)
    """Keys of config.json, such as rope_theta, that may differ though they change what the weights compute: the base's hold."""
    search: WeightSearch | None = None
    """Choose the weights on validation data."""
    evaluation: list[dict[str, Any]] | None = None
    """What the result is measured on beside its inputs: held-out data sets as in a run's configuration (`path`, `domain`,
    `prompt`, `response`, and so on), the configuration of a run, whose held-out data are taken, or a suite of benchmarks."""

    @field_validator("models", mode="before")
    @classmethod
    def _expand_paths(cls, value: Any) -> Any:
        if not isinstance(value, list):
            return value
        return [{"model": entry} if isinstance(entry, str) else entry for entry in value]

    @field_validator("evaluation", mode="before")
    @classmethod
    def _expand_evaluation(cls, value: Any) -> Any:
        entries = value if value is None or isinstance(value, list) else [value]
        return entries and [{"path": entry} if isinstance(entry, str) else entry for entry in entries]

    @field_validator("method", mode="before")
    @classmethod
    def _expand_kind(cls, value: Any) -> Any:
        return {"kind": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _is_consistent(self) -> MergeRecipe:
        self.resolved_method()
        return self

    def resolved_method(self) -> MergeMethod:
        """The method with the weights and densities of the models. Raises ValueError where these are given twice."""
        given: dict[str, Any] = {}
        for field, plural in (("weight", "weights"), ("density", "density")):
            values = [getattr(model, field) for model in self.models]
            if all(value is None for value in values):
                continue
            lacking = [model.model for model, value in zip(self.models, values, strict=True) if value is None]
            if lacking:
                raise ValueError(
                    f"{field} is given for some models, not for {', '.join(lacking)}; give it to all or none"
                )
            if plural not in type(self.method).model_fields:
                raise ValueError(f"{self.method.name} has no {field}; leave it out")
            if plural in self.method.model_fields_set:
                raise ValueError(f"{field} is given with the models and as method.{plural}; leave one out")
            given[plural] = [v.model_dump() if isinstance(v, Settings) else v for v in values]
        method = type(self.method).model_validate(self.method.model_dump(exclude_unset=True) | given)
        method.check_models(len(self.models))
        return method

    @property
    def references(self) -> list[Path]:
        """What all inputs are called, the base first: folders, or MODEL+ADAPTER."""
        return [Path(name) for name in [self.base_model, *(entry.model for entry in self.models)] if name is not None]

    def with_weights(self, weights: Sequence[float]) -> MergeRecipe:
        """A copy with these weights, or, for slerp, this `t`; without a search."""
        method = self.resolved_method()
        weighted = {"weights": list(weights)} if isinstance(method, WeightedMethod) else {"t": weights[0]}
        models = [{"model": entry.model} for entry in self.models]  # their weights and densities are the method's now
        changes = {"models": models, "method": method.model_dump() | weighted, "search": None, "evaluation": None}
        return MergeRecipe.model_validate(self.model_dump() | changes)

    @staticmethod
    def from_merge(base: Path, models: Sequence[Path], method: MergeMethod, options: Mapping[str, Any]) -> MergeRecipe:
        """The recipe of a merge that was called with these arguments; `options` are keys of a recipe.

        Its paths are absolute, so that it can be used in any folder; the home folder is ~.
        """
        folders = {"base_model": _full_path(base), "models": [{"model": _full_path(model)} for model in models]}
        source = {key: _full_path(path) for key, path in options.items() if key == "tokenizer_source"}
        return MergeRecipe.model_validate(folders | {"method": method.model_dump()} | dict(options) | source)

    @property
    def options(self) -> dict[str, Any]:
        """What `merge` is given besides folders and method, as keyword arguments."""
        named = self.base_model or self.models[0].model if self.tokenizer_source == "base" else self.tokenizer_source
        source = None if named is None else Path(with_home(named))
        return {name: getattr(self, name) for name in MERGE_OPTIONS} | {"tokenizer_source": source}

    def to_yaml(self) -> str:
        """The text of a file that `load_recipe` reads back."""
        content = self.model_dump(mode="json", exclude_none=True)
        content = {key: value for key, value in content.items() if value != []}
        return yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=120)


def _full_path(path: Path | str) -> str:
    parts = split_reference(Path(path))  # of MODEL+ADAPTER each
    return "+".join(without_home(str(part.absolute())) for part in parts if part is not None)


def load_recipe(file: Path) -> MergeRecipe:
    """Read a recipe, ours or mergekit's. Raises ValueError with every mistake."""
    return parse_recipe(read_yaml(file), str(file))


def parse_recipe(raw: dict[str, Any], origin: str) -> MergeRecipe:
    """Check keys that were read elsewhere; `origin` names them in messages. Raises ValueError with every mistake."""
    translated = mergekit.is_mergekit(raw)
    if translated:
        raw = mergekit.to_recipe_keys(raw, origin)
    try:
        return MergeRecipe.model_validate(raw)
    except ValidationError as error:
        raise ValueError(
            "\n".join(f"{origin}: {_explain(mistake, raw, translated=translated)}" for mistake in error.errors())
        ) from None


def is_merge_recipe(raw: dict[str, Any]) -> bool:
    """Whether these keys are a merge rather than a whole run, which has a pivot."""
    return "pivot" not in raw and ("models" in raw or mergekit.is_mergekit(raw))


MESSAGES = {
    "union_tag_invalid": "it must be a number, or its values by layer, such as {layers: [0.2, 0.4]}",
    "union_tag_not_found": "it must be the name of a method, or a mapping with kind",
    "model_type": "it must be a mapping of keys to values",
    "list_type": "it must be a list",
    "string_type": "it must be a text",
}
"""What a value must be, by pydantic's name of the mistake, where its own words speak of Python."""


def _explain(mistake: Any, raw: dict[str, Any], *, translated: bool) -> str:
    place, kind = _place(mistake["loc"], raw, translated=translated), mistake["type"]
    if kind == "extra_forbidden":
        *parents, key = mistake["loc"]
        return f"unknown key {place}{suggest(str(key), allowed_keys(MergeRecipe, parents))}"
    if kind == "missing":
        return f"{place} is missing"
    if kind == "union_tag_invalid" and place == "method":
        tag, known = str(mistake["ctx"]["tag"]), {str(method().name) for method in METHODS}
        written = "method.kind" if isinstance(raw["method"], dict) else "method"
        return f"{written}: there is no {tag!r}{suggest(tag, known)}"
    message = MESSAGES.get(kind) or mistake["msg"].removeprefix("Value error, ")
    value = mistake.get("input")
    shown = f", got {value!r}" if isinstance(value, (str, int, float, bool)) and repr(value) not in message else ""
    return f"{place}: {message}{shown}" if place else message


def _place(location: tuple[str | int, ...], raw: dict[str, Any], *, translated: bool) -> str:
    """The path of the keys; of values of models that moved since the file was read, whose they are."""
    moved = location[:1] in (("weights",), ("density",))  # the models' own, which the method has by now
    numbers = [part for part in location if isinstance(part, int)]
    if numbers and (moved or (translated and location[0] == "models")):
        entry = raw["models"][numbers[0]]
        name = str(location[0] if moved else location[2]).removesuffix("s")
        return f"{name} of {entry if isinstance(entry, str) else entry['model']}"
    place = place_of(MergeRecipe, location)
    return place.replace("method", "parameters", 1) if translated else place
