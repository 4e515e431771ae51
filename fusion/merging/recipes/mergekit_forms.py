"""The keys of mergekit's YAML, each with the form it has: what is a name, a list of models, a group of parameters, a range."""

from __future__ import annotations

import difflib
import json
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, ValidationError

from fusion.core.settings import allowed_keys, suggest

Number = bool | int | float
NOT_HERE = {
    "modules": "models of several modules, as those that see, are merged whole here: write models",
    "chat_template": "the result has the base's chat template: leave it out",
    "residual_weight": "mergekit gives it no meaning: leave it out",
    "experts": "a mixture of experts is not built here, only models of one architecture are merged",
    "gate_mode": "a mixture of experts is not built here, only models of one architecture are merged",
    "genome": "weights are found by a search of ours: write models, and search",
    "input_model_parameters": "write parameters under each of models",
}
"""Keys that mergekit has, or had, and that are refused: why, and what to do."""
PARAMETER_NAMES = {
    "weight", "density", "gamma", "epsilon", "lambda", "normalize", "rescale", "int8_mask", "t", "select_topk", "scale",
    "max_iter", "tol", "filter_wise", "nuslerp_flatten", "nuslerp_row_wise", "normalize_weights",
}  # fmt: skip
"""Names that belong under `parameters`, wherever somebody may have written them."""


class MergekitForm(BaseModel):
    """A group of keys, none of which is unknown."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Condition(MergekitForm):
    """A value for the tensors whose names hold a text; for all where there is none."""

    filter: str | None = None
    value: Annotated[
        Annotated[Number | str, Tag("one")] | Annotated[list[float], Tag("layers")],
        Discriminator(lambda v: _form_of(v)),
    ]


def _form_of(value: Any) -> str:
    """Which of its forms a value means to have."""
    if isinstance(value, dict):
        return "condition"
    if not isinstance(value, list):
        return "one"
    return "conditions" if any(isinstance(entry, dict) for entry in value) else "layers"


Value = Annotated[
    Annotated[Number | str, Tag("one")]
    | Annotated[list[Number], Tag("layers")]
    | Annotated[Condition, Tag("condition")]
    | Annotated[list[Condition], Tag("conditions")],
    Discriminator(_form_of),
]
"""A number or truth value, a gradient along the layers, or values for names of tensors, the first that fits counting."""
Parameters = dict[str, Value]


class WholeModel(MergekitForm):
    """A model with parameters of its own."""

    model: str = Field(min_length=1)
    parameters: Parameters | None = None


class ModelLayers(WholeModel):
    """Some layers of a model: from the first up to, but without, the second number."""

    layer_range: list[int] = Field(min_length=2, max_length=2)


class OutputSlice(MergekitForm):
    """Layers of the result, merged of layers of several models."""

    sources: list[ModelLayers] = Field(min_length=1)
    base_model: str | None = Field(default=None, min_length=1)
    parameters: Parameters | None = None


class TokenizerForm(MergekitForm):
    """Whose vocabulary the result has; a union of all where `source` is left out."""

    source: str = "union"
    tokens: dict[str, Any] | None = None
    pad_to_multiple_of: int | None = None


class MergekitMerge(MergekitForm):
    """A whole configuration of mergekit."""

    merge_method: str
    base_model: str | None = Field(default=None, min_length=1)
    models: list[WholeModel] | None = None
    slices: list[OutputSlice] | None = None
    parameters: Parameters | None = None
    dtype: str | None = None
    out_dtype: str | None = None
    tokenizer_source: str | None = None
    tokenizer: TokenizerForm | None = None
    name: str | None = None


def read_forms(raw: dict[str, Any]) -> MergekitMerge:
    """Return what a file says. Raises ValueError with a line for every key that is unknown, missing or has another form."""
    try:
        return MergekitMerge.model_validate(raw)
    except ValidationError as error:
        lines = dict.fromkeys(_explain(mistake, raw) for mistake in error.errors())
        raise ValueError("\n".join(lines)) from None


def _explain(mistake: Any, raw: dict[str, Any]) -> str:
    """The key, what it holds, and what it may hold."""
    place, value = _follow(mistake["loc"], raw)
    key = str(mistake["loc"][-1])
    if mistake["type"] == "extra_forbidden":
        return _explain_unknown(place, key, mistake["loc"])
    if mistake["type"] == "missing":
        return f"{place}.{key} is missing" if place else f"{key} is missing"
    shown = {dict: "a group of keys", list: f"a list of {len(value)}" if isinstance(value, list) else ""}
    return f"{place} is {shown.get(type(value)) or shortened(value)}; {_expected(mistake)}"


def _follow(location: tuple[Any, ...], raw: dict[str, Any]) -> tuple[str, Any]:
    """The place as a path of keys, and what is there; tags of forms in a location are no keys."""
    place: str = ""
    value: Any = raw
    for part in location:
        if (isinstance(value, dict) and part in value) or (isinstance(value, list) and isinstance(part, int)):
            place += f"[{part}]" if isinstance(part, int) else f".{part}" if place else str(part)
            value = value[part]
    return place, value


def _explain_unknown(place: str, key: str, location: tuple[Any, ...]) -> str:
    if key in NOT_HERE:
        return f"{place} cannot be taken over: {NOT_HERE[key]}."
    allowed = allowed_keys(MergekitMerge, location[:-1]) or set(Condition.model_fields)
    if "parameters" not in allowed:
        return f"unknown key {place}{suggest(key, allowed)}"
    if key in PARAMETER_NAMES:
        return f"{place} belongs under parameters, such as parameters: {{{key}: ...}}; beside it mergekit ignores it."
    if close := difflib.get_close_matches(key, PARAMETER_NAMES, n=1, cutoff=0.75):
        return f"unknown key {place}; did you mean {close[0]}, under parameters?"
    return f"unknown key {place}{suggest(key, allowed)}"


WRITTEN = {
    "WholeModel": "a mapping with model, such as {model: FOLDER}",
    "ModelLayers": "a mapping with model and layer_range, such as {model: FOLDER, layer_range: [0, 32]}",
    "OutputSlice": "a mapping with sources, such as {sources: [{model: FOLDER, layer_range: [0, 32]}]}",
    "TokenizerForm": "a mapping with source, such as {source: base}",
    "Condition": "a mapping with filter and value, such as {filter: mlp, value: 0.5}",
}
"""How a group of keys is written, by the type that reads it."""
EXPECTED = {
    "dict_type": "a mapping of names to values, such as {weight: 0.5}",
    "list_type": "a list",
    "string_type": "a text",
    "bool_type": "true or false",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "invalid_key": "a key that is a text",
}
"""What a value must be, by pydantic's name of the mistake."""


def _expected(mistake: Any) -> str:
    kind = mistake["type"]
    if kind == "model_type":
        return f"it must be {WRITTEN[str(mistake['ctx']['class_name'])]}"
    if mistake["loc"][-1] == "layer_range":
        return "it must be two whole numbers: the first layer, and the one behind the last"
    if kind in ("too_short", "string_too_short"):
        return "it must not be empty"
    if "parameters" in mistake["loc"] and kind not in ("dict_type", "invalid_key"):
        return "it must be a number, a list of numbers along the layers, or a list of {filter: TEXT, value: NUMBER}"
    return f"it must be {EXPECTED[kind]}" if kind in EXPECTED else mistake["msg"]


def shortened(value: Any) -> str:
    """A value as a message shows it."""
    text = json.dumps(value) if value is None or isinstance(value, bool) else repr(value)  # null, true, false
    return text if len(text) <= 80 else f"{text[:77]}..."
