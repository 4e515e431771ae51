"""The end of a round whose pivot has moved too far from the one that wrote its texts."""

from __future__ import annotations

from typing import Any

from transformers import TrainerCallback

from fusion.training.trainer import NothingLeftToTrain


class StopAtClipRatio(TrainerCallback):
    """Ends a training when the share of tokens that policy objectives clip (`KIND/clip_ratio` in the log) passes a limit.

    What was logged is kept in checkpoints, so that a training which goes on from one ends where it would have.
    """

    def __init__(self, limit: float):
        self.limit = limit

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Make no step where the last one of the checkpoint passed the limit."""
        if self._is_passed(state):
            raise NothingLeftToTrain

    def on_log(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Stop behind this step."""
        if self._is_passed(state):
            control.should_training_stop = True

    def _is_passed(self, state: Any) -> bool:
        last = next((entry for entry in reversed(state.log_history) if "loss" in entry), {})
        return any(value > self.limit for name, value in last.items() if name.endswith("/clip_ratio"))
