"""Hidden states of rows: in a common type, by direction, side by side for each example, and what is drawn for them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import torch
from jaxtyping import Bool, Float, Int
from pydantic import Field
from torch import Tensor
from typing_extensions import override

from fusion.core.rows import EntryRows, LogitRows
from fusion.objectives.base import Objective, Requirements, Term
from fusion.objectives.targets import ObjectiveInputs

LEAST = 1e-6  # a state shorter than this has no direction
BLOCK = 64  # rows that random numbers are drawn for at once


class HiddenObjective(Objective):
    """Looks at the last hidden states of both models, the ones that their heads read.

    So it reads no entries, and no factor on the logits changes anything. Sources must be extracted with
    `extract.hidden_states: true`. To be combined with a base class that says what the formula is called with:
    `class Mine(HiddenObjective, PairObjective)`.
    """

    @property
    @override
    def required_top_k(self) -> int | None:
        return 0

    @property
    @override
    def required_source_fields(self) -> frozenset[str]:
        return frozenset({"hidden"})

    @property
    @override
    def required_pivot_fields(self) -> frozenset[str]:
        return frozenset({"hidden"})

    @property
    @override
    def requirements(self) -> Requirements:
        return dataclasses.replace(super().requirements, exact_entries=False, logit_scale=False)


class RandomObjective(HiddenObjective):
    """Draws random numbers, alike in all processes and micro-batches of a step."""

    seed: int = Field(default=0, ge=0)
    """Seed of what is drawn."""
    fresh: bool = True
    """Draw anew at each step; else once for all."""

    @override
    def terms(self, inputs: ObjectiveInputs) -> Iterator[Term]:
        at_step = self.model_copy(update={"seed": self.seed + inputs.step}) if self.fresh else self
        yield from super(RandomObjective, at_step).terms(inputs)


def states(pivot: EntryRows, source: EntryRows) -> tuple[Float[Tensor, "N D"], Float[Tensor, "R D2"]]:
    """Hidden states of both in float32, or float64 where the pivot's are; the source's as constants.

    Raises ValueError where a side has none.
    """
    for rows, side in ((pivot, "pivot"), (source, "source")):
        if rows.hidden is None:
            raise ValueError(
                f"The {side}'s rows hold no hidden states; extract the sources with extract.hidden_states: true."
            )
    assert pivot.hidden is not None
    assert source.hidden is not None
    wide = torch.float64 if pivot.hidden.dtype == torch.float64 else torch.float32
    return pivot.hidden.to(wide), source.hidden.detach().to(wide)


def directions(hidden: Float[Tensor, "*N D"]) -> Float[Tensor, "*N D"]:
    """Each state divided by its length; 0, without a gradient, where it has none."""
    length = torch.linalg.vector_norm(hidden, dim=-1, keepdim=True)
    return torch.where(length > LEAST, hidden / length.masked_fill(length <= LEAST, 1), 0)


def row_numbers(rows: LogitRows) -> Int[Tensor, " N"]:
    """Place of each row among those of its example, from 0, in the order of the text."""
    order = rows.prefix.argsort(stable=True)
    order = order[rows.example[order].argsort(stable=True)]
    example = rows.example[order].contiguous()
    place = torch.arange(len(order), device=order.device) - torch.searchsorted(example, example)
    return torch.empty_like(place).index_copy(0, order, place)


def side_by_side(values: Float[Tensor, "N D"], rows: LogitRows, examples: int) -> Float[Tensor, "E T D"]:
    """The values of each example's rows in the order of the text, 0 after the last; T is the most rows of an example."""
    place = row_numbers(rows)
    longest = int(place.max()) + 1 if len(place) else 1
    return values.new_zeros(examples, longest, values.shape[1]).index_put((rows.example, place), values)


def present(rows: LogitRows, examples: int) -> Bool[Tensor, "E T"]:
    """Where `side_by_side` has rows."""
    return side_by_side(rows.gold.new_ones(len(rows), 1), rows, examples)[:, :, 0] > 0


def drawn(count: int, width: int, seed: int, like: Tensor, normal: bool = False) -> Float[Tensor, "count width"]:
    """Numbers drawn for the first `count` places, uniform or standard normal; the same whatever the count and device."""
    generator, draw = torch.Generator().manual_seed(seed), torch.randn if normal else torch.rand
    blocks = [draw(BLOCK, width, generator=generator, dtype=torch.float64) for _ in range(-(-count // BLOCK))]
    return torch.cat([torch.empty(0, width, dtype=torch.float64), *blocks])[:count].to(like)
