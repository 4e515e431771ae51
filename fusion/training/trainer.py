"""transformers' Trainer with our loss: each objective's values, weighted, averaged over the global batch."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import Trainer, TrainerCallback

from fusion.core.finite import broken_weights
from fusion.models.head import Head, run_to_head, unwrap_model
from fusion.models.precision import mixed_precision
from fusion.objectives import BatchTargets, Objective
from fusion.runtime import distributed
from fusion.training.checkpoint import CheckpointMarks, without_rotation, write_engine_file
from fusion.training.engine import Engine
from fusion.training.engine_checks import check, keep_whole, restore_param_groups, shard_on_cpu
from fusion.training.gradient_projection import GradientProjection
from fusion.training.loss import Counts, Loss, LossTerm, StepGuard, loss_fault
from fusion.training.packing import check_packed_texts_stay_apart
from fusion.training.validation import ValidationTexts, read_validation

PROBED_ROWS = 64
"""Rows of a micro-batch whose whole distribution is looked at for the log: few, for this costs logits of its own."""


class FusionTrainer(Trainer):
    """Everything of Trainer (optimizers, schedules, checkpoints, resume, logging), with the fusion loss.

    An objective with weight 0 is not computed, so that a fusion with all weights at 0 is plain fine-tuning to the bit.
    Each mean is taken once over the global batch: its denominator counts all micro-batches and all processes.
    """

    def __init__(
        self,
        *,
        head: Head,
        objectives: Sequence[Objective],
        engine: Engine | None = None,
        modules: nn.ModuleDict | None = None,
        validation: ValidationTexts | None = None,
        **kwargs: Any,
    ):
        self.engine, self.validation = engine or Engine(), validation
        watched: Any = None if validation is None else range(len(validation.examples))
        super().__init__(eval_dataset=watched, **kwargs)
        self.add_callback(_Ready(self))  # type: ignore[arg-type]
        self.add_callback(CheckpointMarks())  # type: ignore[arg-type]
        counted = [objective for objective in objectives if objective.weight]
        # accelerate runs the model in mixed precision and not the loss, in which our output layer is
        head = dataclasses.replace(head, autocast=mixed_precision(self.args))
        self.loss = Loss(head, counted, nn.ModuleDict() if modules is None else modules)
        projects = any(objective.requirements.projects_gradient for objective in counted)
        self.projection = GradientProjection(self.model.parameters()) if projects else None  # type: ignore[union-attr]
        self.step_guard = StepGuard(scaled=self.args.fp16)
        self.loss_is_scaled_for_ga = True  # our means are over the whole accumulated batch already
        self._metrics: dict[str, Tensor] = {}
        self._logged_at = self._began_at = self.state.global_step

    def create_accelerator_and_postprocess(self) -> None:
        """Create Trainer's own; shard with FSDP2 on a CPU too, where accelerate would fall back to DDP."""
        super().create_accelerator_and_postprocess()
        if self.engine.name == "fsdp2" and self.args.device.type == "cpu":
            shard_on_cpu(self.accelerator, self.args.fsdp_plugin_args or {})
            self.is_fsdp_enabled = True

    def create_optimizer(self, *args: Any, **kwargs: Any) -> Any:
        """Create Trainer's own, and remember the settings of its groups (weight decay or none); a resumed ZeRO-3 mixes them."""
        optimizer = super().create_optimizer(*args, **kwargs)
        groups = [group for group in optimizer.param_groups if group["params"]]
        self._groups = [{k: v for k, v in group.items() if k not in ("params", "lr", "initial_lr")} for group in groups]
        return optimizer

    def ready(self) -> None:
        """Check the model once it is wrapped and its checkpoint loaded. Raises where either is not what it should be."""
        check(self.engine, self.model_wrapped)
        keep_whole(self.engine, self.model_wrapped, self.loss.head.module)
        if self.engine.stage == 3:
            restore_param_groups(self.optimizer, self._groups)
        self.loss.head.check_against_model(self.model_wrapped)
        if getattr(self.data_collator, "line_length", None) is not None:
            check_packed_texts_stay_apart(self.model_wrapped)
        self._logged_at = self._began_at = self.state.global_step

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """Compute the weighted sum of all terms of a micro-batch, a float32 scalar.

        `num_items_in_batch` are the denominators of all means, by name, as `_get_num_items_in_batch` counted them; without
        them (in evaluation) means are over this batch.
        """
        collator: Any = self.data_collator
        # workers made the batch ahead of time; weights that change from step to step are known only now
        targets: BatchTargets = collator.at_step(inputs["targets"], self.state.global_step).to(self.args.device)
        counts: Counts = num_items_in_batch or self.loss.counts(targets)
        # the states before the output layer, not logits: those of all positions would be the largest tensor of the step, and
        # the loss makes them of the response alone, in chunks
        hidden, _, auxiliary, _ = run_to_head(
            model, **{name: each for name, each in inputs.items() if name != "targets"}
        )
        # float32 whatever the model computes in: in bfloat16 a small term would vanish beside a large one
        total = hidden.new_zeros((), dtype=torch.float32) + self._head_takes_part()
        if auxiliary is not None:  # of a mixture of experts: it is part of the model's own loss too
            total = total + auxiliary / counts["batches"]
            self._add_metric("loss/router", auxiliary.detach() / counts["batches"])
        projected = torch.zeros_like(total)
        terms = self.loss(hidden, targets, counts, self.state.global_step)
        for term in terms:
            if term.projected:  # kept apart: what of its gradient opposes the others is cut off before both are added
                projected = projected + term.weight * term.mean
            else:
                total = total + term.weight * term.mean
            self._add_metric(f"loss/{term.name}", term.mean.detach())
            for name, share in term.metrics.items():
                self._add_metric(name, share)
        # noted here and raised after the backward pass: one process that stopped now would leave the others waiting for it
        self._note_fault(total + projected, terms, hidden, targets)
        self._add_predictions(hidden.detach(), targets, counts)
        for name, source in targets.sources.items():
            # shares of the whole step: those of its micro-batches and processes add up in `log`
            self._add_metric(f"match/{name}", len(source.pairs) / max(1, counts["read_rows"]))
            self._add_metric(f"mapped/{name}", len(source.mapped) / max(1, counts["read_rows"]))
            self._add_metric(f"weight/{name}", source.weight.sum() / max(1, counts[f"pairs/{name}"]))
        # gradients are averaged over processes, and the denominators above already count all of them
        loss = total * self.accelerator.num_processes
        if self.projection is not None:
            # float16 scales the loss before its backward pass; gradients that we take ourselves must have the same scale
            scale = 1.0 if self.accelerator.scaler is None else self.accelerator.scaler.get_scale()
            loss = loss + self.projection.add(projected * self.accelerator.num_processes, scale)
        return (loss, {}) if return_outputs else loss

    @torch.no_grad()
    def _note_fault(self, loss: Tensor, terms: Sequence[LossTerm], hidden: Tensor, targets: BatchTargets) -> None:
        """Keep why the loss is no number, where it is none, for `_get_grad_norm`, in which all processes can stop."""
        if not bool(loss.isfinite()):  # the wait for the device that Trainer's own look at the loss would take
            states, weights = hidden.flatten(0, 1)[targets.hidden_index], self.model.named_parameters()  # type: ignore[union-attr]
            self.step_guard.note(loss_fault(terms, states, targets, weights, scaled=self.args.fp16))

    def _get_grad_norm(self, model: Any, grad_norm: Any = None) -> Any:
        """Return Trainer's norm, before the optimizer's step. Raises ValueError where loss or gradients are no numbers."""
        norm = super()._get_grad_norm(model, grad_norm)
        self.step_guard.check(norm, self.state.global_step + 1)
        return norm

    def refuse_broken_weights(self) -> None:
        """Raise ValueError, in all processes, where weights of any are NaN or infinite: they are not to be written."""
        broken = broken_weights(self.model.named_parameters())  # type: ignore[union-attr]
        count: Any = self.accelerator.reduce(torch.tensor(float(len(broken)), device=self.args.device), "sum")
        if count.item():
            named = broken[0] if broken else "a part of them in another process"
            raise ValueError(
                f"Step {self.state.global_step}: the pivot's weights are NaN or infinite ({named}), so they are not written. "
                f"Lower training.learning_rate (it is {self.args.learning_rate}) and keep training.adam_epsilon above 0."
            )

    def _save_checkpoint(self, *args: Any, **kwargs: Any) -> None:
        """Write Trainer's checkpoint. Raises ValueError, in all processes, where weights are no numbers."""
        self.refuse_broken_weights()
        with without_rotation(self.args):
            super()._save_checkpoint(*args, **kwargs)

    @torch.no_grad()
    def _add_predictions(self, hidden: Float[Tensor, "B T D"], targets: BatchTargets, counts: Counts) -> None:
        """Add entropy (nats) of the model's predictions on rows spread over the batch, and how well its confidence fits.

        `calibration/confidence` is the mean probability of the likeliest token, `calibration/accuracy` the share of rows at
        which it is the one that follows: of a calibrated model both are the same. On training text, with its mistakes.
        """
        n = len(targets.positions)
        if n == 0 or targets.positions.token is None:
            return
        rows = torch.linspace(0, n - 1, min(n, PROBED_ROWS), device=hidden.device).long()
        logprobs = self.loss.head.logits(hidden.flatten(0, 1)[targets.hidden_index[rows]]).log_softmax(-1)
        confidence, likeliest = logprobs.max(-1)
        right = (likeliest == targets.positions.token[rows]).float()
        share = n / counts["rows"]  # of all rows of the step, over micro-batches and processes
        self._add_metric("entropy", torch.special.entr(logprobs.exp()).sum(-1).mean().float() * share)
        self._add_metric("calibration/confidence", confidence.exp().mean().float() * share)
        self._add_metric("calibration/accuracy", right.mean() * share)

    def training_step(self, *args: Any, **kwargs: Any) -> Tensor:
        """Take Trainer's own step; the last micro-batch of a step adds the projected gradients to the others."""
        loss = super().training_step(*args, **kwargs)
        # only now are the gradients of the other terms whole, over all micro-batches and processes
        if self.projection and self.accelerator.sync_gradients:
            self.projection.join(lambda gradient: self.accelerator.reduce(gradient, "mean"))  # type: ignore[arg-type, return-value]
        return loss

    def _head_takes_part(self) -> Tensor | float:
        """0, through the head's weights where no term looks at logits: DDP waits for a gradient of every weight."""
        if not all("hidden" in objective.requirements.pivot_fields for objective in self.loss.objectives):
            return 0.0
        return torch.stack([weight.sum() for weight in self.loss.head.module.parameters()]).sum().float() * 0

    def _get_num_items_in_batch(self, batch_samples: list, device: torch.device) -> Any:
        """The denominators of this step's means, over all its micro-batches and processes.

        Trainer calls it before the first forward pass of a step, and hands the result to `compute_loss` of each micro-batch.
        """
        counts = [self.loss.counts(batch["targets"]) for batch in batch_samples]
        if not counts:
            return None
        sums = torch.tensor([float(sum(each[name] for each in counts)) for name in counts[0]], device=device)
        sums: Any = self.accelerator.reduce(sums, "sum")
        return dict(zip(counts[0], sums.tolist(), strict=True))

    def _add_metric(self, name: str, value: Tensor | float) -> None:
        self._metrics[name] = self._metrics.get(name, torch.zeros((), device=self.args.device)) + value

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Write the whole model as safetensors, whichever engine holds it. Checkpoints of FSDP2 keep their shards apart."""
        if self.is_fsdp_enabled and not _internal_call:
            whole: Any = self.accelerator.get_state_dict(self.model)
            shared = getattr(unwrap_model(self.model), "all_tied_weights_keys", {})
            self._save(output_dir, state_dict={name: weight for name, weight in whole.items() if name not in shared})
        else:
            super().save_model(output_dir, _internal_call)

    def _save_rng_state(self, output_dir: str) -> None:
        """Write the last part of a checkpoint: when Trainer marks it as whole after this, all processes have written theirs."""
        super()._save_rng_state(output_dir)
        if distributed.is_main_process():
            write_engine_file(Path(output_dir), self.engine)
        distributed.barrier()

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """Read the validation examples, log what `read_validation` says of them, and return it. Nothing is learned from it.

        Trainer calls it as `eval_strategy` says. A training that goes on from a checkpoint has read them at its step before.
        """
        if self.validation is None or self.state.global_step == self._began_at > 0:
            return {}
        collator: Any = self.data_collator
        found = read_validation(
            self.model_wrapped,
            self.loss.head,
            self.validation,
            collator.lay_out,
            batch_size=self.args.per_device_eval_batch_size,
            device=self.args.device,
            add_up=lambda sums: self.accelerator.reduce(sums, "sum"),  # type: ignore[arg-type, return-value]
        )
        super().log(dict(found))  # not ours: metrics of training steps wait for their own entry
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, found)
        return found

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log Trainer's own, and each metric's mean over the steps since the last log."""
        steps = self.state.global_step - self._logged_at
        if self._metrics and steps > 0:
            sums: Any = self.accelerator.reduce(torch.stack(list(self._metrics.values())), "sum")
            logs = logs | dict(zip(self._metrics, (sums / steps).tolist(), strict=True))
            self._metrics, self._logged_at = {}, self.state.global_step
        super().log(logs, start_time)


class NothingLeftToTrain(Exception):  # noqa: N818  (no error: the model is what it should become)
    """A training goes on from the checkpoint of its last step."""


class _Ready(TrainerCallback):
    """Tells the trainer that its model is wrapped, and ends a training that goes on from its last step."""

    def __init__(self, trainer: FusionTrainer):
        self.trainer = trainer

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Before the first step."""
        self.trainer.ready()

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Before the first step too, when everybody has heard of the beginning."""
        if state.global_step >= state.max_steps:  # Trainer looks at that behind a step, and would make one more
            raise NothingLeftToTrain
