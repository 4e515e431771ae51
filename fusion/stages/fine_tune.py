"""The stage in which a source is fine-tuned on the training data, so that it expects such texts, before it teaches."""

from __future__ import annotations

from fusion.stages.context import RunContext
from fusion.stages.train import train_one


def fine_tune_one(training: RunContext, name: str) -> bool:
    """Fine-tune a source on the data's own responses. Returns whether it was done now, and not by an earlier start.

    `training` is one of `RunContext.fine_tunings`: the run in which this source stands in the pivot's place, alone.
    """
    return train_one(training, name, sources=[], learn_from=[])
