"""What `fusion merge` does after the merge: it measures the result beside its inputs, and shows it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.text import Text

from fusion.merging.evaluation.evaluated_models import EvaluatedModel, evaluated_models
from fusion.merging.evaluation.evaluation_record import write_evaluation
from fusion.merging.evaluation.merge_evaluation import (
    WORST_DOMAIN_CAPTION,
    WORST_DOMAIN_HEADS,
    MergeEvaluation,
    ModelEvaluation,
    evaluate_models,
)
from fusion.merging.search import count_trials, is_searched
from fusion.models.checkpoint_files import stored_tensors
from fusion.models.loading import ModelRef, check_model_folder
from fusion.report.score_table import markdown, plain, terminal_tables
from fusion.report.units import byte_size
from fusion.runtime.console import console, pending_bar, show
from fusion.runtime.console_table import ConsoleTable
from fusion_eval.runners.contamination import find_overlaps

if TYPE_CHECKING:
    from fusion.data.example import Example
    from fusion.merging.recipes.merge_recipe import MergeRecipe

RESULTS = "evaluations"
"""Folder beside the merged one in which every answer and score is kept."""
CHOSEN_ON = "The weights were chosen on these examples, so the merged model looks better here than on others."


def plan_evaluation(
    recipe: MergeRecipe, out: Path, evaluations: Sequence[ModelEvaluation], validation: Sequence[Example]
) -> list[EvaluatedModel]:
    """Say what search and evaluation will take, and find what cannot be read, before anything is merged.

    Returns the models that are evaluated. Raises what loading tokenizers and configurations raises, and ValueError for an
    example longer than a model's context.
    """
    models = evaluated_models(recipe, out, equal_weights=recipe.search is not None)
    folders = [model for model in models if model.recipe is None and model.role != "merged"]
    for model in folders:
        check_model_folder(ModelRef(model.path))
    if recipe.search is not None and not is_searched(recipe, out):
        show([f"Search: at most {count_trials(recipe):,} merges, each read on {len(validation):,} examples"])
    names = ", ".join(model.name for model in models)
    show([f"Evaluation of {len(models)} models, one in memory at a time{_memory(folders)}: {names}"])
    refs = [ModelRef(model.path) for model in folders]
    show(f"  each on {evaluation.describe(refs)}" for evaluation in evaluations)
    return models


def evaluate_merge(
    models: Sequence[EvaluatedModel], recipe: MergeRecipe, out: Path, evaluations: Sequence[ModelEvaluation], *,
    validation: Sequence[Example], threads: int | None,
) -> None:  # fmt: skip
    """Measure all models, show tables and what they say, and write them into the merged folder."""
    results = out.resolve().parent / RESULTS
    found = evaluate_models(
        models, evaluations, results, threads=threads, progress=lambda title: pending_bar(title, "requests")
    )
    data = recipe.evaluation or ([recipe.search.validation] if recipe.search else [])
    for evaluation in found:
        notes = overlap_notes(evaluation, validation)
        console.print(*terminal_tables(evaluation.results, evaluation.baseline), _worst_domains(evaluation), sep="\n")
        show(notes)
        parts = [markdown(evaluation.results, evaluation.baseline), _worst_domains_markdown(evaluation), *notes]
        write_evaluation(out, evaluation, data=data, table="\n\n".join(part.strip() for part in parts))
    show([f"Figures: {out / 'evaluation.json'}. Every score and answer: {results}."])


def _worst_domains(evaluation: MergeEvaluation) -> ConsoleTable:
    table = ConsoleTable(title="where the merged model stands", title_justify="left")
    for head in WORST_DOMAIN_HEADS:
        table.add_column(head, justify="right" if head in ("mean", "there") else "left")
    for row in evaluation.worst_domains():
        table.add_row(*map(Text, row))
    table.caption, table.caption_justify = Text(WORST_DOMAIN_CAPTION), "left"
    return table


def _worst_domains_markdown(evaluation: MergeEvaluation) -> str:
    rows = [WORST_DOMAIN_HEADS, ["---"] * len(WORST_DOMAIN_HEADS), *evaluation.worst_domains()]
    lines = [" | ".join(plain(cell) if number > 1 else cell for cell in row) for number, row in enumerate(rows)]
    return "\n".join(f"| {line} |" for line in lines) + f"\n\n{WORST_DOMAIN_CAPTION}"


def overlap_notes(evaluation: MergeEvaluation, validation: Sequence[Example]) -> list[str]:
    """Say what of the evaluation the weights were chosen on: all of it, or so many questions of a suite."""
    if evaluation.merged.suite == "validation":
        return [CHOSEN_ON]
    if evaluation.merged.suite == "heldout" or not validation:  # those were compared when they were loaded
        return []
    overlaps = find_overlaps(evaluation.merged.samples, [f"{each.prompt}\n{each.response}" for each in validation])
    return [
        f"{len(overlap.contaminated_ids)} of {overlap.checked} questions of {overlap.domain} share 13 words in a row with the "
        "examples that the weights were chosen on."
        for overlap in overlaps
        if overlap.contaminated_ids
    ]


def _memory(folders: Sequence[EvaluatedModel]) -> str:
    sizes = [sum(math.prod(tensor.shape) for tensor in stored_tensors(Path(model.path)).values()) for model in folders]
    return f" (the largest {byte_size(4 * max(sizes))} of weights in float32)" if sizes else ""
