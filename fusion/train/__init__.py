"""Training the pivot to agree with the text and with its sources."""

from fusion.train.collate import Collator, Reference
from fusion.train.engine import ACCUMULATED, SIZE, step_size
from fusion.train.fit import Recipe, train
from fusion.train.strategy import BASELINE, fine_tuned, pairwise, trainings

__all__ = [
    "ACCUMULATED", "BASELINE", "SIZE", "Collator", "Recipe", "Reference", "fine_tuned", "pairwise", "step_size", "train",
    "trainings",
]  # fmt: skip
