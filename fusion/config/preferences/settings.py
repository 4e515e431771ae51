"""How the pivot learns, last of all, to find right answers likelier than wrong ones."""

from __future__ import annotations

from pydantic import Field

from fusion.config.training import Arguments
from fusion.core.settings import Settings
from fusion.objectives import AnyObjective


class Preferences(Settings):
    """After everything else: pairs of a right and a wrong answer to one prompt, of the answers at hand.

    These are what sources wrote (`data.responses`) and what the pivot wrote in rounds, as their checks judged them. The
    pivot, and sources where an objective asks, read them once; then the pivot learns.
    """

    objectives: list[AnyObjective] = Field(min_length=1)
    """Terms of the loss: dpo, wrpo, infifpo, and cross_entropy with part: chosen."""
    pairs_per_prompt: int = Field(default=1, ge=1)
    """Pairs of each prompt at most, drawn by the run's seed; no answer comes twice before each has come once."""
    same_writer: bool = False
    """Only pairs of which one model wrote both answers, so that they differ in being right and not in style."""
    training: Arguments = Field(default={})
    """TrainingArguments of this training, where they are not the run's `training`; a step is of pairs, and its learning rate is
    best far below that of the first training."""
