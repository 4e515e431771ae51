"""What no probabilities can be: above 1, together above 1, or so small that the other tokens cannot have the rest."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor


class Entries(NamedTuple):
    """Log-probabilities of rows, -inf where an entry is empty, and the largest error of each, in float64."""

    values: Float[Tensor, "N K"]
    errors: Float[Tensor, "N K"]

    @property
    def listed(self) -> Bool[Tensor, "N K"]:
        """Whether an entry is not empty."""
        return ~self.values.isneginf()

    @property
    def bounded(self) -> Entries:
        """Only the entries of which it is known how far off they may be."""
        bounded = self.errors.isfinite()
        return Entries(self.values.masked_fill(~bounded, -torch.inf), self.errors.masked_fill(~bounded, 0.0))

    @property
    def is_least(self) -> Bool[Tensor, "N K"]:
        """Whether an entry is the least of its row, and no other is as low."""
        least = self.listed & (self.values == self.values.masked_fill(~self.listed, torch.inf).amin(-1, keepdim=True))
        return least & (least.sum(-1, keepdim=True) == 1)

    def lowest_mass(self) -> Float[Tensor, " N"]:
        """Return the least probability that the entries of a row can have together, within the errors."""
        return (self.values - self.errors).exp().sum(-1)

    def highest_mass(self) -> Float[Tensor, " N"]:
        """Return the most probability that the entries of a row can have together, within the errors."""
        return (self.values + self.errors).exp().sum(-1)


def head_limit(vocabulary: int) -> int:
    """Return the size that a head of this tokenizer has at most: it may be padded, and known ones are by less than this."""
    return vocabulary + max(vocabulary // 4, 128)


def above_one(entries: Entries) -> Bool[Tensor, " N"]:
    """Whether a row has more mass than 1 by more than the errors, which a single value above 0 has too."""
    return entries.lowest_mass() > 1


def too_little_mass(entries: Entries, head_size: int, own: Bool[Tensor, "N K"] | None = None) -> Bool[Tensor, " N"]:
    """Whether the tokens outside a row's entries, none likelier than the least of these, cannot have the mass that is left.

    Of the K likeliest of V tokens 1 - mass <= (V - K) p_K, whatever the model; a uniform one is just at it. `own` marks an
    entry that may be there for another reason than its probability; the least is taken among the others.
    """
    ranked = entries.listed if own is None else entries.listed & ~own
    least = torch.where(ranked, entries.values + entries.errors, torch.inf).amin(-1)
    others = (head_size - ranked.sum(-1)).clamp(min=0)
    left = 1 - Entries(entries.values.masked_fill(~ranked, -torch.inf), entries.errors).highest_mass()
    return ranked.any(-1) & (left > others * least.exp())
