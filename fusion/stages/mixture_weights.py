"""How much of a text each source explains that the pivot does not: shares of a mixture, found on validation examples.

The text is cut at the boundaries that all models share. With l[s, n] the log-probability of span n under model s, the
shares w are those that make the mean over n of

    log sum_s w_s exp(l[s, n])                                       w >= 0, sum of w = 1

greatest. It is concave, so there is one greatest value, and EM climbs to it: w_s becomes the mean, over the spans, of the
posterior of s (Dempster et al. 1977). With g_s the mean of exp(l[s, n]) / sum of w exp(l), no shares are better than w
by more than max g - 1: that says when to stop.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from fusion.alignment import Alignment, align
from fusion.core.rows import LogitRows, Pairs
from fusion.stages.helping import Batch
from fusion.weighting import ALL_DOMAINS, span_likelihoods

GAP, ROUNDS = 1e-6, 20_000
"""Nats that may be missing from the greatest mean, and steps of EM at the most."""


def find_shares(batches: Iterable[Batch], alignment: Alignment, by_domain: bool) -> dict[str, list[float]]:
    """Each source's share of the mixture with the pivot, in the order of the sources, for each domain or for `ALL_DOMAINS`.

    What is missing from 1 is the pivot's share. Rounded to four digits, so that they name a training.
    """
    found: dict[str, list[Float[Tensor, "S n"]]] = {}
    for batch in batches:
        sources = list(batch.sources.values())
        pairs = [align(alignment, batch.pivot, rows, batch.texts) for rows in sources]
        score, example = spans_of(batch.pivot, sources, pairs)
        for number, domain in enumerate(batch.domains):
            found.setdefault(domain if by_domain else ALL_DOMAINS, []).append(score[:, example == number])
    return {name: [round(w, 4) for w in mixture(torch.cat(parts, 1))[1:].tolist()] for name, parts in found.items()}


def spans_of(
    pivot: LogitRows, sources: Sequence[LogitRows], pairs: Sequence[Pairs]
) -> tuple[Float[Tensor, "S n"], Int[Tensor, " n"]]:
    """Log-likelihood of each span under the pivot (first) and the sources, -inf for one that takes no part; its example."""
    own = torch.arange(len(pivot))
    score, span = span_likelihoods(pivot, [pivot, *sources], [Pairs(own, own), *pairs], "span")
    return score, pivot.example.new_zeros(score.shape[1]).scatter(0, span, pivot.example)


def mixture(score: Float[Tensor, "S n"]) -> Float[Tensor, " S"]:
    """The shares that make the mean log-likelihood of the mixture greatest, within `GAP`, from log-likelihoods in nats."""
    # less the largest, for exp of a long span's log-likelihood is 0 even in float64; a factor on a span changes nothing
    likely = (score.double() - score.double().amax(0)).exp()
    w = torch.full((len(score),), 1 / len(score), dtype=torch.float64)
    # EM for the shares alone: each round raises the mean log-likelihood, which is concave, and keeps the sum of the shares at 1
    for _ in range(ROUNDS):
        better = (likely / (w @ likely)).mean(1)
        if better.max() - 1 < GAP:
            break
        w = w * better
    return w
