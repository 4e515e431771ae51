"""The disjoint merge of TIES: the deltas that agree with the elected sign, entry by entry; SCE ends with it too."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from fusion.merging.methods.base import weighted_sum
from fusion.merging.methods.tiles import Flat


def disjoint_merge(
    deltas: Sequence[Flat], weights: Sequence[float], votes: Sequence[float], *, normalize: bool = True
) -> Flat:
    """Σ w_s δ_s over the deltas that have the sign of Σ votes · δ, by default divided by Σ w_s of the same.

    0 where none has that sign, and where the votes, summed in float64, cancel exactly. No weight is negative. The deltas
    are overwritten.
    """
    elected = weighted_sum(votes, (delta.double() for delta in deltas)).sign_().to(deltas[0].dtype)
    # no masks, for booleans are slow in torch: a delta that agrees is one whose product with the elected sign is positive
    numerator, denominator = torch.zeros_like(elected), torch.zeros_like(elected)
    for delta, weight in zip(deltas, weights, strict=True):
        numerator.add_(delta.mul_(elected).relu_(), alpha=weight)  # |δ| where it agrees
        if normalize:
            denominator.add_(delta.sign_(), alpha=weight)
    merged = numerator.mul_(elected)
    # where none agrees the numerator is 0: any positive denominator keeps it 0 instead of 0/0
    return merged.div_(denominator.clamp_(min=torch.finfo(denominator.dtype).tiny)) if normalize else merged
