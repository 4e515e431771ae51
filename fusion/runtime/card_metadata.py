"""What the cards of model folders say of licenses and origins, and what a model made of several may say then."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from fusion.core.text_files import read_object

HUB_CACHE = re.compile(r"models--([\w.-]+?)--([\w.-]+)$")
HUB_ID = re.compile(r"[A-Za-z0-9][\w-]*(?:\.[\w-]+)*/[A-Za-z0-9][\w-]*(?:\.[\w-]+)*")
LOCAL_FOLDERS = {
    "checkpoints",
    "ckpt",
    "data",
    "home",
    "mnt",
    "model",
    "models",
    "output",
    "outputs",
    "results",
    "runs",
    "tmp",
}
"""First parts of paths that look like hub ids and are none."""
FRONT_MATTER = re.compile(r"\A\ufeff?---\s*\n(.*?)\n---\s*(?:\n|\Z)", re.DOTALL)


@dataclass(frozen=True)
class License:
    """A license as the hub names it; one that it does not know is `other`, with a name of its own."""

    license: str
    license_name: str | None = None
    license_link: str | None = None

    def __str__(self) -> str:
        return f"{self.license} ({self.license_name})" if self.license_name else self.license


@dataclass(frozen=True)
class FolderCard:
    """What a model folder says of itself."""

    license: License | None
    hub_ids: tuple[str, ...]
    """Its own id on the hub, or those of what it was made from; empty where nothing says either."""


def read_card(folder: Path) -> FolderCard:
    """Read the front matter of a folder's README.md, and where its files are from. What is damaged says nothing."""
    metadata = _front_matter(folder / "README.md")
    stated = [metadata.get(name) for name in ("license", "license_name", "license_link")]
    license, name, link = (value.strip() if isinstance(value, str) and value.strip() else None for value in stated)
    parents = metadata.get("base_model")
    hub_ids = _own_id(folder) or _hub_ids(parents if isinstance(parents, list) else [parents])
    return FolderCard(License(license.lower(), name, link) if license else None, hub_ids)


def common_license(licenses: Sequence[License | None]) -> License | None:
    """The license that all state, or None where one states none or two differ. `other` is one license by its name alone."""
    first = licenses[0] if licenses else None
    if first is None or (first.license == "other" and first.license_name is None):
        return None
    same = all(each is not None and _identity(each) == _identity(first) for each in licenses)
    links = {each.license_link for each in licenses if each is not None}
    return License(first.license, first.license_name, links.pop() if len(links) == 1 else None) if same else None


def license_metadata(license: License | None) -> dict[str, str]:
    """The keys of a card's front matter for a license."""
    if license is None:
        return {}
    keys = {"license": license.license, "license_name": license.license_name, "license_link": license.license_link}
    return {key: value for key, value in keys.items() if value is not None}


def base_model_metadata(hub_ids: Sequence[str], relation: str) -> dict[str, Any]:
    """The keys of a card's front matter for the models that a model was made from; none where no hub id is known."""
    ids = list(dict.fromkeys(hub_ids))
    return {"base_model": ids, "base_model_relation": relation} if ids else {}


def _identity(license: License) -> tuple[str, str]:
    return license.license.lower(), (license.license_name or "").lower()


def _front_matter(file: Path) -> dict[str, Any]:
    text = file.read_text(encoding="utf-8", errors="replace") if file.is_file() else ""
    found = FRONT_MATTER.match(text)
    try:
        metadata = yaml.safe_load(found[1]) if found else None
    except (yaml.YAMLError, ValueError, RecursionError):
        return {}
    return metadata if isinstance(metadata, dict) else {}


def _own_id(folder: Path) -> tuple[str, ...]:
    """The hub id of a folder in the hub's cache, or the one that its configuration was loaded from."""
    for part in folder.absolute().parts:
        if found := HUB_CACHE.match(part):
            return (f"{found[1]}/{found[2]}",)
    files = (("config.json", "_name_or_path"), ("adapter_config.json", "base_model_name_or_path"))
    return _hub_ids([_value(folder / name, key) for name, key in files])


def _hub_ids(candidates: Sequence[Any]) -> tuple[str, ...]:
    return tuple(id for id in candidates if isinstance(id, str) and _is_hub_id(id))


def _is_hub_id(text: str) -> bool:
    """Whether a text can be an id on the hub, and is no path here, nor one of those that trainings write."""
    if not HUB_ID.fullmatch(text) or Path(text).exists():
        return False
    owner, name = text.split("/")
    return owner.lower() not in LOCAL_FOLDERS and not re.fullmatch(r"checkpoint-\d+", name)


def _value(file: Path, key: str) -> Any:
    try:
        return read_object(file).get(key) if file.is_file() else None
    except ValueError:
        return None
