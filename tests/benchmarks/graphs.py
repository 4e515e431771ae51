"""GLD's node features against the explicit graph and a solver of the Gromov-Wasserstein problem, as graphs grow."""

from __future__ import annotations

import time
from collections.abc import Iterable

import ot
import torch

from fusion.objectives.graph.gld import joint, node_features
from tests.benchmarks.measure import Figure, best, seconds

ROWS = 16


def measure() -> Iterable[Figure]:
    """n nodes, 16 rows; CPU seconds of one thread."""
    torch.manual_seed(0)
    before = None
    for n in (10, 100, 1_000, 10_000, 100_000, 1_000_000):
        z, example = torch.randn(ROWS, n), torch.zeros(ROWS, dtype=torch.long)
        ours = best(lambda z=z, example=example: node_features(z, example, 1))
        growth = "" if before is None else f"{ours / before:.1f} x the time of a tenth of the nodes"
        yield Figure(f"sorted node features, n = {n:,}", f"{ours * 1e3:.2f} ms", "n log n" if growth else "", growth)
        before = ours
        if n <= 10_000:
            explicit = best(lambda z=z: (z.T @ z).sum(-1).sort(descending=True), runs=2)
            yield Figure(
                f"explicit graph / ours, n = {n:,}", f"{explicit / ours:.1f}", "", f"{4 * n * n / 1e6:,.1f} MB"
            )
        if n <= 100:
            solver = seconds(lambda z=z: _solve(z), time.process_time)
            yield Figure(
                f"Gromov-Wasserstein solver (POT) / ours, n = {n:,}", f"{solver / ours:,.0f}", "", f"{solver:.2f} s"
            )
    yield Figure("memory of a node", f"{joint(torch.zeros(ROWS, 1)).numel() * 4 + 4} bytes", "constant", f"{ROWS} rows")


def _solve(z: torch.Tensor) -> float:
    one, other = (z.T @ z).double().numpy(), (z.roll(1, 1).T @ z).double().numpy()
    return ot.gromov.gromov_wasserstein2(one / abs(one).max(), (other + other.T) / abs(other).max() / 2, symmetric=True)
