"""How a source rescales each example: an analysis of what it adds to plain fine-tuning, and no loss.

In a loss (1-s) CE + s KD, both at temperature 1, the gradient at the true token's logit is

    omega = 1 - s (1 - P) / (1 - p)

times that of cross-entropy alone, P and p the probabilities of the true token under source and pivot; and so is the sum over
all other tokens. Near 1 everywhere, a source says no more about how hard an example is than the text does. Below 0 it pulls
the true token down. Since omega also falls without bound where the pivot is surer than the source, it is read at like p: many
negative values where p is low point to a source that is wrong, or to rows that do not belong together.

Source: the example re-weighting of Tang et al. 2020, arXiv:2002.03532; its other two parts of distillation are compared by the
transform `gold_only` and a term's `top_k`. The identity is derived in the tests.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor

EDGES = (0.0, 0.1, 0.5, 0.9, 1.0)
"""Of the bins of p, the pivot's probability of the true token."""


@dataclass(frozen=True)
class Rescaling:
    """Rows whose true token the pivot gives a like probability. Of omega: deciles and the share below 0."""

    domain: str
    low: float
    high: float
    """Bounds of the pivot's probability."""
    rows: int
    tenth: float
    median: float
    ninetieth: float
    negative: float


def omega(source: Float[Tensor, " M"], pivot: Float[Tensor, " M"], share: float) -> Float[Tensor, " M"]:
    """1 - share (1 - P) / (1 - p) from log-probabilities of the true token, in float64; `share` is that of distillation."""
    left = -torch.expm1(pivot.double())
    return 1 - share * -torch.expm1(source.double()) / left.clamp(min=torch.finfo(torch.float64).tiny)


def rescaling(
    source: Float[Tensor, " M"], pivot: Float[Tensor, " M"], domains: Sequence[str], share: float = 0.5
) -> list[Rescaling]:
    """One entry for each domain and bin that has rows; the inputs are log-probabilities of the true token, NaN for unknown."""
    return list(_entries(omega(source, pivot, share), source.isfinite(), pivot.exp(), domains))


def _entries(
    values: Float[Tensor, " M"], known: Tensor, p: Float[Tensor, " M"], domains: Sequence[str]
) -> Iterator[Rescaling]:
    bin_of = torch.bucketize(p, torch.tensor(EDGES[1:-1], dtype=p.dtype))
    for domain in dict.fromkeys(domains):
        inside = torch.tensor([each == domain for each in domains]) & known
        for number, (low, high) in enumerate(pairwise(EDGES)):
            chosen = values[inside & (bin_of == number)]
            if len(chosen):
                tenth, median, ninetieth = (chosen.quantile(each).item() for each in (0.1, 0.5, 0.9))
                negative = (chosen < 0).double().mean().item()
                yield Rescaling(domain, low, high, len(chosen), tenth, median, ninetieth, negative)
