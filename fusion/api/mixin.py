"""The terms of fusion inside transformers' Trainer, or a trainer that derives from it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor
from transformers import TrainerCallback

from fusion.api.collator import FusionCollator
from fusion.api.given import AnyObjectives, objectives_of
from fusion.api.loss import fault_of, loss_of_logits
from fusion.models.head import CapturedStates, Head, capture_states, describe_model, unwrap_model
from fusion.models.loading import vocabulary_size
from fusion.models.precision import mixed_precision
from fusion.objectives import BatchTargets

if TYPE_CHECKING:
    from transformers import Trainer
else:
    Trainer = object  # the trainer that it is mixed with


class FusionMixin(Trainer):
    """Adds the terms of `objectives` to a trainer's own loss.

        class MyTrainer(fusion.FusionMixin, transformers.Trainer): ...

        trainer = MyTrainer(
            model=model, args=args, objectives=[fusion.objectives.ForwardKL(weight=0.5)],
            train_dataset=collator.dataset(), data_collator=collator, processing_class=tokenizer,
        )

    The loss is the trainer's own, cross-entropy of the labels, plus each objective's weight times its mean over the global
    batch: micro-batches and processes add up to what one large batch would give. `args.remove_unused_columns` must be False,
    for the collator needs the number of each example. The pivot's logits are computed in chunks from what its output layer
    reads, so that fused losses, which never make them, do as well. A batch of an evaluation without `targets`, from another
    collator, has the trainer's own loss alone. The terms are logged as `fusion/...`.
    """

    def __init__(self, *args: Any, objectives: AnyObjectives, **kwargs: Any):
        """Take the arguments of the trainer, and the objectives.

        Args:
            args: Of the trainer that this is mixed with.
            objectives: Terms added to the trainer's own loss; without `CrossEntropy`, which that loss is already.
            kwargs: Of the trainer: `processing_class`, `data_collator` (a `FusionCollator`), `train_dataset` and so on.

        Raises:
            ValueError: Without `processing_class`, with `remove_unused_columns=True`, for an objective that needs more than
                logits, or for texts of the collator that the model cannot read.
        """
        super().__init__(*args, **kwargs)
        if self.processing_class is None:
            raise ValueError(
                "FusionMixin needs processing_class, the pivot's tokenizer: logits beyond its tokens are left out."
            )
        if self.args.remove_unused_columns:
            raise ValueError(
                "FusionMixin needs remove_unused_columns=False in the arguments: its collator reads the column `number`."
            )
        self._refuse_what_the_model_cannot_read()
        head = Head.from_model(unwrap_model(self.model), vocabulary_size(self.processing_class))
        self._fusion_loss = loss_of_logits(
            objectives_of(objectives), replace(head, autocast=mixed_precision(self.args))
        )
        self._fusion_counts: dict[str, float] | None = None
        self._fusion_begin()
        self.add_callback(_TrainingBegins(self))

    def _refuse_what_the_model_cannot_read(self) -> None:
        collator: Any = self.data_collator
        if isinstance(collator, FusionCollator):
            model = unwrap_model(self.model)
            collator.refuse_unreadable(describe_model(model), model.config)

    def _fusion_begin(self) -> None:
        """Start to sum what is logged at this step, which is not the first where a training goes on from a checkpoint."""
        self._fusion_sums: dict[str, Tensor] = {}
        self._fusion_logged_at = self.state.global_step

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """Compute the trainer's own loss, and add the terms where the batch has targets."""
        targets, shape = inputs.pop("targets", None), inputs["input_ids"].shape
        # the trainer runs the model once; what its output layer reads is kept on the way, and no second pass is needed
        with capture_states(model) as captured:
            found: Any = super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        if targets is None:
            self._refuse_plain_training(model)
            return found
        hidden = captured.states(model, shape)
        if model.training:
            _refuse_without_gradients(captured, hidden, self._fusion_loss.head)
        terms = self._fusion_terms(model, hidden, targets.to(self.args.device))
        return (found[0] + terms, found[1]) if return_outputs else found + terms

    def _refuse_plain_training(self, model: Any) -> None:
        if model.training and self._fusion_loss.objectives:
            raise ValueError(
                "This batch has no targets, so that no term of the objectives could be learned: data_collator must be a "
                "fusion.FusionCollator, and train_dataset its dataset()."
            )

    def _fusion_terms(self, model: Any, hidden: Float[Tensor, "B T D"], targets: BatchTargets) -> Float[Tensor, ""]:
        """Weight times mean of all terms; in training, this micro-batch's share of those over the global batch."""
        loss = self._fusion_loss
        _refuse_shards(loss.head)
        # an evaluation has no step to average over, so each of its batches counts for itself
        counts = self._fusion_counts if model.training else loss.counts(targets)
        if counts is None:
            raise ValueError(
                "No micro-batch of this step was counted, so that no mean over the step can be taken: the trainer's "
                "get_batch_samples must call that of FusionMixin, which stands before the trainer in `class MyTrainer(...)`."
            )
        terms = loss(hidden, targets, counts, self.state.global_step)
        total = torch.zeros((), device=hidden.device)
        for term in terms:
            total = total + term.weight * term.mean
            if model.training:
                self._fusion_sums[term.name] = self._fusion_sums.get(term.name, 0) + term.mean.detach()
        if not self.args.fp16 and not bool(total.detach().isfinite()):  # a scaler of float16 skips such steps itself
            raise ValueError(f"Step {self.state.global_step + 1}: {fault_of(terms)}")
        # gradients are averaged over processes, and Trainer may divide by micro-batches; our denominators count both already
        return total * self.accelerator.num_processes * self._divided_by() if model.training else total

    def _divided_by(self) -> int:
        """The number that Trainer will divide a micro-batch's loss by: 1, unless the model takes no `num_items_in_batch`."""
        accepts = self.model_accepts_loss_kwargs or self.compute_loss_func is not None
        return 1 if accepts else self.current_gradient_accumulation_steps

    def get_batch_samples(self, *args: Any, **kwargs: Any) -> Any:
        """Take the micro-batches of a step, and count what the means over all of them, in all processes, divide by."""
        batches, items = super().get_batch_samples(*args, **kwargs)
        counts = [self._fusion_loss.counts(batch["targets"]) for batch in batches if "targets" in batch]
        self._fusion_counts = None
        if counts:
            sums = torch.tensor(
                [float(sum(each[name] for each in counts)) for name in counts[0]], device=self.args.device
            )
            whole: Any = self.accelerator.reduce(sums, "sum")
            self._fusion_counts = dict(zip(counts[0], whole.tolist(), strict=True))
        return batches, items

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        """Log the trainer's own, and each term's mean over the steps since the last log."""
        steps = self.state.global_step - self._fusion_logged_at
        if self._fusion_sums and steps > 0 and "loss" in logs:
            sums: Any = self.accelerator.reduce(torch.stack(list(self._fusion_sums.values())), "sum")
            logs = logs | {f"fusion/{n}": v for n, v in zip(self._fusion_sums, (sums / steps).tolist(), strict=True)}
            self._fusion_begin()
        super().log(logs, *args, **kwargs)


class _TrainingBegins(TrainerCallback):
    """Forgets what an earlier training left to log, when the trainer knows the step at which this one begins."""

    def __init__(self, trainer: FusionMixin):
        self._trainer = trainer

    def on_train_begin(self, *_args: Any, **_kwargs: Any) -> None:
        self._trainer._fusion_begin()


def _refuse_without_gradients(captured: CapturedStates, hidden: Tensor, head: Head) -> None:
    """Raise ValueError where terms on these states could change no weight; the output layer's own may be the only ones."""
    if not captured.with_gradients:
        raise ValueError(
            "The trainer ran the model without gradients alone, so that no term could be learned. Its compute_loss must run "
            "the model with gradients when it trains."
        )
    if not hidden.requires_grad and not any(weight.requires_grad for weight in head.module.parameters()):
        raise ValueError(
            "No weight that the logits depend on is trained, so that no term could be learned. Set requires_grad on some of "
            "the model's weights, or give it an adapter."
        )


def _refuse_shards(head: Head) -> None:
    """Raise ValueError where each process has a part of the output layer only."""
    weight: Any = head.module.weight
    if hasattr(weight, "ds_shape") or hasattr(weight, "full_tensor"):
        raise ValueError(
            "The output layer is spread over the processes (ZeRO-3 or FSDP), where FusionMixin cannot read it. Use DDP or ZeRO "
            "up to stage 2, or fusion.run, whose engines can."
        )
