"""Matched rows with hidden states, for tests of objectives that look at nothing else."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from fusion.core.rows import LogitRows
from tests.helpers.rows import random_rows


def rows_with(hidden: Tensor, example: Tensor | None = None) -> LogitRows:
    """Rows in the order of the text, all of one example if not said, with these hidden states."""
    rows = random_rows(len(hidden), 0, 7, hidden.dtype)
    example = torch.zeros(len(hidden), dtype=torch.long) if example is None else example
    return dataclasses.replace(rows, hidden=hidden, example=example)


def random_states(*shape: int, seed: int = 0) -> Tensor:
    """Standard normal, in float64."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def rotation(width: int, seed: int = 0) -> Tensor:
    """A random orthogonal matrix."""
    return torch.linalg.qr(random_states(width, width, seed=seed)).Q
