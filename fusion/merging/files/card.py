"""README.md of a merged folder: what it is, how it was made, and how to make it again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

FRONT = {"library_name": "transformers", "tags": ["merge"]}


def card(title: str, record: dict[str, Any], recipe: str) -> str:
    """The card, in Markdown, of a folder with this record and recipe."""
    method, base, models = record["method"], record["base"], record["models"]
    rows = [_row("base", base), *(_row(f"model {number}", model) for number, model in enumerate(models, start=1))]
    licences = {licence for part in (base, *models) if (licence := _licence(Path(part["folder"])))}
    front = FRONT | ({"license": licences.pop()} if len(licences) == 1 else {})
    return "\n".join(
        [
            "---", yaml.safe_dump(front, sort_keys=False).strip(), "---", "", f"# {title}", "",
            f"{len(models)} models merged by `{method['kind']}` with logit-fusion's `fusion merge`. Configuration and "
            "tokenizer are the base's.", "", "| | folder | XXH3 of the weights |", "| --- | --- | --- |",
            *rows, "", "Make it again with `fusion merge recipe.yaml`, where recipe.yaml is", "", "```yaml", recipe.strip(),
            "```", "", "`merge.json` holds the XXH3 (128 bits) of every input file.", "",
        ]
    )  # fmt: skip


def _row(role: str, part: dict[str, Any]) -> str:
    weights = {name: digest for name, digest in part["xxh3"].items() if name.endswith(".safetensors")}
    short = ", ".join(f"{digest[:16]}…" for digest in weights.values())
    return f"| {role} | {Path(part['folder']).name} | {short} |"


def _licence(folder: Path) -> str | None:
    """The licence that the front matter of the folder's own card names."""
    file = folder / "README.md"
    text = file.read_text(errors="replace") if file.is_file() else ""
    if not text.startswith("---"):
        return None
    try:
        front = yaml.safe_load(text.split("---")[1])
    except yaml.YAMLError:
        return None
    licence = front.get("license") if isinstance(front, dict) else None
    return json.dumps(licence) if isinstance(licence, list) else licence
