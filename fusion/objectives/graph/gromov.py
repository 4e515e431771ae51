"""The Gromov-Wasserstein distance of two graphs on logits, held between two numbers that need no search.

With equal weights on n nodes each, C of one model and D of the other,

    GW_2(C, D)^2  =  least over all plans of sum over i, j, i', j' of (C_ij - D_i'j')^2 plan_ii' plan_jj'.

Below it lies the squared difference of the sorted row means (the argument of Mémoli 2011, doi:10.1007/s10208-011-9093-5, for
squares): what `gld` compares, blind to graphs with equal row sums. Above it lies what any one matching of the nodes costs,
so also the one that sorts both by row sums. With Z and Y the models' rows, columns in that order, it is

    n^2 cost  =  |C|^2 + |D|^2 - 2 <C, D>  =  |Z Z'|^2 + |Y Y'|^2 - 2 |Z Y'|^2

from Gram matrices over rows, or from the graphs themselves where nodes are fewer. It is 0 only for graphs that are equal
under that matching, so it sees what the lower bound does not.
"""

from __future__ import annotations

import dataclasses
from typing import Literal

import torch
from jaxtyping import Float
from pydantic import Field, model_validator
from torch import Tensor
from typing_extensions import override

from fusion.core.rows import LogitRows
from fusion.objectives.base import Requirements
from fusion.objectives.checks import as_target, full_top
from fusion.objectives.graph import pot_solver
from fusion.objectives.graph.gld import GraphObjective

OF_POT = ("epsilon", "starts", "seed")
"""Settings that only `solver: pot` reads."""


class GromovWasserstein(GraphObjective):
    """Squared Gromov-Wasserstein distance of two graphs: its upper bound by the sorted matching, or what POT's solvers find.

    `solver: pot` searches for a better matching of the nodes in every step, on the CPU, example by example; see `pot_solver`.
    """

    kind: Literal["gromov_wasserstein"] = "gromov_wasserstein"
    bound: Literal["upper", "lower"] = "upper"
    """The side that is trained: the cost of the sorted matching, or the difference of the sorted row means."""
    solver: Literal["sorted", "pot"] = "sorted"
    """`sorted`: the closed form that `bound` names. `pot`: POT's solvers, for small graphs; pip install 'logit-fusion[gw]'."""
    epsilon: float | None = Field(default=None, ge=0.02)
    """With `solver: pot`, weight of the plan's entropy as a share of the square of the source's largest edge: POT's entropic
    solver, which hardly gets done below 0.02. If not said, its exact one."""
    starts: int = Field(default=8, ge=1)
    """With `solver: pot`, starts, of which the best result counts: the sorted matching, then random plans."""
    seed: int = Field(default=0, ge=0)
    """Of the random starts."""

    @model_validator(mode="after")
    def _refuse_without_effect(self) -> GromovWasserstein:
        changed = [name for name in (*OF_POT, "bound") if getattr(self, name) != type(self).model_fields[name].default]
        if self.solver == "sorted" and (unread := [name for name in changed if name in OF_POT]):
            raise ValueError(
                f"{' and '.join(unread)}: read by solver: pot alone, and solver is sorted. Take out, or set solver: pot"
            )
        if self.solver == "pot" and "bound" in changed:
            raise ValueError("bound: lower is a closed form, and solver: pot searches. Take one of them out")
        if self.solver == "pot" and self.starts == 1 and self.seed:
            raise ValueError("seed draws the random starts, and starts: 1 has none. Take seed out, or give more starts")
        return self

    @model_validator(mode="after")
    def _refuse_large_graphs(self) -> GromovWasserstein:
        name = "top_k" if self.nodes == "rank" else "top_nodes"
        if self.solver == "pot" and (n := getattr(self, name)) > pot_solver.MAX_NODES:
            raise ValueError(
                f"{name}: {n} with solver: pot, which takes n^3 operations for each step of each example; up to "
                f"{pot_solver.MAX_NODES} nodes are allowed. Lower {name}, or use solver: sorted"
            )
        return self

    @property
    @override
    def requirements(self) -> Requirements:
        extras = frozenset({"gw"} if self.solver == "pot" else ())
        return dataclasses.replace(super().requirements, extras=extras)

    def __call__(self, pivot: LogitRows, source: LogitRows, examples: int) -> Float[Tensor, " E"]:
        """One value for each example, never negative. Raises ValueError where the input needs moments that are NaN."""
        if self.solver == "pot":
            return self._solved(pivot, source, examples)
        lower, upper = self._bounds(pivot, source, examples)
        return upper if self.bound == "upper" else lower

    def _solved(self, pivot: LogitRows, source: LogitRows, examples: int) -> Float[Tensor, " E"]:
        settings = {name: getattr(self, name) for name in OF_POT}
        values = [
            pot_solver.distance(z, y, **settings) if len(z) and len(y) else z.new_zeros((), dtype=torch.float64)
            for z, y in self.paired_graphs(pivot, source, examples)
        ]
        return torch.stack(values).to(pivot.logprobs.dtype)

    @torch.no_grad()
    def bracket(self, pivot: LogitRows, source: LogitRows, examples: int) -> Float[Tensor, "2 E"]:
        """Lower and upper bound of GW_2 (not squared) of each example, each graph divided by its number of rows."""
        return self._bounds(pivot, source, examples).sqrt()

    def _bounds(self, pivot: LogitRows, source: LogitRows, examples: int) -> Float[Tensor, "2 E"]:
        pairs = [
            bounds(z, y) if len(z) and len(y) else z.new_zeros(2)
            for z, y in self.paired_graphs(pivot, source, examples)
        ]
        return torch.stack(pairs, dim=1)

    def paired_graphs(
        self, pivot: LogitRows, source: LogitRows, examples: int
    ) -> list[tuple[Float[Tensor, "T n"], Float[Tensor, "R n"]]]:
        """For each example Z of the pivot and Y of the source, whose graphs are Z'Z / T and Y'Y / R; see `graphs`."""
        both = self.graphs(pivot, examples, "pivot"), self.graphs(as_target(source, pivot), examples, "source")
        return list(zip(*both, strict=True))

    def graphs(self, rows: LogitRows, examples: int, side: str) -> list[Float[Tensor, "N n"]]:
        """Rows of each example over its nodes, the nodes sorted by their row sums."""
        top = full_top(rows, self.top_k, side)
        z, inside = self._values(top, side), [top.example == e for e in range(examples)]
        if self.nodes == "rank":
            return [sorted_nodes(z[here]) for here in inside]
        return [sorted_nodes(by_token(z[here], top.ids[here], self.top_nodes)) for here in inside]


def bounds(z: Float[Tensor, "T n"], y: Float[Tensor, "R n"]) -> Float[Tensor, 2]:
    """Squared lower and upper bound of GW_2 between Z'Z / T and Y'Y / R, the columns of each sorted by row sums."""
    means = (row_sums(z) / len(z) - row_sums(y) / len(y)) / z.shape[1]
    return torch.stack([means.square().mean(), matching_cost(z, y)])


def matching_cost(z: Float[Tensor, "T n"], y: Float[Tensor, "R n"]) -> Float[Tensor, ""]:
    """Mean over pairs of nodes of (C - D)^2 with C = Z'Z / T and D = Y'Y / R, by whichever matrices are smaller."""
    n, rows = z.shape[1], max(len(z), len(y))
    if n <= rows:
        return (z.T @ z / len(z) - y.T @ y / len(y)).square().mean()
    squares = [(a @ b.T).square().sum() / (len(a) * len(b)) for a, b in ((z, z), (y, y), (z, y))]
    return (squares[0] + squares[1] - 2 * squares[2]).clamp(min=0) / n**2


def row_sums(z: Float[Tensor, "T n"]) -> Float[Tensor, " n"]:
    """Row sums of Z'Z."""
    return z.T @ z.sum(-1)


def sorted_nodes(z: Float[Tensor, "T n"]) -> Float[Tensor, "T n"]:
    """The columns in descending order of their row sums."""
    return z[:, row_sums(z).argsort(descending=True, stable=True)]


def by_token(z: Float[Tensor, "T K"], ids: Tensor, nodes: int) -> Float[Tensor, "T nodes"]:
    """The `nodes` tokens with the largest row sums as columns; columns of 0 where fewer tokens occur."""
    seen, column = ids.unique(return_inverse=True)
    dense = z.new_zeros(len(z), len(seen) + nodes).scatter_add(1, column, z)
    return dense[:, row_sums(dense).topk(nodes).indices]
