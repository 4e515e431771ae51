"""Graph-on-logits distillation: which entries of the rows are large together, over a whole example.

Each example and model makes a graph: `C`, the sum over its rows u of the outer product of Z[u] with itself, where Z[u]
are the row's largest entries. Graphs are compared by their nodes' sorted row sums, f = C 1. `C` itself is never built,
for f = Z^T (Z 1) takes two passes over Z. No alignment of rows is needed: each graph lives within one model.

The sum of sorted differences stands in for the Gromov-Wasserstein distance of the two graphs. With W the same for row
*means* and weights 1/n (so n^2 W is the value below, before its own normalisation),

    W  <=  GW_1(C, D)  <=  W + spread(C) + spread(D),      spread(C) = mean over i, j of |C_ij - mean over j of C_ij|,

so the value is 0 for some graphs that differ: those with equal sorted row sums. `gromov.py` has the other side.

Source: InfiGFusion, arXiv:2505.13893. What enters Z, what the nodes are and how C is normalised are guesses: the
abstract and figures leave them open. The lower bound is the first of Mémoli 2011, doi:10.1007/s10208-011-9093-5.
"""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from pydantic import Field, field_validator
from torch import Tensor
from typing_extensions import override

from fusion.core.rows import LogitRows
from fusion.objectives.base import Requirements
from fusion.objectives.base_classes import ExampleObjective
from fusion.objectives.checks import as_target, full_top, standardise_by_row

COLLAPSING = {
    "z_scored": "rows standardised over their own top_k sum to zero, so C 1 = 0 and the term is identically zero",
    "renormalised": "probabilities renormalised over the top_k sum to one, so the graph collapses to the mean row",
}


class GraphObjective(ExampleObjective):
    """Compares two graphs on logits."""

    top_k: int = Field(default=10, ge=1)
    """Entries of each row that enter the graph. A guess."""
    input: Literal["standardised", "raw", "probabilities"] = "standardised"
    """What the entries are: `standardised` by the row's mean and std over the whole vocabulary (a guess), `raw`
    log-probabilities, or `probabilities`, as they are and not renormalised."""
    nodes: Literal["rank", "token"] = "rank"
    """What a node is: a rank 1..top_k (a guess), or a token of the model's own vocabulary."""
    top_nodes: int = Field(default=100, ge=1)
    """With `nodes: token`, how many of the largest features are compared. A guess."""

    @field_validator("input", mode="before")
    @classmethod
    def _refuse_collapse(cls, value: Any) -> Any:
        if isinstance(value, str) and value in COLLAPSING:
            raise ValueError(
                f"input: {value} would teach nothing: {COLLAPSING[value]}. Use input: standardised, which takes mean "
                "and std over the whole vocabulary, or input: probabilities, which keeps them as they are"
            )
        return value

    @property
    @override
    def required_top_k(self) -> int | None:
        return self.top_k

    @property
    @override
    def required_source_fields(self) -> frozenset[str]:
        return frozenset({"mean", "std"} if self.input == "standardised" else ())

    @property
    @override
    def requirements(self) -> Requirements:
        return dataclasses.replace(super().requirements, logit_scale=self.input != "standardised")

    def _values(self, rows: LogitRows, side: str) -> Float[Tensor, "N K"]:
        if self.input == "raw":
            return rows.logprobs
        if self.input == "probabilities":
            return rows.logprobs.exp()
        return standardise_by_row(rows.logprobs, rows, side, type(self).model_fields["kind"].default)


class GLD(GraphObjective):
    """L1 distance of the sorted node features of two graphs on logits; see `node_features`."""

    kind: Literal["gld"] = "gld"

    def __call__(self, pivot: LogitRows, source: LogitRows, examples: int) -> Float[Tensor, " E"]:
        """One value for each example, never negative. Raises ValueError where the input needs moments that are NaN."""
        pivot_features = self._features(pivot, examples, "pivot")
        source_features = self._features(as_target(source, pivot), examples, "source")
        both = has_rows(pivot, examples) & has_rows(source, examples)
        return (pivot_features - source_features).abs().sum(-1) * both

    def _features(self, rows: LogitRows, examples: int, side: str) -> Float[Tensor, "E n"]:
        top = full_top(rows, self.top_k, side)
        z = self._values(top, side)
        if self.nodes == "rank":
            return node_features(z, top.example, examples)
        return token_features(z, top.ids, top.example, examples, self.top_nodes)


def node_features(z: Float[Tensor, "N K"], example: Int[Tensor, " N"], examples: int) -> Float[Tensor, "E K"]:
    """Row sums of each example's graph over ranks, divided by (its rows * K), descending; 0 where it has no rows."""
    return per_row_and_entry(joint(z), example, examples).sort(-1, descending=True).values


def token_features(
    z: Float[Tensor, "N K"], ids: Int[Tensor, "N K"], example: Int[Tensor, " N"], examples: int, nodes: int
) -> Float[Tensor, "E nodes"]:
    """Row sums of each example's graph over tokens, divided by (its rows * K): the `nodes` largest, descending.

    Tokens that an example never has among its entries are nodes with feature 0, so a feature below 0 is never among the
    largest. Memory grows with the tokens that occur, not with the vocabulary.
    """
    seen, column = ids.unique(return_inverse=True)
    spread = z.new_zeros(examples, len(seen) + nodes)  # the added zeros are tokens that do not occur
    total = spread.index_put((example[:, None].expand_as(ids), column), joint(z), accumulate=True)
    return (total / _terms(z, example, examples)).topk(nodes, dim=-1).values


def joint(z: Float[Tensor, "N K"]) -> Float[Tensor, "N K"]:
    """What each entry adds to its node: itself times the sum of its row."""
    return z * z.sum(-1, keepdim=True)


def per_row_and_entry(values: Float[Tensor, "N K"], example: Int[Tensor, " N"], examples: int) -> Float[Tensor, "E K"]:
    """Sums over the rows of each example, divided by (its rows * K), so that neither length nor K sets the scale."""
    total = values.new_zeros(examples, values.shape[1]).index_add(0, example, values)
    return total / _terms(values, example, examples)


def _terms(values: Float[Tensor, "N K"], example: Int[Tensor, " N"], examples: int) -> Float[Tensor, "E 1"]:
    rows = torch.bincount(example, minlength=examples).clamp(min=1)
    return (rows * values.shape[1])[:, None].to(values.dtype)


def has_rows(rows: LogitRows, examples: int) -> Tensor:
    """Whether each example has rows: bool [E]."""
    return torch.bincount(rows.example, minlength=examples) > 0
