"""Hidden states of a whole response as two clouds, and what it costs to move one onto the other."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float
from pydantic import Field
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from typing_extensions import override

from fusion.core.rows import LogitRows
from fusion.objectives.base import Requirements
from fusion.objectives.base_classes import ExampleObjective
from fusion.objectives.graph.gld import has_rows
from fusion.objectives.hidden.states import HiddenObjective, directions, present, side_by_side, states
from fusion.objectives.modules.base import ModuleObjective, ModuleSpec, linear
from fusion.objectives.targets import ObjectiveInputs


class OptimalTransport(HiddenObjective, ModuleObjective, ExampleObjective):
    """Cost of the entropic transport plan between an example's states in the pivot and, projected, in the source.

    Each row has the same mass within its model. Neither tokenizers nor alignment matter: only that both models read one text.
    A linear projector from the source's width to the pivot's is trained with the pivot, one for each source; without a module,
    states of the same width are compared as they are. Gradients flow through cost and plan, on both sides. The value is not 0
    where both clouds agree, for the plan is blurred: it tends to 0 as `alpha` grows.

    Source: CoT2Align, arXiv:2502.16806. The paper's own setting is `cost: attention, alpha: 0.1`; its plan is then almost the
    product of the masses, for which the attention cost is 1 - 1/n whatever the states are, so that next to no gradient is
    left: on random states some 200 times less than with `alpha: 20`. Our defaults are guesses for that reason.

    `other_answers` adds the paper's cross terms: from a standard answer in the pivot to one with a chain of thought in the
    source, and the other way round. Both are examples of the data, with the same prompt; who wrote the longer one (there the
    source, asked to think step by step) is not this term's matter. Left out: the transport between embeddings, for a cache
    keeps the last states.
    """

    kind: Literal["optimal_transport"] = "optimal_transport"
    cost: Literal["cosine", "attention", "euclidean"] = "cosine"
    """Of moving one state onto another: 1 - cosine; 1 - softmax over the source's rows of the scaled product; or distance."""
    alpha: float = Field(default=20.0, gt=0)
    """Sharpness of the plan, the inverse of the entropy's weight. 10 to 50 is useful for costs up to 1. A guess."""
    iterations: int = Field(default=100, ge=1)
    """Of Sinkhorn's algorithm. The paper's most."""
    other_answers: bool = False
    """Also move an example's states onto the source's of another answer to the same prompt. The value is the mean of both
    costs, so that all four of the paper's weigh the same."""

    @property
    @override
    def requirements(self) -> Requirements:
        return dataclasses.replace(super().requirements, other_answers=self.other_answers)

    @override
    def extra_arguments(self, inputs: ObjectiveInputs, name: str) -> dict[str, Any]:
        other = {"other": inputs.targets.sources[name].other_answer} if self.other_answers else {}
        return super().extra_arguments(inputs, name) | other

    @override
    def build_module(self, spec: ModuleSpec) -> nn.Module:
        pivot, source = spec.widths
        return linear(source, pivot, bias=False)

    def __call__(
        self,
        pivot: LogitRows,
        source: LogitRows,
        examples: int,
        module: nn.Module | None = None,
        other: LogitRows | None = None,
    ) -> Float[Tensor, " E"]:
        """One value for each example, never negative. `other`: the source's rows of another answer to the same prompts."""
        value = self._cost(pivot, source, examples, module)
        if other is None:
            return value
        across = self._cost(pivot, other, examples, module)
        return torch.where(has_rows(other, examples), (value + across) / 2, value)

    def _cost(
        self, pivot: LogitRows, source: LogitRows, examples: int, module: nn.Module | None
    ) -> Float[Tensor, " E"]:
        pivot_states, source_states = states(pivot, source)
        x = side_by_side(pivot_states, pivot, examples)
        y = side_by_side(source_states if module is None else module(source_states), source, examples)
        both = has_rows(pivot, examples) & has_rows(source, examples)
        rows, columns = (present(side, examples) for side in (pivot, source))
        rows, columns = (there | (first(there) & ~both[:, None]) for there in (rows, columns))  # at least one of each
        cost = costs(x, y, columns, self.cost)
        plan = sinkhorn(cost, even(rows, cost), even(columns, cost), self.alpha, self.iterations)
        return ((plan * cost).sum((1, 2)) * both).to(pivot.gold.dtype)


def costs(
    x: Float[Tensor, "E T D"], y: Float[Tensor, "E R D"], columns: Bool[Tensor, "E R"], kind: str
) -> Float[Tensor, "E T R"]:
    """Of moving each state of `x` onto each of `y`; anything where a place has no row."""
    if kind == "cosine":
        return 1 - directions(x) @ directions(y).mT
    if kind == "euclidean":
        return torch.cdist(x, y, compute_mode="donot_use_mm_for_euclid_dist")
    scores = x @ y.mT / x.shape[-1] ** 0.5
    return 1 - scores.masked_fill(~columns[:, None], torch.finfo(scores.dtype).min).softmax(-1)


def sinkhorn(
    cost: Float[Tensor, "E T R"],
    log_a: Float[Tensor, "E T"],
    log_b: Float[Tensor, "E R"],
    alpha: float,
    iterations: int,
) -> Float[Tensor, "E T R"]:
    """The plan exp(u - alpha cost + v) whose rows sum to `a` and whose columns, once it has converged, to `b`.

    In logarithms, so for any alpha; a place with log mass -inf takes no part. Each half step is done again in the backward
    pass, so that memory holds vectors for each iteration and matrices only once.

    Source: Cuturi 2013, arXiv:1306.0895; Peyré and Cuturi 2019, arXiv:1803.00567, section 4.4.
    """
    u, v = torch.where(log_a.isneginf(), log_a, 0), log_b
    for _ in range(iterations):
        v = log_b - _again(soft_maximum, cost.mT, u, alpha)
        u = log_a - _again(soft_maximum, cost, v, alpha)
    return (u[:, :, None] - alpha * cost + v[:, None, :]).exp()


def soft_maximum(cost: Float[Tensor, "E T R"], v: Float[Tensor, "E R"], alpha: float) -> Float[Tensor, "E T"]:
    """log of the sum of exp(v - alpha cost) over the last axis."""
    return (v[:, None, :] - alpha * cost).logsumexp(-1)


def even(there: Bool[Tensor, "E T"], like: Tensor) -> Float[Tensor, "E T"]:
    """Log of equal masses that sum to 1 over the places that are there."""
    mass = -there.sum(-1, keepdim=True).to(like.dtype).log()
    return mass.expand(there.shape).masked_fill(~there, -torch.inf)


def first(there: Bool[Tensor, "E T"]) -> Bool[Tensor, "E T"]:
    """The first place of each example."""
    return torch.arange(there.shape[1], device=there.device).expand(there.shape) == 0


def _again(function, *inputs):
    return checkpoint(function, *inputs, use_reentrant=False, preserve_rng_state=False)
