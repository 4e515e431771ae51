"""The forms that mergekit's keys have: what is a name, a list of models, a group of parameters, a range of layers."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, ValidationError

Number = bool | int | float | None


class _Form(BaseModel):
    """A group of keys; those that are not listed are looked at elsewhere."""

    model_config = ConfigDict(extra="allow", strict=True)


class _Condition(_Form):
    """A value for the tensors whose names hold a text."""

    filter: str | None = None
    value: Number | str | list[float]


def _form_of(value: Any) -> str:
    """Which of its forms a value means to have."""
    if not isinstance(value, list):
        return "one"
    return "conditions" if any(isinstance(entry, dict) for entry in value) else "layers"


_Layers = Annotated[list[float], Tag("layers")]
_Conditions = Annotated[list[_Condition], Tag("conditions")]
Value = Annotated[Annotated[Number | str, Tag("one")] | _Layers | _Conditions, Discriminator(_form_of)]
Parameters = dict[str, Value]


class _Model(_Form):
    """A model with parameters of its own."""

    model: str
    parameters: Parameters | None = None


class _Part(_Model):
    """Some layers of a model."""

    layer_range: list[int] = Field(min_length=2, max_length=2)


class _Slice(_Form):
    """Layers of several models, merged."""

    sources: list[_Part] = Field(min_length=1)


class _Merge(_Form):
    """What is read of a mergekit configuration."""

    merge_method: str
    base_model: str | None = None
    models: list[_Model] | None = None
    slices: list[_Slice] | None = None
    parameters: Parameters | None = None
    dtype: str | None = None
    out_dtype: str | None = None
    tokenizer_source: str | None = None


def check_forms(raw: dict[str, Any], origin: str) -> None:
    """Raise ValueError, with every key that has another form than mergekit gives it; `origin` names the file."""
    try:
        _Merge.model_validate(raw)
    except ValidationError as error:
        lines = dict.fromkeys(_explain(mistake, raw) for mistake in error.errors())
        raise ValueError("\n".join(f"{origin}: {line}" for line in lines)) from None


def _explain(mistake: Any, raw: dict[str, Any]) -> str:
    """The key, and what it holds; of a value that may have several forms, one line."""
    place: str = ""
    value: Any = raw
    for part in mistake["loc"]:
        if not ((isinstance(value, dict) and part in value) or (isinstance(value, list) and isinstance(part, int))):
            continue  # a form of a value, or a key that is missing
        place += f"[{part}]" if isinstance(part, int) else f".{part}" if place else part
        value = value[part]
    if mistake["type"] == "missing" and isinstance(value, dict):
        return f"{place}: {mistake['loc'][-1]} is missing"
    kind = {dict: "a group", list: "a list"}.get(type(value), repr(value))
    return f"{place} is {kind}, which mergekit has in no such place; {mistake['msg'][0].lower()}{mistake['msg'][1:]}"
