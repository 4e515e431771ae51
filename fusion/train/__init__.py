"""Training the pivot to agree with the text and with its sources."""

from fusion.train.collate import Collator, Reference
from fusion.train.fit import Recipe, train
from fusion.train.strategy import BASELINE, pairwise, trainings

__all__ = ["BASELINE", "Collator", "Recipe", "Reference", "pairwise", "train", "trainings"]
