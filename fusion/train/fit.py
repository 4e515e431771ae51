"""One training of the pivot: model, head, Trainer, resume, and what it leaves on disk."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import PrinterCallback, TrainerCallback, TrainingArguments, set_seed

from fusion.head import BUDGET, Head
from fusion.models import ModelRef, load_model, vocabulary
from fusion.objectives import AnyObjective
from fusion.train.collate import Collator
from fusion.train.packing import check_no_cross_talk, line_length
from fusion.train.trainer import FusionTrainer


@dataclass(frozen=True)
class Recipe:
    """What one training is made of."""

    pivot: ModelRef
    tokenizer: Any
    collator: Collator
    objectives: Sequence[AnyObjective]
    arguments: dict[str, Any]
    """For TrainingArguments, as the user wrote them."""
    seed: int
    dtype: str
    chunk: int | None = None
    """Rows whose logits exist at once; see `Head.chunk`."""
    budget: int = BUDGET
    """Logits that a step keeps for its backward pass; see `Head.budget`."""
    line: int | None = None
    """Tokens of a line in which short texts are packed; None packs nothing."""


def train(recipe: Recipe, folder: Path, callbacks: Sequence[TrainerCallback] = ()) -> Path:
    """Train a copy of the pivot, continuing from the newest checkpoint in `folder`; returns `folder`/model.

    Leaves log.json (loss parts, match rates and weights by step), Trainer's checkpoints and TensorBoard files in `folder`.
    """
    set_seed(recipe.seed)
    model = load_model(recipe.pivot, recipe.dtype, _device())
    head = Head.of(model, vocabulary(recipe.tokenizer), recipe.chunk, recipe.budget)
    head.check(model)
    collator = recipe.collator
    if recipe.line is not None:
        check_no_cross_talk(model)
        collator = dataclasses.replace(collator, line=line_length(model, recipe.line))
    trainer = FusionTrainer(
        model=model,
        head=head,
        objectives=recipe.objectives,
        args=training_arguments(recipe.arguments, folder, recipe.seed),
        train_dataset=range(len(collator.examples)),  # type: ignore[arg-type]
        data_collator=collator,  # type: ignore[arg-type]
        processing_class=recipe.tokenizer,
        callbacks=list(callbacks),
    )
    trainer.remove_callback(PrinterCallback)  # log.json holds what it would print
    trainer.train(resume_from_checkpoint=last_checkpoint(folder))
    trainer.save_model(str(folder / "model"))
    (folder / "log.json").write_text(json.dumps([entry for entry in trainer.state.log_history if "loss" in entry]))
    return folder / "model"


def training_arguments(given: dict[str, Any], folder: Path, seed: int) -> TrainingArguments:
    """The user's TrainingArguments with what fusion needs. Computes in float32 where there is no GPU."""
    on_cpu = not torch.cuda.is_available()
    ours = {
        "output_dir": str(folder),
        "remove_unused_columns": False,
        "seed": seed,
        "use_cpu": on_cpu,
    }
    defaults = {
        "report_to": ["tensorboard"],
        "save_total_limit": 1,
        "logging_steps": 1,
        "disable_tqdm": True,
        "bf16": False,
    }
    return TrainingArguments(**{**defaults, **given, **ours})


def last_checkpoint(folder: Path) -> str | None:
    """The newest whole checkpoint; Trainer writes trainer_state.json last, so one without it was cut off."""
    whole = [file.parent for file in folder.glob("checkpoint-*/trainer_state.json")]
    return str(max(whole, key=lambda place: int(place.name.split("-")[1]))) if whole else None


def _device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"
