"""From a YAML file to a `Config`: found, read, overridden by --set, and every mistake explained at once."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from fusion.config import Config
from fusion.config.mistakes import ConfigError, explained
from fusion.config.recipes import recipes
from fusion.core import yaml_files
from fusion.core.yaml_files import is_file


def load(file: str | Path, overrides: Sequence[str] = ()) -> Config:
    """Read a YAML file, apply overrides such as `training.max_steps=5`, and check everything.

    `file` may also be the name of a recipe that comes with the package. Raises ConfigError with all mistakes.
    """
    raw = read(file)
    if "arms" in raw and "pivot" not in raw:
        raise ConfigError(f"{file} is a study, which has arms: fusion study {file} runs it.")
    return parse(raw, str(file), {override(raw, one): f"--set {one}" for one in overrides})


def read(file: str | Path, above: Sequence[Path] = ()) -> dict[str, Any]:
    """What a file says, laid over the file or recipe that it `extends`, if it does; not yet checked.

    `above` are the files that led here. Raises ConfigError where they go in a circle.
    """
    place = find(file)
    if place.resolve() in above:
        raise ConfigError(f"{file} extends itself, by way of {', '.join(path.name for path in above)}; end the circle.")
    raw = read_yaml(place)
    if (below := raw.pop("extends", None)) is None:
        return raw
    if not isinstance(below, str):
        raise ConfigError(f"{file}: extends should be the name of a file or recipe, got {below!r}.")
    beside = place.parent / below
    return laid_over(read(beside if is_file(beside) else below, [*above, place.resolve()]), raw)


def read_yaml(file: Path) -> dict[str, Any]:
    """Keys and values of a file. Raises ConfigError for one that holds anything else, or a key twice."""
    try:
        return yaml_files.read_yaml(file)
    except ValueError as error:
        raise ConfigError(str(error)) from error


def whole(file: str | Path) -> str:
    """The text of a file, without need of the one it extends: to send elsewhere."""
    text = find(file).read_text()
    return yaml.safe_dump(read(file), sort_keys=False) if "extends:" in text else text


def laid_over(below: Any, above: Any) -> Any:
    """Settings `above` on top of those `below`, and neither changed.

    Groups are joined key by key. Values, lists, and groups of another `kind` take the place of what was there.
    """
    groups = isinstance(below, dict) and isinstance(above, dict)
    if not groups or ("kind" in above and above["kind"] != below.get("kind")):
        return above
    return below | {key: laid_over(below[key], value) if key in below else value for key, value in above.items()}


def parse(raw: dict[str, Any], origin: str, overridden: Mapping[str, str] | None = None) -> Config:
    """Check a configuration that was read elsewhere; `origin` names it in messages.

    `overridden` are places whose values are not from there, such as `data.train[0].limit`, and what messages call these.
    """
    try:
        return Config.model_validate(raw)
    except ValidationError as error:
        raise explained(error, origin, overridden=overridden) from None


def find(file: str | Path) -> Path:
    """The file, or the recipe of that name. Raises ConfigError that lists what there is."""
    place = Path(file)
    if is_file(place):
        return place
    if (place / "config.yaml").is_file():
        raise ConfigError(f"{file} is the folder of a run; its configuration is {place / 'config.yaml'}.")
    known = recipes()
    if str(file) in known or (place.stem in known and place.parts[:-1] == ("configs",)):
        return known[place.stem]
    files = [str(each) for each in (*place.parent.glob("*.yaml"), *place.parent.glob("*.yml"))]
    close = difflib.get_close_matches(str(file), [*files, *known], n=1)
    meant = f"; did you mean {close[0]}?" if close else "."
    raise ConfigError(
        f"There is no configuration {file}{meant} Give a YAML file, or one of the recipes {', '.join(known)}."
    )


def dump(config: Config) -> str:
    """The configuration with every default, as YAML that `load` reads back."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True, width=120)


def override(raw: dict[str, Any], text: str) -> str:
    """Set one value of a configuration that was read, such as `training.max_steps=5`; else as `set_value`."""
    try:
        path, parsed = yaml_files.parse_assignment(text, "a.b=c, for example training.max_steps=5")
    except ValueError as error:
        raise ConfigError(str(error)) from error
    return set_value(raw, path, parsed, f"--set {text}")


def set_value(raw: dict[str, Any], path: str, value: Any, origin: str) -> str:
    """Set the value at a place such as `training.max_steps`; `origin` names it in messages.

    Entries of lists are places by their number or by their `name`, after a dot or in brackets. Returns the place as messages
    write it, `data.train[0].limit`. Raises ConfigError for no such place.
    """
    *parents, last = re.sub(r"\[(\w+)\]", r".\1", path).split(".")
    place: Any = raw
    written = ""
    for part in parents:
        written, place = written + _as_written(place, part), _child(place, part, origin)
    written += _as_written(place, last)
    if isinstance(place, list):
        _child(place, last, origin)  # explains an entry that does not exist
        place[_index(place, last) or 0] = value
    elif isinstance(place, dict):
        place[last] = value
    else:
        raise ConfigError(f"{origin}: {'.'.join(parents)} is a value, it has no {last}.")
    return written.removeprefix(".")


def _child(place: Any, part: str, origin: str) -> Any:
    if isinstance(place, list):
        index = _index(place, part)
        if index is None:
            names = [str(item.get("name", i)) if isinstance(item, dict) else str(i) for i, item in enumerate(place)]
            raise ConfigError(f"{origin}: no entry {part}; there are {', '.join(names)}.")
        return place[index]
    if isinstance(place, dict):
        return place.setdefault(part, {})
    raise ConfigError(f"{origin}: {part} is not inside a group of settings.")


def _as_written(place: Any, part: str) -> str:
    return f"[{_index(place, part)}]" if isinstance(place, list) else f".{part}"


def _index(place: list, part: str) -> int | None:
    """Position of an entry of a list by number or by its `name`."""
    if part.isdigit() and int(part) < len(place):
        return int(part)
    return next((i for i, item in enumerate(place) if isinstance(item, dict) and item.get("name") == part), None)
