"""Training a draft on the target's own hidden states, along given text; the target is frozen.

Source: FSPAD, arXiv:2408.15562, section 4; defaults are the paper's. Noise is uniform and of this width (a guess at its unit).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor
from torch.nn.functional import smooth_l1_loss
from torch.utils.checkpoint import checkpoint
from transformers import PrinterCallback, Trainer, TrainerCallback, set_seed
from typing_extensions import override

from fusion.core.settings import Settings
from fusion.data.batching import pad_texts
from fusion.data.encode import Encoded
from fusion.extras.draft.model import Draft, DraftShape, save
from fusion.models.head import MAX_LOGITS_PER_CHUNK, Head, hidden_states
from fusion.training.checkpoint import CheckpointMarks, last_checkpoint, without_rotation
from fusion.training.fit import training_arguments


class DraftSettings(Settings):
    """How a draft is trained and measured."""

    epochs: float = Field(default=20.0, gt=0)
    """Passes over the data."""
    max_steps: int | None = Field(default=None, gt=0)
    """Number of steps, instead of passes."""
    batch_size: int = Field(default=4, gt=0)
    """Examples in a step."""
    learning_rate: float = Field(default=5e-5, gt=0)
    """Of AdamW with betas 0.9 and 0.95, falling linearly to 0."""
    regression_weight: float = Field(default=1.0, ge=0)
    """Weight of the distance between guessed and true hidden states (smooth L1, mean over entries)."""
    prediction_weight: float = Field(default=0.1, ge=0)
    """Weight of the cross-entropy between the target's distribution and the draft's, in nats."""
    noise: float = Field(default=0.2, ge=0)
    """Width of the uniform noise on the hidden states that are read, so that it stands the errors they have in decoding."""
    max_grad_norm: float = Field(default=0.5, gt=0)
    """Largest norm of a gradient."""
    save_steps: int = Field(default=500, gt=0)
    """Steps between checkpoints."""
    depth: int = Field(default=5, gt=0)
    """Draft tokens proposed at a time, where acceptance is measured."""
    max_new_tokens: int = Field(default=64, gt=1)
    """Tokens that the target writes after each prompt, where acceptance is measured."""
    seed: int = 0
    """Seed of the first weights, the data order, the noise, and the sampled measurement."""


@dataclass(frozen=True)
class Losses:
    """Both losses at N positions, unreduced."""

    regression: Float[Tensor, " N"]
    prediction: Float[Tensor, " N"]


def losses(
    predict: Float[Tensor, "N D"], regress: Float[Tensor, "N D"], features: Float[Tensor, "N D"], head: Head
) -> Losses:
    """How far `regress` is from the target's `features`, and the cross-entropy of what its head makes of `predict`.

    The head is frozen: no gradient reaches it. Logits exist for a chunk of places at a time, and again in the backward pass.
    """
    step = max(16, MAX_LOGITS_PER_CHUNK // head.vocabulary)
    parts = [
        checkpoint(_cross_entropy, predict[i : i + step], features[i : i + step], head, use_reentrant=False)
        for i in range(0, max(1, len(predict)), step)
    ]
    return Losses(smooth_l1_loss(regress.float(), features.float(), reduction="none").mean(-1), torch.cat(parts))  # type: ignore[arg-type]


def _cross_entropy(predict: Tensor, features: Tensor, head: Head) -> Tensor:
    return -(head.logits(features).softmax(-1).detach() * head.logits(predict).log_softmax(-1)).sum(-1)


class DraftTrainer(Trainer):
    """Trainer with the loss above: the mean over the places of a batch at which the target predicts the response."""

    def __init__(self, *, target: Any, head: Head, settings: DraftSettings, **kwargs: Any):
        super().__init__(**kwargs)
        self.target, self.head, self.settings = target, head, settings
        self._parts: dict[str, float] = {}

    @override
    def _save_checkpoint(self, *args: Any, **kwargs: Any) -> None:
        with without_rotation(self.args):
            super()._save_checkpoint(*args, **kwargs)

    @override
    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        at = inputs.pop("at")
        with torch.no_grad():
            features = hidden_states(self.target, **inputs)
            embedded = self.target.get_input_embeddings()(inputs["input_ids"])
        noise = (torch.rand_like(features) - 0.5) * self.settings.noise
        predict, regress = model(embedded[:, 1:].float(), (features + noise)[:, :-1].float())
        # place t of the draft answers for the target's t + 1
        predict, regress, true = (part.flatten(0, 1)[at] for part in (predict.to(features), regress, features[:, 1:]))
        found = losses(predict, regress, true, self.head)
        regression, prediction = found.regression.mean(), found.prediction.mean()
        self._parts = {"regression": regression.item(), "prediction": prediction.item()}
        if not all(math.isfinite(part) for part in self._parts.values()):
            raise ValueError(
                f"Step {self.state.global_step + 1}: the losses of the draft are {self._parts}, which are no numbers. Lower "
                "learning_rate, or load the model in float32 (--dtype)."
            )
        loss = self.settings.regression_weight * regression + self.settings.prediction_weight * prediction
        return (loss, {}) if return_outputs else loss

    @override
    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        # both parts, of the last batch
        super().log(logs | self._parts if "loss" in logs else logs, start_time)


@dataclass(frozen=True)
class DraftCollator:
    """Texts to a batch: padded ids, and the places of the draft that answer for a row of the response."""

    texts: Sequence[Encoded]
    pad_id: int

    def __call__(self, numbers: Sequence[int]) -> dict[str, Tensor]:
        """`input_ids`, `attention_mask` of shape [B, T]; `at` within the flattened [B * (T - 1)] places."""
        inputs, at, _ = pad_texts([self.texts[n] for n in numbers], "cpu", self.pad_id)
        width = inputs["input_ids"].shape[1]
        line, place = at // width, at % width
        return inputs | {"at": (line * (width - 1) + place - 1)[place > 0]}  # nothing answers for the first place


def train(
    target: Any,
    head: Head,
    tokenizer: Any,
    texts: Sequence[Encoded],
    *,
    settings: DraftSettings,
    folder: Path,
    callbacks: Sequence[TrainerCallback] = (),
) -> Draft:
    """Train a draft for `target` on `texts`, from the newest checkpoint in `folder` if there is one; written there too."""
    draft, target = _new(target, settings.seed), target.requires_grad_(False).eval()
    given: dict[str, Any] = {
        "num_train_epochs": settings.epochs,
        "max_steps": settings.max_steps or -1,
        "per_device_train_batch_size": settings.batch_size,
        "learning_rate": settings.learning_rate,
        "adam_beta2": 0.95,
        "max_grad_norm": settings.max_grad_norm,
        "save_steps": settings.save_steps,
    }
    trainer = DraftTrainer(
        target=target,
        head=head,
        settings=settings,
        model=draft,
        args=training_arguments(given, folder, settings.seed),
        train_dataset=range(len(texts)),  # type: ignore[arg-type]
        data_collator=DraftCollator(texts, tokenizer.pad_token_id or 0),  # type: ignore[arg-type]
    )
    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(CheckpointMarks())
    for callback in callbacks:
        trainer.add_callback(callback)
    before = last_checkpoint(folder)
    trainer.train(resume_from_checkpoint=None if before is None else str(before))
    save(draft, folder, settings=settings.model_dump(), log=[e for e in trainer.state.log_history if "loss" in e])
    return draft.eval()


def _new(target: Any, seed: int) -> Draft:
    set_seed(seed)
    return Draft(DraftShape.from_target(target))
