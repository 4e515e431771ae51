"""Which tokens a model finds like a token: its mean prediction where that token really follows. An analysis, and no loss.

A source that was trained with smoothed labels finds all other tokens alike (the entropy of the rest is the same for every
token, and high), a saturated one finds none (both entropies near 0). What it knows of likeness beyond the pivot, a fused model
should have taken over: its divergence from the source is then less than the pivot's, and its order of the others nearer.

Source: the class similarity of Han et al. 2023 (impact of distillation on interpretability, ICML), of image classes there.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor


@dataclass(frozen=True)
class ClassPrediction:
    """Mean prediction of one model where a token follows; entropies and divergences in nats."""

    entropy: float
    """Entropy of its mean distribution over the tokens that the source names, and `other`."""
    rest_entropy: float
    """Entropy of the same without the token itself, renormalised."""
    divergence: float
    """KL(source ‖ model) of the mean distributions."""
    rank_correlation: float
    """Spearman's correlation with the source over the other tokens; NaN for fewer than two."""


@dataclass(frozen=True)
class TokenClass:
    """A token, how often it follows, and the prediction of each model there. The first model is the source."""

    token: int
    count: int
    predictions: dict[str, ClassPrediction]


def token_classes(
    label: Int[Tensor, " N"], ids: Int[Tensor, "N K"], models: Mapping[str, Float[Tensor, "N K"]], min_rows: int
) -> list[TokenClass]:
    """One entry for each label with at least so many rows, the most frequent first.

    `models`: log-probabilities of the same ids; the first is the source, and its -inf (or an id of -1) is an empty entry for
    all of them.
    """
    source = next(iter(models.values()))
    empty = (ids < 0) | source.isneginf()
    found = []
    labels, counts = label.unique(return_counts=True)
    for n in counts.argsort(descending=True, stable=True).tolist():
        if counts[n] >= min_rows:
            inside = label == labels[n]
            rows = {name: values[inside].masked_fill(empty[inside], -torch.inf) for name, values in models.items()}
            found.append(_class(int(labels[n]), ids[inside], rows))
    return found


def _class(token: int, ids: Int[Tensor, "N K"], models: Mapping[str, Float[Tensor, "N K"]]) -> TokenClass:
    names, place = ids.flatten().unique(return_inverse=True)
    means = {name: _mean(values, place, len(names)) for name, values in models.items()}
    named = next(iter(means.values()))[:-1] > 0
    others = torch.cat([named & (names != token), torch.tensor([True])])  # `other` is one too
    source = next(iter(means.values()))
    predictions = {
        name: ClassPrediction(
            entropy(p),
            entropy(p[others] / p[others].sum()),
            divergence(source, p),
            rank_correlation(source[:-1], p[:-1], others[:-1]),
        )
        for name, p in means.items()
    }
    return TokenClass(token, len(ids), predictions)


def _mean(values: Float[Tensor, "N K"], place: Int[Tensor, " _"], count: int) -> Float[Tensor, " _"]:
    """The mean probability of each id, and of all else at the end."""
    sums = torch.zeros(count, dtype=torch.float64).index_add(0, place, values.double().exp().flatten()) / len(values)
    return torch.cat([sums, (1 - sums.sum()).clamp(min=0)[None]])


def entropy(p: Float[Tensor, " K"]) -> float:
    """Entropy of a distribution, in nats; 0 where there is nothing."""
    return -torch.special.xlogy(p, p).sum().item() if bool(p.isfinite().all()) else 0.0


def divergence(p: Float[Tensor, " K"], q: Float[Tensor, " K"]) -> float:
    """KL(p ‖ q) in nats; infinite where q lacks what p has."""
    return (torch.special.xlogy(p, p) - torch.special.xlogy(p, q)).sum().item()


def rank_correlation(p: Float[Tensor, " K"], q: Float[Tensor, " K"], among: Tensor) -> float:
    """Spearman's correlation over the chosen entries: that of the ranks, equal values sharing theirs; NaN where none is."""
    from scipy.stats import rankdata  # slow to import

    ranks = [torch.from_numpy(rankdata(each[among].numpy())) for each in (p, q)]
    if len(ranks[0]) < 2 or any(bool((each == each[0]).all()) for each in ranks):
        return math.nan
    return torch.corrcoef(torch.stack(ranks))[0, 1].item()
