"""What a caller hands over, in any of the forms that are meant by it; an error says which, with what was given."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from numbers import Integral
from pathlib import Path
from typing import Any, get_args

import torch
from pydantic import ValidationError

from fusion.cache import Cache
from fusion.config.mistakes import explained
from fusion.config.stages import Extract
from fusion.core.settings import Settings
from fusion.objectives import AnyObjective, Objective
from fusion.weighting import AnyWeighting, Weighting

DTYPES = tuple(name for name in get_args(Extract.model_fields["dtype"].annotation) if name != "auto")
"""Names of the types that a model can compute in."""

AnyObjectives = Sequence[Objective | Mapping[str, Any]]
"""Objectives, or their settings as in a configuration: `[{"kind": "forward_kl", "weight": 0.5}]`."""


class _Methods(Settings):
    objectives: list[AnyObjective] | None = None
    weighting: AnyWeighting | None = None


def objectives_of(given: Any) -> list[Objective]:
    """Objectives, or such groups of settings as a configuration has, `{"kind": "forward_kl", "weight": 0.5}`, in a list.

    Raises ValueError, with the place, for anything else.
    """
    if isinstance(given, str) or not isinstance(given, Sequence):
        raise ValueError(f"objectives should be a list, such as [fusion.objectives.ForwardKL()]; got {shown(given)}.")
    return [_method(f"objectives[{number}]", each, Objective, "objectives") for number, each in enumerate(given)]


def weighting_of(given: Any) -> Any:
    """A weighting, or its group of settings. Raises ValueError for anything else."""
    return _method("weighting", given, Weighting, "weighting")


def _method(place: str, given: Any, base: type, key: str) -> Any:
    if isinstance(given, base):
        return given
    if isinstance(given, type) and issubclass(given, base):
        raise ValueError(f"{place} is the class {given.__name__}; give an object of it, {given.__name__}().")
    if not isinstance(given, Mapping):
        kind = repr(given) if isinstance(given, str) else "..."
        raise ValueError(
            f"{place} is {shown(given)}; give an object of fusion.{key}, or its settings as in a configuration, "
            f'{{"kind": {kind}}}.'
        )
    try:
        found = _Methods.model_validate({key: [given] if key == "objectives" else given})
    except ValidationError as error:
        message = str(explained(error, "", _Methods)).replace(f"{key}[0]", place)
        raise ValueError("\n".join(line.removeprefix(": ") for line in message.splitlines())) from None
    return found.objectives[0] if found.objectives else found.weighting


def path_of(given: Any, what: str = "model") -> str:
    """The folder or hub id of a model. Raises ValueError for one that is loaded: what it gives is kept by its files."""
    if isinstance(given, (str, Path)):
        return str(given)
    own = getattr(getattr(given, "config", None), "name_or_path", "")
    where = f", such as {own!r}" if own else ", or of where save_pretrained puts it"
    raise ValueError(f"{what} is {shown(given)}; give the folder or hub id that it is loaded from{where}.")


def dtype_of(given: Any) -> str | None:
    """The name of a type, given by that or as torch's; None for the machine's own choice. Raises ValueError for another."""
    name = str(given).removeprefix("torch.") if isinstance(given, torch.dtype) else given
    if name is not None and name not in DTYPES:
        raise ValueError(f"dtype is {given!r}; choose one of {', '.join(DTYPES)}, or leave it out.")
    return name


def count_of(given: Any, what: str, hint: str = "") -> int:
    """A whole number of at least 1. Raises ValueError for anything else."""
    if isinstance(given, bool) or not isinstance(given, Integral) or given < 1:
        raise ValueError(f"{what} is {shown(given)}; it is a whole number of at least 1{hint}.")
    return int(given)


def cache_of(given: Any, name: str) -> Cache:
    """A cache, given as that or as its folder. Raises ValueError for anything else."""
    if isinstance(given, Cache):
        return given
    if isinstance(given, (str, Path)):
        return Cache(given)
    raise ValueError(f"caches[{name!r}] is {shown(given)}; give a Cache, from fusion.extract, or its folder.")


def shown(given: Any) -> str:
    """What was given, short: a plain value as it is, anything larger by its type."""
    if isinstance(given, type):
        return f"the class {given.__name__}"
    return repr(given) if isinstance(given, (str, int, float, type(None))) else f"a {type(given).__name__}"
