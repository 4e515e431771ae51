"""The stage in which pairwise models become one, and the chosen model becomes fused/."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from fusion.core.text_files import read_json, read_object
from fusion.data.exported_template import exported_template, write_template
from fusion.merging.files.stream import merge
from fusion.models.export import complete_export, save_weights
from fusion.models.loading import load_model
from fusion.runtime.artifacts import artifact_key, claim_artifact, mark_complete, refuse_other_key, write_json
from fusion.runtime.console import counter, show
from fusion.runtime.file_states import damaged_files, file_states
from fusion.runtime.syncing import sync, sync_folder
from fusion.runtime.unfinished import unfinished_path
from fusion.stages.context import RunContext
from fusion.stages.prompts import prompt_format
from fusion.stages.rounds.kept import PREFERENCES, REDO, ROUNDS, result_folder
from fusion.stages.train import pivot_ends
from fusion.training import MERGED, pairwise_name


def merge_all(context: RunContext) -> bool:
    """Merge all pairwise models. Returns whether it was done now, and not by an earlier start."""
    folder = context.config.folder / "train" / MERGED
    parts = [context.config.folder / "train" / pairwise_name(source.name) for source in context.config.sources]
    key = {"method": context.config.merge.model_dump(), "models": [artifact_key(part) for part in parts]}
    if claim_artifact(folder, key, "fusion merge"):
        return False
    base = load_model(
        context.config.pivot.ref, context.config.dtype
    )  # as training began: same type, same names of tensors
    save_weights(base, folder / "base")
    complete_export(folder / "base", context.config.pivot.ref, pivot_ends(context))
    with counter("merge", "tensors") as progress:
        models = [part / "model" for part in parts]
        shutil.rmtree(folder / "model", ignore_errors=True)  # it is damaged, or the folder would be marked as complete
        merge(folder / "base", models, context.config.merge, folder / "model", progress=progress)
    mark_complete(folder, ["base", "model"])
    return True


def fuse_chosen(context: RunContext, chosen: Path | None = None) -> bool:
    """Copy the chosen model to fused/, whole or not at all. Returns whether it was done now, and not by an earlier start.

    `chosen` is the folder of its training; the one that the run keeps if not said. Raises ValueError where fused/ holds
    another model.
    """
    chosen = chosen or result_folder(context.config, context.config.fused)
    folder = context.config.folder / "fused"
    lineage = {"from": context.config.fused, "made": artifact_key(chosen), "models": context.fingerprints}
    if _is_fused(folder, lineage, _redo(context.config.fused)):
        return False
    with unfinished_path(folder) as aside:
        shutil.copytree(
            chosen / "model", aside, ignore=shutil.ignore_patterns("training_args.bin", "merge.json", "recipe.yaml")
        )
        if template := exported_template(context.tokenizers["pivot"], prompt_format(context, "pivot")):
            write_template(aside, template)
        sync_folder(aside)
        weights = file_states(
            aside, aside.rglob("*.safetensors")
        )  # all else people may edit: template, generation settings, card
        write_json(aside / "fusion.json", lineage | {"files": weights})
        shutil.rmtree(folder, ignore_errors=True)  # it is damaged
        aside.replace(folder)
        sync(folder.parent)
    return True


def _redo(fused: str) -> str:
    """The command that makes the fused model again."""
    return {ROUNDS: REDO, PREFERENCES: "fusion preferences"}.get(fused, "fusion merge")


def _is_fused(folder: Path, lineage: dict[str, Any], redo: str) -> bool:
    """Whether fused/ holds this model, with its weights as they were written; raises ValueError where it holds another."""
    try:
        existing = read_object(folder / "fusion.json") if (folder / "fusion.json").exists() else None
    except ValueError:
        existing = None  # it was cut off
    if existing is None:
        return False
    states = existing.pop("files", None)
    refuse_other_key(folder, existing, lineage, redo)
    damage = damaged_files(folder, states, contents=True) | _broken_json(folder)
    for problem in damage.values():
        show([f"{folder}: {problem}; it is made again"])
    return not damage


def _broken_json(folder: Path) -> dict[str, str]:
    """What is wrong with the JSON files that people may edit, by name: one that was emptied or cut off is no edit."""
    found: dict[str, str] = {}
    for file in sorted(folder.glob("*.json")):
        try:
            read_json(file)
        except ValueError:
            found[file.name] = f"{file.name} is not JSON"
    return found
