"""Answers in pairs, with made-up numbers of what models said of them before."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from fusion.core.example import ExampleInfo
from fusion.core.rows import LogitRows
from fusion.objectives import BatchTargets, ObjectiveInputs, PreferenceTargets
from tests.helpers.rows import rows_of

V = 23
PAIRS = [(0, 1), (2, 3), (0, 4)]
"""Right and wrong answer of each pair among five answers."""


def answers(dtype: torch.dtype = torch.float64, seed: int = 0, lengths: Sequence[int] = (3, 5, 2, 7, 4)) -> LogitRows:
    """The pivot's rows of so many answers, of these lengths in tokens."""
    generator = torch.Generator().manual_seed(seed)
    count = sum(lengths)
    logits = torch.randn(count, V, generator=generator, dtype=torch.float64) * 2
    token = torch.randint(V, (count,), generator=generator)
    example = torch.arange(len(lengths)).repeat_interleave(torch.tensor(lengths))
    return rows_of(logits.to(dtype).requires_grad_(), 0, token, example)


def preferences(sources: Mapping[str, Tensor] | None = None, **changes) -> PreferenceTargets:
    """What is known of five answers; of each source its log-probabilities."""
    reference = torch.tensor([-9.5, -14.0, -7.0, -20.5, -13.0], dtype=torch.float64)
    known = {
        "chosen": torch.tensor([pair[0] for pair in PAIRS]),
        "rejected": torch.tensor([pair[1] for pair in PAIRS]),
        "reference_logprobs": reference,
        "num_bytes": torch.tensor([11, 17, 5, 30, 12]),
        "source_chosen": torch.tensor([2, 0, 2]),
        "source_logprobs": sources if sources is not None else two_sources(),
        "source_tokens": {name: torch.tensor([2, 4, 2, 9, 3]) for name in (sources or two_sources())},
    }
    return PreferenceTargets(**(known | changes))


def two_sources() -> dict[str, Tensor]:
    """One knows the first answers better than the pivot did, the other the last ones."""
    return {
        "coder": torch.tensor([-6.0, -18.0, -9.0, -22.0, -10.0], dtype=torch.float64),
        "writer": torch.tensor([-11.0, -13.0, -4.0, -33.0, -15.5], dtype=torch.float64),
    }


def preference_inputs(pivot: LogitRows, known: PreferenceTargets | None, step: int = 0) -> ObjectiveInputs:
    """What an objective sees of these answers."""
    infos = [ExampleInfo("d", f"e{number}") for number in range(int(pivot.example.max()) + 1)]
    targets = BatchTargets(torch.arange(len(pivot)), pivot, {}, infos, preferences=known)
    return ObjectiveInputs(pivot, {}, targets, torch.ones(len(pivot)), step=step)
