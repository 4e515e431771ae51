"""Curves on held-out validation examples: the pivot is read on them while it trains, and learns nothing from them.

arguments   when it is read: TrainingArguments       texts   what of an example is scored, and who reads which
sums        what is measured, as sums by domain      read    one reading of all examples, over all processes
"""

from fusion.training.validation.arguments import (
    EVAL_ARGUMENTS,
    EVAL_BATCH_SIZE,
    validation_arguments,
    validation_points,
)
from fusion.training.validation.read import read_validation
from fusion.training.validation.sums import EVAL_PREFIX
from fusion.training.validation.texts import ValidationTexts

__all__ = [
    "EVAL_ARGUMENTS",
    "EVAL_BATCH_SIZE",
    "EVAL_PREFIX",
    "ValidationTexts",
    "read_validation",
    "validation_arguments",
    "validation_points",
]
