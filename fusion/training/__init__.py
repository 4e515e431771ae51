"""Training the pivot to agree with the text and with its sources.

batch_targets   examples and cached rows -> a batch       loss      a batch -> the terms of the loss
trainer         transformers' Trainer with that loss      fit       one whole training: model, resume, what it leaves

The first words of `batch_targets` tell what happens between reading a cache and `loss.backward()`.
"""

from fusion.training.batch_targets import TrainingCollator, TrainingSource
from fusion.training.engine import ACCUMULATION, BATCH_SIZE, examples_per_step
from fusion.training.strategies import BASELINE, MERGED, fine_tuning_name, pairwise_name, trainings_of

__all__ = [
    "ACCUMULATION",
    "BASELINE",
    "BATCH_SIZE",
    "MERGED",
    "TrainingCollator",
    "TrainingSource",
    "examples_per_step",
    "fine_tuning_name",
    "pairwise_name",
    "trainings_of",
]
