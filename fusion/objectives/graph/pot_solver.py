"""The Gromov-Wasserstein distance of two small graphs by the solvers of POT (Python Optimal Transport), from several starts.

Graphs on logits are Gram matrices, and so have no negative eigenvalue. Then <C plan D, plan> is convex in the plan, the cost
is concave, and its least value is that of a matching of the nodes one to one: a quadratic assignment problem, for which
nobody knows an exact algorithm that is fast. POT's conditional gradient goes downhill from matching to matching until none of
its steps helps; other starts may end lower. What is found is the cost of one matching, so an upper bound like that of the
sorted one, and never above it, for that is the first start. (POT's own default start, the product of the weights, takes the
sorted matching for its first step.) On 40 pairs of random graphs of 6 nodes and 7 or 4 rows, 4 starts found the least of all
matchings for 2 pairs, 12 for 18 and 32 for 30.

Source: the conditional gradient of Vayer et al. 2018, arXiv:1805.09114; the entropic solver of Peyré, Cuturi and Solomon
2016, whose steps are done here one by one, in logarithms where POT's own would underflow (a small epsilon).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

MAX_NODES = 100
"""Nodes of the largest graph that is solved: each step of a solver takes n^3 operations, for every example in every step."""
MAX_STEPS, TOLERANCE = 200, 1e-10
"""Of the entropic solver: steps, and the largest change of a plan (times n) that counts as none."""


def import_pot() -> Any:
    """Return the module `ot`. Raises ValueError where POT is not installed."""
    try:
        import ot  # slow to import, and optional
    except ImportError as error:
        raise ValueError(
            f"The solvers of POT cannot be imported ({error}): pip install 'logit-fusion[gw]', or use solver: sorted."
        ) from error
    return ot


def distance(
    z: Float[Tensor, "T n"], y: Float[Tensor, "R n"], *, starts: int, seed: int, epsilon: float | None = None
) -> Float[Tensor, ""]:
    """Squared GW_2 between Z'Z / T and Y'Y / R as far as it is found, in float64; the least over the starts.

    `z` and `y` are the models' rows over the nodes, columns sorted by row sums. With `epsilon` the value is the least of

        cost + epsilon * s^2 * KL(plan, product of the weights),        s the largest entry of Y'Y / R,

    never below the distance. The plan is a constant: by the envelope theorem the gradient at a least value is that of the cost
    with the plan held where it is.
    """
    C, D = gram(z), gram(y.detach())
    scale = float(D.abs().max()) or 1.0
    plan = torch.from_numpy(best_plan(C.detach() / scale, D / scale, starts=starts, seed=seed, epsilon=epsilon))
    plan = plan.to(C.device)
    value = plan_cost(C, D, plan).clamp(min=0)  # of equal graphs it may be below 0 by rounding
    return value if epsilon is None else value + epsilon * scale**2 * information(plan)


def gram(z: Float[Tensor, "T n"]) -> Float[Tensor, "n n"]:
    """Z'Z / T in float64."""
    return z.double().T @ z.double() / len(z)


def plan_cost(C: Float[Tensor, "n n"], D: Float[Tensor, "n n"], plan: Float[Tensor, "n n"]) -> Float[Tensor, ""]:
    """Sum over i, j, i', j' of (C_ij - D_i'j')^2 plan_ii' plan_jj', for symmetric graphs."""
    mine, theirs = plan.sum(1), plan.sum(0)
    return mine @ C.square() @ mine + theirs @ D.square() @ theirs - 2 * (C @ plan @ D * plan).sum()


def information(plan: Float[Tensor, "n n"]) -> Float[Tensor, ""]:
    """KL of the plan to the product of equal weights, in nats: 0 to log n."""
    return torch.special.xlogy(plan, plan * plan.numel()).sum().clamp(min=0)


def best_plan(
    C: Float[Tensor, "n n"], D: Float[Tensor, "n n"], *, starts: int, seed: int, epsilon: float | None
) -> np.ndarray:
    """The plan of least value over the starts: the identity, then plans halfway between two matchings drawn with `seed`."""
    ot, n = import_pot(), len(C)
    one, other = C.cpu().numpy(), D.cpu().numpy()
    draw, matchings = np.random.default_rng(seed), np.eye(n) / n
    # from between two matchings: at a matching itself most first steps do not help, and it would stay there
    between = [(draw.permutation(matchings) + draw.permutation(matchings)) / 2 for _ in range(starts - 1)]
    found = [_solve(ot, one, other, start, epsilon) for start in (matchings, *between)]
    return min(found, key=lambda plan: _value(one, other, plan, epsilon))


def _value(C: np.ndarray, D: np.ndarray, plan: np.ndarray, epsilon: float | None) -> float:
    graphs = (torch.from_numpy(each) for each in (C, D, plan))
    return float(plan_cost(*graphs)) + (epsilon or 0.0) * float(information(torch.from_numpy(plan)))


def _solve(ot: Any, C: np.ndarray, D: np.ndarray, start: np.ndarray, epsilon: float | None) -> np.ndarray:
    """Where POT ends from one start."""
    even = start.sum(1)
    if epsilon is None:
        return ot.gromov.gromov_wasserstein(C, D, even, even, symmetric=True, G0=start)
    constant, left, right = ot.gromov.init_matrix(C, D, even, even)
    plan = start
    for _ in range(MAX_STEPS):
        gradient = ot.gromov.gwggrad(constant, left, right, plan)
        # the same plan without what is common to a row, which alone may underflow; logarithms take ten times as long
        gradient -= gradient.min(axis=1, keepdims=True)
        method = "sinkhorn" if gradient.max() < 500 * epsilon else "sinkhorn_log"
        before, plan = plan, ot.sinkhorn(even, even, gradient, epsilon, method=method, warn=False)
        if abs(plan - before).max() * len(even) < TOLERANCE:
            break
    return plan
