"""One training of the pivot: model, head, Trainer, resume, and what it leaves on disk."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from transformers import PrinterCallback, TrainerCallback, TrainingArguments, set_seed

from fusion.models.head import BUDGET, Head
from fusion.models.loading import ModelRef, vocabulary
from fusion.objectives import AnyObjective, OwningObjective
from fusion.runtime import distributed
from fusion.training.adapter import LoRA, load_pivot, merge_adapter
from fusion.training.auxiliary_modules import attach, build, detach
from fusion.training.batch_targets import Collator
from fusion.training.checkpoint import last_checkpoint, universal
from fusion.training.engine import Engine, arguments
from fusion.training.engine_checks import running
from fusion.training.packing import line_length
from fusion.training.quantization_aware import AnyStudent, export, prepare, settle
from fusion.training.trainer import FusionTrainer

PARTS_OUTSIDE = {"ddp_find_unused_parameters": False, "ddp_broadcast_buffers": False}
"""What DDP must not do where modules of terms are trained: they take part in the loss, not in the model's own output, and hold
frozen weights that need not be sent around."""


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
    engine: Engine = field(default_factory=Engine)
    adapter: LoRA | None = None
    student: AnyStudent | None = None
    """How the trained model's weights are quantised, if they are."""


def train(recipe: Recipe, folder: Path, callbacks: Sequence[TrainerCallback] = ()) -> Path:
    """Train a copy of the pivot, continuing from the newest checkpoint in `folder`; returns `folder`/model, a whole model.

    Leaves log.json (loss parts, match rates and weights by step), Trainer's checkpoints, TensorBoard files, and adapter/
    (where there is one; it is merged into model/) in `folder`. A quantised student's codes are in model/quantized/.
    Every process of a run calls it. Raises ValueError for a checkpoint that another engine made.
    """
    with running(recipe.engine):
        checkpoint = last_checkpoint(folder)
        trainer = _trainer(recipe, folder, checkpoint)
        for callback in callbacks:
            trainer.add_callback(callback)
        trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
        detach(trainer.model)
        layers, parameters = settle(trainer.model), sum(p.numel() for p in trainer.model.parameters())  # type: ignore[union-attr]
        trainer.save_model(str(folder / ("adapter" if recipe.adapter else "model")))
    if distributed.is_main():
        if recipe.adapter:
            merge_adapter(recipe.pivot, recipe.dtype, folder / "adapter", folder / "model")
            recipe.tokenizer.save_pretrained(folder / "model")
        if recipe.student:
            export(folder / "model", layers, recipe.student, parameters)
        (folder / "log.json").write_text(json.dumps([entry for entry in trainer.state.log_history if "loss" in entry]))
    distributed.barrier()
    return folder / "model"


def _trainer(recipe: Recipe, folder: Path, checkpoint: Path | None) -> FusionTrainer:
    other = checkpoint is not None and universal(checkpoint, recipe.engine)
    ours = arguments(recipe.engine, recipe.dtype, universal=other)
    objectives = [objective for objective in recipe.objectives if objective.weight]
    if any(isinstance(objective, OwningObjective) for objective in objectives):
        ours |= PARTS_OUTSIDE
    args = training_arguments(
        recipe.arguments | ours, folder, recipe.seed
    )  # before the model: ZeRO-3 loads it in shards
    set_seed(recipe.seed)
    device = "cpu" if recipe.engine.shards_weights else distributed.device()
    model = load_pivot(recipe.pivot, recipe.dtype, device, recipe.adapter)
    if recipe.student:
        prepare(model, recipe.student)
    collator, head = recipe.collator, Head.of(model, vocabulary(recipe.tokenizer), recipe.chunk, recipe.budget)
    learned = [each for each in collator.references if collator.learn is None or each.name in collator.learn]
    owned = build(objectives, learned, model.get_output_embeddings().weight.shape[-1], recipe.dtype, recipe.seed)
    attach(model, owned)
    if recipe.line is not None:
        collator = dataclasses.replace(collator, line=line_length(model, recipe.line))
    trainer = FusionTrainer(
        model=model,
        head=head,
        objectives=objectives,
        engine=recipe.engine,
        words={r.name: r.words for r in collator.references if r.words is not None},
        owned=owned,
        args=args,
        train_dataset=range(len(collator.examples)),  # type: ignore[arg-type]
        data_collator=collator,  # type: ignore[arg-type]
        processing_class=recipe.tokenizer,
    )
    trainer.remove_callback(PrinterCallback)  # log.json holds what it would print
    return trainer


def training_arguments(given: dict[str, Any], folder: Path, seed: int) -> TrainingArguments:
    """The user's TrainingArguments with what fusion needs. Computes in float32 where there is no GPU."""
    on_cpu = not torch.cuda.is_available()
    if given.get("use_liger_kernel") and on_cpu:
        raise ValueError("training.use_liger_kernel needs a GPU, and there is none; leave it out.")
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
        "log_level_replica": "error",
    }
    return TrainingArguments(**{**defaults, **given, **ours})
