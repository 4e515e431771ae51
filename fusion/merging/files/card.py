"""The model card (README.md) of a merged folder: what it is, of what it was made, and how to make it again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from fusion.core.markdown import code, fence, plain, with_home, without_home
from fusion.merging.adapters.model_reference import split_reference
from fusion.runtime.card_metadata import FolderCard, base_model_metadata, common_license, license_metadata, read_card

OTHER_LICENSES = (
    "The models do not all state one license, so none is given for this model: read each before using or sharing it."
)


@dataclass(frozen=True)
class MergedFolder:
    """One model of a merge, as the card shows it."""

    role: str
    name: str
    card: FolderCard
    weights: list[str]
    """XXH3 of its weight files."""

    @staticmethod
    def from_record(role: str, model: dict[str, Any]) -> MergedFolder:
        """Read the card of a folder that `merge.json` names."""
        parts = [part for part in split_reference(Path(with_home(model["folder"]))) if part is not None]
        hashes = [digest for name, digest in model["xxh3"].items() if name.endswith(".safetensors")]
        return MergedFolder(role, "+".join(part.absolute().name for part in parts), _common_card(parts), hashes)

    def row(self) -> str:
        """Its row in the table."""
        ids = ", ".join(map(plain, self.card.hub_ids)) or "not known"
        license = plain(str(self.card.license or "not stated"))
        short = ", ".join(f"{digest[:16]}…" for digest in self.weights)
        return f"| {self.role} | {plain(self.name)} | {ids} | {license} | {short} |"


def _common_card(parts: Sequence[Path]) -> FolderCard:
    """What a folder says of itself, or a model and its adapter together."""
    cards = [read_card(part) for part in parts]
    hub_ids = dict.fromkeys(id for card in cards for id in card.hub_ids)
    return FolderCard(
        cards[0].license if len(cards) == 1 else common_license([c.license for c in cards]), tuple(hub_ids)
    )


def model_card(
    title: str, record: dict[str, Any], recipe: str, *, tokenizer_from: str = "base", notes: Sequence[str] = ()
) -> str:
    """Write the card, in Markdown, from the record of the merge (`merge.json`), its recipe, and what was said of its inputs.

    `tokenizer_from` is the role of the model that tokenizer, chat template and generation settings are from.
    """
    models = [MergedFolder.from_record(f"model {n}", model) for n, model in enumerate(record["models"], start=1)]
    folders = [MergedFolder.from_record("base", record["base_model"]), *models]
    license = common_license([folder.card.license for folder in folders])
    front = {"library_name": "transformers", "tags": ["merge"]} | license_metadata(license)
    front |= base_model_metadata([id for folder in folders for id in folder.card.hub_ids], "merge")
    marks = fence(recipe)
    return "\n".join(
        [
            "---", yaml.safe_dump(front, sort_keys=False, allow_unicode=True).strip(), "---", "", f"# {plain(title)}", "",
            f"{len(models)} models merged by {code(record['method']['kind'])} with logit-fusion's `fusion merge`. "
            f"{_sources(tokenizer_from)}",
            "", "| | folder | on the hub, or made from | license | XXH3 of the weights |", "| --- | --- | --- | --- | --- |",
            *(folder.row() for folder in folders), "", *([] if license else [OTHER_LICENSES, ""]),
            *(f"- {plain(without_home(note))}" for note in notes), *([""] if notes else []),
            "Make it again in this folder, with", "", "```bash", "fusion merge recipe.yaml --out merged", "```", "",
            "where recipe.yaml is", "", f"{marks}yaml", recipe.strip(), marks, "",
            "`merge.json` holds the XXH3 (128 bits) of every input file.", "",
        ]
    )  # fmt: skip


def _sources(tokenizer_from: str) -> str:
    if tokenizer_from == "base":
        return "Configuration and tokenizer are the base's."
    return (
        f"Configuration is the base's; tokenizer, chat template and generation settings are those of {tokenizer_from}."
    )
