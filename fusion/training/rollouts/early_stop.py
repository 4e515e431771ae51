"""The end of a round whose pivot has moved too far from the one that wrote its texts."""

from __future__ import annotations

from typing import Any

from transformers import TrainerCallback

from fusion.runtime.console import show
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
        """Stop behind this step, and say why."""
        if self._is_passed(state) and not control.should_training_stop:
            control.should_training_stop = True
            if state.is_world_process_zero and state.global_step < state.max_steps:
                show([self._reason(state)])

    def _reason(self, state: Any) -> str:
        return (
            f"  this round ends after {state.global_step} of {state.max_steps} steps: {self._clipped(state):.0%} of the tokens "
            f"were clipped, and rounds.max_clip_ratio is {self.limit:.0%}. With a lower learning rate it makes more steps; "
            "null never ends it."
        )

    def _is_passed(self, state: Any) -> bool:
        return self._clipped(state) > self.limit

    def _clipped(self, state: Any) -> float:
        last = next((entry for entry in reversed(state.log_history) if "loss" in entry), {})
        return max((value for name, value in last.items() if name.endswith("/clip_ratio")), default=-1.0)
