"""What is measured on validation examples, as sums that add up over batches and processes."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from fusion.core.calibration import calibration_sums, is_likeliest
from fusion.core.rows import LogitRows

EVAL_PREFIX = "eval_"
"""What names of numbers on validation examples begin with in logs, as transformers has it."""


def sums_of(
    rows: LogitRows, entropy: Float[Tensor, " N"], *, domain: Int[Tensor, " E"], size: Int[Tensor, " E"], domains: int
) -> Float[Tensor, "G P"]:
    """Sums by domain, in float64: bytes, nats of the text, right tokens, entropy, then those of `calibration_sums`.

    `rows` hold the likeliest token; `domain` is the number of the domain of each example, `size` the bytes scored of it.
    """
    group = domain[rows.example]
    by_row = torch.stack([-rows.gold.double(), is_likeliest(rows).double(), entropy.double()], dim=1)
    by_domain = torch.zeros(domains, 3, dtype=torch.float64).index_add(0, group, by_row)
    read = torch.zeros(domains, 1, dtype=torch.float64).index_add(0, domain, size.double()[:, None])
    return torch.cat([read, by_domain, calibration_sums(dataclasses.replace(rows, example=group), domains)], dim=1)


def measures(sums: Float[Tensor, "G P"], domains: Sequence[str]) -> dict[str, float]:
    """Each number by its name in logs: of a domain as `eval_bits_per_byte/math`, and the mean over domains.

    `bits_per_byte`; `mean_token_accuracy`, the share of tokens that are the likeliest; `calibration_error` (expected, in tenths
    of confidence); `entropy` in nats, a mean over tokens. A domain of which nothing was scored has none.
    """
    found: dict[str, float] = {}
    scored = [number for number, of_domain in enumerate(sums.tolist()) if of_domain[0] and of_domain[-1]]
    size, nats, right, entropy, tokens = (sums[scored, column] for column in (0, 1, 2, 3, -1))
    by_name = {
        "bits_per_byte": nats / math.log(2) / size,
        "mean_token_accuracy": right / tokens,
        "calibration_error": sums[scored, 4:-1].abs().sum(-1) / tokens,
        "entropy": entropy / tokens,
    }
    for name, values in by_name.items():
        if scored:
            found[f"{EVAL_PREFIX}{name}"] = values.mean().item()
        for number, value in zip(scored, values.tolist(), strict=True):
            found[f"{EVAL_PREFIX}{name}/{domains[number]}"] = value
    return found
