"""One training of the pivot: model, head, Trainer, resume, and what it leaves on disk."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from transformers import PrinterCallback, TrainerCallback, TrainingArguments, set_seed

from fusion.core.finite import refuse_broken_files
from fusion.core.secrets import refuse_secrets
from fusion.models.export import complete_export
from fusion.models.head import LOGITS_BUDGET, Head
from fusion.models.loading import ModelRef, check_checkpoint, vocabulary_size
from fusion.objectives import Objective
from fusion.runtime import distributed
from fusion.training.adapter import LoRA, load_pivot, merge_adapter
from fusion.training.auxiliary_modules import attach_modules, build_modules, detach_modules
from fusion.training.batch_targets import TrainingCollator
from fusion.training.checkpoint import last_checkpoint, make_universal
from fusion.training.engine import Engine, engine_arguments
from fusion.training.engine_checks import device_problems, running
from fusion.training.packing import max_line_length
from fusion.training.quantization_aware import AnyQuantizer, export_codes, finalize_weights, quantize_layers
from fusion.training.trainer import FusionTrainer, NothingLeftToTrain
from fusion.training.validation import EVAL_PREFIX, ValidationTexts

DDP_WITH_MODULES = {"ddp_find_unused_parameters": False, "ddp_broadcast_buffers": False}
"""What DDP must not do where modules of objectives are trained: they take part in the loss, not in the model's own output, and
hold frozen weights that need not be sent around."""


@dataclass(frozen=True)
class TrainingSpec:
    """The arguments of one training: pivot, batches, objectives, TrainingArguments, and how it is spread and adapted."""

    pivot: ModelRef
    tokenizer: Any
    collator: TrainingCollator
    objectives: Sequence[Objective]
    arguments: dict[str, Any]
    """For TrainingArguments, as the user wrote them."""
    seed: int
    dtype: str
    _: dataclasses.KW_ONLY
    logits_chunk: int | None = None
    """Rows whose logits exist at once; see `Head.chunk`."""
    logits_budget: int = LOGITS_BUDGET
    """Logits that a step keeps for its backward pass; see `Head.budget`."""
    pack_length: int | None = None
    """Tokens of a line in which short texts are packed; None packs nothing."""
    engine: Engine = field(default_factory=Engine)
    adapter: LoRA | None = None
    eos_token_ids: Sequence[int] = ()
    """Ids that answers end with in training; plain `generate` of the trained model stops at them."""
    stop_ids: Sequence[int] = ()
    """Ids that are one event to the objectives; see `Head.with_stop_ids`."""
    validation: ValidationTexts | None = None
    """What the model is read on while it trains, as `arguments` say (`validation_arguments`); None for nothing."""
    quantizer: AnyQuantizer | None = None
    """How the trained model's weights are quantized (quantization-aware training), if they are."""


def train(spec: TrainingSpec, folder: Path, callbacks: Sequence[TrainerCallback] = ()) -> Path:
    """Train a copy of the pivot, continuing from the newest checkpoint in `folder`; returns `folder`/model, a whole model.

    Leaves log.json (loss parts, gradient norm, entropy, match rates and weights by step; and what `measures` says of validation
    examples, in entries of their own), Trainer's checkpoints,
    TensorBoard files, and adapter/ (where there is one; it is merged into model/) in `folder`. The codes of quantized
    weights are in model/quantized/.
    Every process of a run calls it. Raises ValueError for a checkpoint that another engine made.
    """
    with running(spec.engine):
        checkpoint = last_checkpoint(folder)
        trainer = _trainer(spec, folder, checkpoint)
        for callback in callbacks:
            trainer.add_callback(callback)
        try:
            trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
        except NothingLeftToTrain:
            trainer.callback_handler.on_train_end(trainer.args, trainer.state, trainer.control)
        detach_modules(trainer.model)
        layers, parameters = finalize_weights(trainer.model), sum(p.numel() for p in trainer.model.parameters())  # type: ignore[union-attr]
        trainer.refuse_broken_weights()
        trainer.save_model(str(folder / ("adapter" if spec.adapter else "model")))
    if distributed.is_main_process():
        if spec.adapter:
            merge_adapter(spec.pivot, spec.dtype, folder / "adapter", folder / "model")
        complete_export(folder / "model", spec.pivot, spec.eos_token_ids)
        if spec.quantizer:
            export_codes(folder / "model", layers, spec.quantizer, parameters)
        refuse_broken_files(folder / "model", f"Lower training.learning_rate, delete {folder} and train again.")
        (folder / "log.json").write_text(json.dumps([entry for entry in trainer.state.log_history if _is_curve(entry)]))
    distributed.barrier()
    return folder / "model"


def _is_curve(entry: Mapping[str, Any]) -> bool:
    """Whether an entry of Trainer's log is of a step or of validation examples, rather than of the whole training."""
    return "loss" in entry or any(name.startswith(EVAL_PREFIX) for name in entry)


def _trainer(spec: TrainingSpec, folder: Path, checkpoint: Path | None) -> FusionTrainer:
    universal = checkpoint is not None and make_universal(checkpoint, spec.engine)
    ours = engine_arguments(spec.engine, spec.dtype, universal=universal)
    objectives = [objective for objective in spec.objectives if objective.weight]
    if any(objective.requirements.trains_module for objective in objectives):
        ours |= DDP_WITH_MODULES
    if spec.engine.shards_weights:
        check_checkpoint(spec.pivot)  # transformers does not say what it leaves out where it loads in shards
    args = training_arguments(spec.arguments | ours, folder, spec.seed)  # before the model: ZeRO-3 loads it in shards
    set_seed(spec.seed)
    device = "cpu" if spec.engine.shards_weights else distributed.device()
    model = load_pivot(spec.pivot, spec.dtype, device, spec.adapter)
    if spec.quantizer:
        quantize_layers(model, spec.quantizer)
    collator, head = (
        spec.collator,
        Head.from_model(model, vocabulary_size(spec.tokenizer), spec.logits_chunk, spec.logits_budget),
    )
    head = head.with_stop_ids(spec.stop_ids)
    learned = [s for s in collator.sources if collator.learn_from is None or s.name in collator.learn_from]
    width = model.get_output_embeddings().weight.shape[-1]
    modules = build_modules(objectives, learned, width, dtype=spec.dtype, seed=spec.seed)
    attach_modules(model, modules)
    if spec.pack_length is not None:
        collator = dataclasses.replace(collator, line_length=max_line_length(model, spec.pack_length))
    trainer = FusionTrainer(
        model=model,
        head=head,
        objectives=objectives,
        engine=spec.engine,
        modules=modules,
        validation=spec.validation,
        args=args,
        train_dataset=range(len(collator)),  # type: ignore[arg-type]
        data_collator=collator,  # type: ignore[arg-type]
        processing_class=spec.tokenizer,
    )
    trainer.remove_callback(PrinterCallback)  # log.json holds what it would print
    return trainer


def training_arguments(given: dict[str, Any], folder: Path, seed: int) -> TrainingArguments:
    """The user's TrainingArguments with what fusion needs. Computes in float32 where there is no GPU."""
    refuse_secrets(given, "training")  # they are written into training_args.bin and the logs of TensorBoard
    if problems := list(device_problems(given)):
        raise ValueError("\n".join(problems))
    on_cpu = not torch.cuda.is_available()
    ours = {
        "output_dir": str(folder),
        "remove_unused_columns": False,
        "seed": seed,
        "use_cpu": on_cpu,
        # a loss that is no number stops the training (`StepGuard`); what a loss scaler skips is left out of the log
        "logging_nan_inf_filter": bool(given.get("fp16")),
    }
    defaults = {
        "report_to": ["tensorboard"],
        "save_total_limit": 2,  # should the newest be damaged
        "logging_steps": 1,
        "disable_tqdm": True,
        "bf16": False,
        "log_level_replica": "error",
    }
    return TrainingArguments(**{**defaults, **given, **ours})
