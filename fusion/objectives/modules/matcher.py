"""How sure one may be that a matched pair of rows belongs together: told from the hidden states of both models."""

from __future__ import annotations

import dataclasses
from typing import Literal

import torch
from jaxtyping import Float
from pydantic import field_validator
from torch import Tensor, nn
from torch.nn.functional import softplus
from typing_extensions import override

from fusion.core.rows import LogitRows, MappedRows
from fusion.objectives.base import Requirements
from fusion.objectives.base_classes import MappedObjective
from fusion.objectives.hidden.states import directions, present, row_numbers, side_by_side, states
from fusion.objectives.modules.base import ModuleObjective, ModuleSpec, linear
from fusion.objectives.token.divergences import ForwardKL
from fusion.objectives.token.mixture import AnyMapped


class Matcher(ModuleObjective, MappedObjective):
    """A term on mapped rows, each counting by how sure a matcher is that both its rows are about the same text.

    The matcher gives the pivot's state h and the source's h' the score sigmoid(a cos(P h, h') + b), P being a projector from
    the one width to the other. While the pivot is trained it learns to tell the pairs that were matched from all other pairs
    of rows of the same example. The value is score * term + cross-entropy of the matcher: half for the pair itself, half for
    the mean over the pivot's row with all other rows of the source. The score is a constant for the term, and the pivot's state
    for the matcher, so the pivot learns from the term alone and the matcher from its own cross-entropy alone.

    For alignments that guess (`dtw`, `truncate`): a pair that is not like others counts less. Rows matched by bytes have
    read the same text, and for them there is nothing to repair.

    Source: the vision-point matching of UniPLV, arXiv:2412.18131, which mends pairs of points and pixels after a projection
    with errors. The paper's formulas we could not read, and for tokens the form above is ours. Left out: the sum of a
    point's observations weighted by their product with a class's text, for hidden states of several sources have no
    common space and no text to be compared with. Its distillation of labels and of features brings nothing new to text.
    """

    kind: Literal["matcher"] = "matcher"
    objective: AnyMapped = ForwardKL()
    """The objective on mapped rows."""

    @field_validator("objective")
    @classmethod
    def _weighted_once(cls, objective: AnyMapped) -> AnyMapped:
        if objective.weight != 1 or objective.select is not None:
            raise ValueError("set weight and select on the matcher, not inside `objective`")
        return objective

    @property
    @override
    def required_top_k(self) -> int | None:
        return self.objective.required_top_k

    @property
    @override
    def required_source_fields(self) -> frozenset[str]:
        return self.objective.required_source_fields | {"hidden"}

    @property
    @override
    def required_pivot_fields(self) -> frozenset[str]:
        return self.objective.required_pivot_fields | {"hidden"}

    @property
    @override
    def requirements(self) -> Requirements:
        inner = self.objective.requirements
        return dataclasses.replace(
            super().requirements, exact_entries=inner.exact_entries, logit_scale=inner.logit_scale
        )

    @override
    def build_module(self, spec: ModuleSpec) -> PairMatcher:
        return PairMatcher(*spec.widths)

    def __call__(self, pivot: LogitRows, source: MappedRows, module: PairMatcher | None = None) -> Float[Tensor, " M"]:
        """One value for each row. Raises ValueError without a module."""
        if module is None:
            raise ValueError("matcher tells pairs apart by a module, made by `build_module`.")
        pivot_states, source_states = states(pivot, source)
        score, entropy = matched(module(pivot_states.detach(), source_states, pivot), pivot)
        value = score.detach() * self.objective(pivot, source).to(score.dtype) + entropy
        return value.to(pivot.gold.dtype)


class PairMatcher(nn.Module):
    """a cos(P h, h') + b: the log-odds that two states belong together. a is 10 at first, b 0, and P trained too.

    Source: the form is that of Zhai et al. 2023, arXiv:2303.15343 (SigLIP).
    """

    def __init__(self, pivot: int, source: int):
        super().__init__()
        self.projector = linear(pivot, source, bias=False)
        self.scale, self.bias = nn.Parameter(torch.tensor(10.0)), nn.Parameter(torch.tensor(0.0))

    def forward(
        self, pivot_states: Float[Tensor, "M D"], source_states: Float[Tensor, "M D2"], rows: LogitRows
    ) -> Float[Tensor, "E T T"]:
        """Of each row of the pivot with each of the source, example by example, as `rows` (those of the pivot) say."""
        x, y = (directions(each) for each in (self.projector(pivot_states), source_states))
        cosine = side_by_side(x, rows, _examples(rows)) @ side_by_side(y, rows, _examples(rows)).mT
        return self.scale * cosine + self.bias


def matched(odds: Float[Tensor, "E T T"], rows: LogitRows) -> tuple[Float[Tensor, " M"], Float[Tensor, " M"]]:
    """Of each row the probability that it was matched rightly, and the cross-entropy of all log-odds in its line, in nats.

    The pair itself has half the weight, and all pairs with other rows of its example together the other half.
    """
    there = present(rows, _examples(rows))
    apart = there[:, None, :] & ~torch.eye(there.shape[1], dtype=torch.bool, device=there.device)
    others = (softplus(odds) * apart).sum(-1) / apart.sum(-1).clamp(min=1)
    itself = odds.diagonal(dim1=1, dim2=2)
    at = rows.example, row_numbers(rows)
    return itself.sigmoid()[at], ((softplus(-itself) + others) / 2)[at]


def _examples(rows: LogitRows) -> int:
    return int(rows.example.max()) + 1 if len(rows) else 0
