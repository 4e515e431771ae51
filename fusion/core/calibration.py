"""How well a model's confidence fits: what the expected calibration error is made from, of rows by example or by domain."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from fusion.core.rows import LogitRows

BINS = 10
"""Of confidence, in the calibration error."""


def calibration_sums(rows: LogitRows, groups: int) -> Float[Tensor, "G P"]:
    """By group (`rows.example`), for each tenth of confidence the sum of confidence less success, then the number of rows.

    Confidence is the probability of the likeliest token, which is the first entry of a row; success is that it is the one that
    follows. The error of a group, or of several whose sums are added, is the sum of the first `BINS` without their signs over
    the last (Naeini et al. 2015, ECE). Rows are on the CPU, sums in float64.
    """
    confidence = rows.logprobs[:, 0].double().exp()
    excess = confidence - is_likeliest(rows).double()
    bins = (confidence * BINS).long().clamp(0, BINS - 1)  # NaN, of a model that broke down, is in one of them too
    sums = torch.zeros(groups, BINS + 1, dtype=torch.float64)
    sums = sums.index_put((rows.example, bins), excess, accumulate=True)
    sums[:, -1] = torch.bincount(rows.example, minlength=groups)
    return sums


def is_likeliest(rows: LogitRows) -> Tensor:
    """Whether no token is likelier at a row than the one that follows, [N]."""
    return rows.gold >= rows.logprobs[:, 0]
