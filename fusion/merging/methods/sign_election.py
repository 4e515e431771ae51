"""The mean of the changes that agree in sign, entry by entry, as TIES and SCE take it."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from fusion.merging.methods.base import weighted_sum
from fusion.merging.methods.tiles import Flat


def agreeing(
    changes: Sequence[Flat], weights: Sequence[float], votes: Sequence[float], *, normalise: bool = True
) -> Flat:
    """Σ w_s δ_s over those changes that have the sign of Σ votes · changes, by default over Σ w_s of the same.

    0 where none has, and where the votes, summed in float64, cancel exactly. No weight is negative. The changes are
    overwritten. Booleans are slow in torch: a change that agrees is one whose product with the elected sign is positive.
    """
    elected = weighted_sum(votes, (change.double() for change in changes)).sign_().to(changes[0].dtype)
    above, below = torch.zeros_like(elected), torch.zeros_like(elected)
    for change, weight in zip(changes, weights, strict=True):
        above.add_(change.mul_(elected).relu_(), alpha=weight)  # |δ| where it agrees
        if normalise:
            below.add_(change.sign_(), alpha=weight)
    merged = above.mul_(elected)
    return merged.div_(below.clamp_(min=torch.finfo(below.dtype).tiny)) if normalise else merged
