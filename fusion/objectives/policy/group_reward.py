"""Rewards of whole texts, compared among the texts for one prompt: no source takes part."""

from __future__ import annotations

from typing import Literal

from jaxtyping import Float
from torch import Tensor

from fusion.objectives.policy.base import RolloutObjective
from fusion.objectives.policy.rollouts import RolloutRows


class GroupReward(RolloutObjective):
    """Every token of a text becomes likelier by how much better the text did than the others for its prompt.

    The loss of a token is -rho A log pi(y_t), see `PolicyObjective`, A the advantage of its text less beta (log pi - log pi_0).
    A control for rounds: what the check alone teaches, without any source.

    Source: GRPO, Shao et al. 2024, arXiv:2402.03300, as a token mean over the step: TRL's loss_type dapo, whose gradient it has
    with the same epsilon and epsilon_high wherever no token above the upper bound is to become less likely.
    """

    kind: Literal["group_reward"] = "group_reward"

    def compute_advantages(self, rollouts: RolloutRows) -> Float[Tensor, " M"]:
        """The advantage of each row's text."""
        return rollouts.text_advantages
