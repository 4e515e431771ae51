"""The parameters of each of mergekit's methods, and their values by its order of precedence, as schedules of ours.

For every tensor a parameter is looked up with the source of a slice (or the model), the slice, and the whole merge, in this
order; a list of filters in which none fits the tensor's name passes it on to the next.
"""

from __future__ import annotations

import glob
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from fusion.core.settings import suggest
from fusion.merging.recipes.mergekit_forms import PARAMETER_NAMES, Condition, shortened
from fusion.merging.recipes.mergekit_slices import MergedSlice, ParameterGroup

REQUIRED = object()
"""In place of a default: the parameter has none."""


@dataclass(frozen=True)
class Parameter:
    """What mergekit knows of a parameter."""

    default: Any = REQUIRED
    per_model: bool = False
    """Whether each model may have its own; if not, mergekit looks at the slice and the whole merge only."""
    kind: Literal["number", "truth"] = "number"


WEIGHT = Parameter(per_model=True)
FACTOR, TRUTH = Parameter(1.0), Parameter(None, kind="truth")
TASK_VECTORS = {
    "weight": WEIGHT,
    "density": Parameter(1.0, per_model=True),
    "lambda": FACTOR,
    "normalize": Parameter(False, kind="truth"),
    "rescale": TRUTH,
}
AVERAGED = {"normalize": Parameter(True, kind="truth")}
GAMMA, EPSILON = {"gamma": Parameter(0.01, per_model=True)}, {"epsilon": Parameter(0.15, per_model=True)}
PARAMETERS: dict[str, dict[str, Parameter]] = {
    "linear": {"weight": WEIGHT, **AVERAGED},
    "passthrough": {"scale": Parameter(1.0, per_model=True)},
    "slerp": {"t": Parameter()},
    "nuslerp": {"weight": WEIGHT, "nuslerp_flatten": TRUTH, "nuslerp_row_wise": TRUTH},
    "multislerp": {"weight": WEIGHT, "normalize_weights": TRUTH},
    "karcher": {"max_iter": Parameter(None), "tol": Parameter(None)},
    "model_stock": {"filter_wise": TRUTH},
    "task_arithmetic": TASK_VECTORS,
    "ties": TASK_VECTORS | AVERAGED,
    "dare_linear": TASK_VECTORS,
    "dare_ties": TASK_VECTORS,
    "della_linear": TASK_VECTORS | EPSILON,
    "della": TASK_VECTORS | EPSILON | AVERAGED,
    "breadcrumbs": TASK_VECTORS | GAMMA,
    "breadcrumbs_ties": TASK_VECTORS | GAMMA,
    "sce": {"select_topk": FACTOR},
}
"""For each method that both have, its parameters by name; `int8_mask` is one of all, for it changes no result."""


def check_parameters(kind: str, slices: Sequence[MergedSlice]) -> None:
    """Raise ValueError with every parameter that the method does not read where it stands, or that is of another kind."""
    groups = {group.place: group for part in slices for group in part.groups}
    values = [(group, *each) for group in groups.values() for each in group.values.items()]
    problems = [line for group, name, value in values for line in _problems(kind, group, name, value)]
    if problems:
        raise ValueError("\n".join(problems))


def _problems(kind: str, group: ParameterGroup, name: str, value: Any) -> Iterator[str]:
    place, known = f"{group.place}.{name}", PARAMETERS[kind] | {"int8_mask": TRUTH}
    if name not in known:
        if name in PARAMETER_NAMES:
            yield f"{place}: {kind} has no {name}, so that mergekit ignores it; leave it out"
        else:
            yield f"unknown key {place}{suggest(name, set(known))}"
    elif group.of_model and not known[name].per_model and name != "int8_mask":
        yield f"{place} is ignored by mergekit: {name} is one for all models; write it under parameters of the whole merge"
    elif known[name].kind == "truth" and not isinstance(value, bool):
        yield f"{place} is {shortened(value)}; it must be true or false"
    elif known[name].kind == "number":
        wrong = [each for each in _scalars(place, value) if not _is_number(each[1])]
        yield from (f"{where} is {shortened(scalar)}; it must be a number" for where, scalar in wrong)


def _scalars(place: str, value: Any) -> Iterator[tuple[str, Any]]:
    """Every number in a value, whatever its form, with its path."""
    if isinstance(value, Condition):
        yield from _scalars(f"{place}.value", value.value)
    elif isinstance(value, list):
        for number, entry in enumerate(value):
            yield from _scalars(f"{place}[{number}]", entry)
    else:
        yield place, value


def _is_number(value: Any) -> bool:
    if isinstance(value, str):  # mergekit takes '0.5' for the number
        try:
            value = float(value)
        except ValueError:
            return False
    return not isinstance(value, bool) and math.isfinite(value)


def truth(name: str, kind: str, slices: Sequence[MergedSlice]) -> Any:
    """The value of a parameter that is true, false or not given, and the same in every slice.

    Raises ValueError where it differs.
    """
    default = PARAMETERS[kind][name].default
    values = [next((group.values[name] for group in part.shared if name in group.values), default) for part in slices]
    if any(value != values[0] for value in values):
        raise ValueError(f"{name} differs from slice to slice; here it is one for the whole merge.")
    return values[0]


def schedule(name: str, kind: str, slices: Sequence[MergedSlice], *, model: str | None = None) -> Any:
    """A parameter of the whole merge, or of one model, as a number or a schedule; None where it is not given and optional.

    Raises ValueError where it is missing.
    """
    parameter = PARAMETERS[kind][name]
    values = [_schedule_in(part, name, parameter, model=model) for part in slices]
    if len(values) == 1 or (not isinstance(values[0], dict) and all(value == values[0] for value in values)):
        return values[0]
    parts = zip(slices, values, strict=True)
    return {"slices": [{"layer_range": list(part.layers), "value": value} for part, value in parts]}


def _schedule_in(part: MergedSlice, name: str, parameter: Parameter, *, model: str | None) -> Any:
    """The value in one slice: the first that is given, or filters of all groups one after the other."""
    if model is not None and model not in part.sources:
        return 0.0  # only where models are averaged, or one is passed through, may a slice lack some
    groups = part.shared if model is None else [part.sources[model], *part.shared]
    conditions: list[tuple[str | None, Any]] = []
    for group in groups:
        conditions += _conditions(group.values.get(name))
    if parameter.default is not REQUIRED:
        conditions.append((None, parameter.default))
    if not conditions:
        where = f"{groups[0].place}, or under parameters of the whole merge" if model else "parameters"
        raise ValueError(f"{name} is missing{f' for {model}' if model else ''}; write it under {where}.")
    return _as_schedule(conditions)


def _conditions(value: Any) -> list[tuple[str | None, Any]]:
    """A value as pairs of a text in tensor names, None for any, and what holds there."""
    if value is None or value == []:
        return []
    listed = value if isinstance(value, list) and isinstance(value[0], Condition) else [value]
    return [
        (None if each.filter == "*" else each.filter, each.value) if isinstance(each, Condition) else (None, each)
        for each in listed
    ]


def _as_schedule(conditions: Sequence[tuple[str | None, Any]]) -> Any:
    """The first value, where it holds for every tensor; else a pattern of names for each, up to the first for all."""
    if conditions[0][0] is None:
        return _along_layers(conditions[0][1])
    patterns: dict[str, Any] = {}
    for text, value in conditions:
        # a text that holds * or [ means these characters
        patterns.setdefault("*" if text is None else f"*{glob.escape(text)}*", _along_layers(value))
    return {"tensors": patterns}


def _along_layers(value: Any) -> Any:
    if isinstance(value, list):
        return {"layers": [float(v) for v in value], "outside": "first"}
    return float(value) if isinstance(value, str) else value
