"""What a training knows that ordinary ones do not, in the steps of a run that have it: nothing here."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

from fusion.config import Config, plain_fine_tuning
from fusion.objectives import AnyObjective
from fusion.training import TrainingSource
from fusion.training.preferences import PreferenceData
from fusion.training.rollouts import RolloutData

if TYPE_CHECKING:
    from transformers import TrainerCallback


class OrdinaryStep:
    """A training on texts that were there before it; rounds and preferences say otherwise what is said here."""

    config: Config

    @functools.cached_property
    def autocast(self) -> Literal["bfloat16", "float16"] | None:
        """What models multiply in as they read, if not in the type of their weights: in rounds alone."""
        return None

    @functools.cached_property
    def pivot_stop_ids(self) -> tuple[int, ...]:
        """Ids of the pivot that are one event where it reads and is trained, that an answer is over: in rounds alone."""
        return ()

    def objectives(self, *, learns_from_sources: bool) -> Sequence[AnyObjective]:
        """The terms of a training: cross-entropy alone where it learns from no source."""
        return self.config.objectives if learns_from_sources else plain_fine_tuning()

    def rollout_data(self, sources: Sequence[TrainingSource], objectives: Sequence[AnyObjective]) -> RolloutData | None:
        """What is known of the texts that the pivot wrote, in a round; None outside rounds."""
        return None

    def preference_data(self) -> PreferenceData | None:
        """What is known of right and wrong answers, where a training compares them; None where it does not."""
        return None

    @property
    def training_callbacks(self) -> list[TrainerCallback]:
        """What listens to a training besides its bar: nothing outside rounds."""
        return []

    @property
    def training_key(self) -> dict[str, Any]:
        """What a training depends on besides its examples, sources and settings: nothing outside rounds."""
        return {}
