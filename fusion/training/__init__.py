"""Training the pivot to agree with the text and with its sources."""

from fusion.training.batch_targets import Collator, Reference
from fusion.training.engine import ACCUMULATED, SIZE, step_size
from fusion.training.fit import Recipe, train
from fusion.training.strategies import BASELINE, fine_tuned, pairwise, trainings

__all__ = [
    "ACCUMULATED", "BASELINE", "SIZE", "Collator", "Recipe", "Reference", "fine_tuned", "pairwise", "step_size", "train",
    "trainings",
]  # fmt: skip
