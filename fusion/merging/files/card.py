"""The model card (README.md) of a merged folder: what it is, how it was made, and how to make it again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

METADATA = {"library_name": "transformers", "tags": ["merge"]}


def model_card(title: str, record: dict[str, Any], recipe: str) -> str:
    """Write the card, in Markdown, from the record of the merge (`merge.json`) and its recipe."""
    method, base, models = record["method"], record["base_model"], record["models"]
    rows = [_row("base", base), *(_row(f"model {number}", model) for number, model in enumerate(models, start=1))]
    licenses = {license for model in (base, *models) if (license := _license(Path(model["folder"])))}
    metadata = METADATA | ({"license": licenses.pop()} if len(licenses) == 1 else {})
    return "\n".join(
        [
            "---", yaml.safe_dump(metadata, sort_keys=False).strip(), "---", "", f"# {title}", "",
            f"{len(models)} models merged by `{method['kind']}` with logit-fusion's `fusion merge`. Configuration and "
            "tokenizer are the base's.", "", "| | folder | XXH3 of the weights |", "| --- | --- | --- |",
            *rows, "", "Make it again with `fusion merge recipe.yaml`, where recipe.yaml is", "", "```yaml", recipe.strip(),
            "```", "", "`merge.json` holds the XXH3 (128 bits) of every input file.", "",
        ]
    )  # fmt: skip


def _row(role: str, model: dict[str, Any]) -> str:
    weights = {name: digest for name, digest in model["xxh3"].items() if name.endswith(".safetensors")}
    short = ", ".join(f"{digest[:16]}…" for digest in weights.values())
    return f"| {role} | {Path(model['folder']).name} | {short} |"


def _license(folder: Path) -> str | None:
    """The license that the metadata of the folder's own card names, or None."""
    file = folder / "README.md"
    text = file.read_text(errors="replace") if file.is_file() else ""
    if not text.startswith("---"):
        return None
    try:
        metadata = yaml.safe_load(text.split("---")[1])
    except yaml.YAMLError:
        return None
    license = metadata.get("license") if isinstance(metadata, dict) else None
    return json.dumps(license) if isinstance(license, list) else license
