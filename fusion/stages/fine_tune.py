"""The stage in which a source learns the style of the training data before it teaches."""

from __future__ import annotations

from fusion.stages.context import RunContext
from fusion.stages.train import train_one


def fine_tune_one(training: RunContext, name: str) -> bool:
    """Fine-tune a source on the data's own responses; whether there was something to do.

    `training` is one of `RunContext.fine_tunings`: the run in which this source stands in the pivot's place, alone.
    """
    return train_one(training, name, sources=[], learn_from=[])
