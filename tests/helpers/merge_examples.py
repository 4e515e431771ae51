"""Each merge method with its definition, and tensors to merge."""

import math

import torch

from fusion.merging.methods.registry import (
    DELLA,
    METHODS,
    SCE,
    TIES,
    Breadcrumbs,
    BreadcrumbsTies,
    DARELinear,
    DARETies,
    DELLALinear,
    Linear,
    ModelStock,
    MultiSlerp,
    NuSlerp,
    Slerp,
    TaskArithmetic,
)
from tests.helpers import reference_merge as reference

TENSOR_NAME = "model.layers.1.mlp.up_proj.weight"


def row_size(base):
    return math.prod(base.shape[1:]) if base.dim() > 1 else base.numel()


def dropped_by_rank(b, m, density):
    streams = [f"0/{TENSOR_NAME}/{s}" for s in range(len(m))]
    thinned = zip(reference.changes(b, m), streams, strict=True)
    return [reference.dropped_by_rank(c, density, 0.15, max(1, row_size(b)), stream) for c, stream in thinned]


def randomly_dropped(b, m, densities, seed=0):
    streams = [f"{seed}/{TENSOR_NAME}/{s}" for s in range(len(m))]
    return [reference.dropped(*z) for z in zip(reference.changes(b, m), densities, streams, strict=True)]


def middle_magnitudes(b, m, density=0.9, gamma=0.01):
    return [reference.middle(c, density, gamma) for c in reference.changes(b, m)]


ELECTED_SIGN = {"elect": True, "normalise": True}


EQUAL_WEIGHTS = [1 / 3] * 3


CASES = {
    "linear": (Linear(), lambda b, m: reference.linear(b, m, [1.0] * len(m))),
    "linear, weights": (Linear(weights=[2, -0.5, 1]), lambda b, m: reference.linear(b, m, [2, -0.5, 1])),
    "linear, sum": (
        Linear(weights=[2, -0.5, 1], normalize=False),
        lambda b, m: reference.linear(b, m, [2, -0.5, 1], normalise=False),
    ),
    "slerp": (Slerp(), lambda b, m: reference.slerp(b, m, 0.5)),
    "slerp, near the second": (Slerp(t=0.9), lambda b, m: reference.slerp(b, m, 0.9)),
    "nuslerp": (NuSlerp(weights=[3, 1]), lambda b, m: reference.slerp(b, m, 0.25)),
    "nuslerp of changes": (
        NuSlerp(weights=[3, 1], origin="base"),
        lambda b, m: b.double() + reference.slerp(b, [x.double() - b.double() for x in m], 0.25),
    ),
    "multislerp": (MultiSlerp(), lambda b, m: reference.multislerp(b, m, [1.0] * 3)),
    "multislerp of changes": (
        MultiSlerp(weights=[1, 2, 3], origin="base"),
        lambda b, m: b.double() + reference.multislerp(b, [x.double() - b.double() for x in m], [1, 2, 3]),
    ),
    "model stock": (ModelStock(), reference.model_stock),
    "task arithmetic": (TaskArithmetic(), lambda b, m: reference.task_arithmetic(b, m, [0.3] * len(m))),
    "task arithmetic, weights": (
        TaskArithmetic(weights=[1.5, -1, 0]),
        lambda b, m: reference.task_arithmetic(b, m, [1.5, -1, 0]),
    ),
    "task arithmetic, scaled mean": (
        TaskArithmetic(weights=[1, 2, 3], normalize=True, lambda_=0.5),
        lambda b, m: reference.joined(b, reference.changes(b, m), [1, 2, 3], normalise=True, scale=0.5),
    ),
    "ties": (TIES(), lambda b, m: reference.ties(b, m, [1 / len(m)] * len(m), 0.6)),
    "ties, weights": (
        TIES(weights=[3, 0, 1], density=0.29),
        lambda b, m: reference.ties(b, m, [3, 0, 1], 0.29),
    ),
    "ties, densities and a sum": (
        TIES(weights=[1, 1, 1], density=[0.2, 1, 0.7], normalize=False, lambda_=2),
        lambda b, m: reference.joined(
            b,
            [reference.largest(c, d) for c, d in zip(reference.changes(b, m), (0.2, 1, 0.7), strict=True)],
            [1, 1, 1],
            elect=True,
            scale=2,
        ),
    ),
    "dare linear": (DARELinear(), lambda b, m: reference.joined(b, randomly_dropped(b, m, [0.5] * 3), [0.3] * 3)),
    "dare linear, densities and a seed": (
        DARELinear(density=[0.1, 0.5, 1.0], seed=7, weights=[1, 2, 3]),
        lambda b, m: reference.joined(b, randomly_dropped(b, m, [0.1, 0.5, 1.0], 7), [1, 2, 3]),
    ),
    "dare ties": (
        DARETies(),
        lambda b, m: reference.joined(b, randomly_dropped(b, m, [0.5] * 3), EQUAL_WEIGHTS, **ELECTED_SIGN),
    ),
    "della linear": (DELLALinear(), lambda b, m: reference.joined(b, dropped_by_rank(b, m, 0.5), [0.3] * 3)),
    "della": (
        DELLA(density=0.3),
        lambda b, m: reference.joined(b, dropped_by_rank(b, m, 0.3), EQUAL_WEIGHTS, **ELECTED_SIGN),
    ),
    "breadcrumbs": (Breadcrumbs(), lambda b, m: reference.joined(b, middle_magnitudes(b, m), [0.3] * 3)),
    "breadcrumbs, many outliers": (
        Breadcrumbs(density=0.7, gamma=0.1),
        lambda b, m: reference.joined(b, middle_magnitudes(b, m, 0.7, 0.1), [0.3] * 3),
    ),
    "breadcrumbs ties": (
        BreadcrumbsTies(),
        lambda b, m: reference.joined(b, middle_magnitudes(b, m), EQUAL_WEIGHTS, **ELECTED_SIGN),
    ),
    "sce": (SCE(), lambda b, m: reference.sce(b, m, 0.1)),
    "sce, all": (SCE(select_topk=1), lambda b, m: reference.sce(b, m, 1)),
    "sce, selected weights": (SCE(selection="weights"), lambda b, m: reference.sce(b, m, 0.1, "weights")),
}


SHAPES = [(), (1,), (7,), (5, 3), (2, 3, 41), (0,), (3, 0)]


RANDOM_KINDS = {"dare_linear", "dare_ties", "della_linear", "della"}


def base_and_models(shape, models=3, seed=0, dtype=torch.float32):
    """A base and models that differ from it a little, some entries not at all."""
    draw = torch.Generator().manual_seed(seed)
    base = torch.randn(shape, generator=draw)
    changes = [
        0.1 * torch.randn(shape, generator=draw) * (torch.rand(shape, generator=draw) > 0.2) for _ in range(models)
    ]
    return base.to(dtype), [(base + change).to(dtype) for change in changes]


def methods_for(models, **others):
    """Each method that can merge that many models, with settings under which it can."""
    fit = [m for m in METHODS if m.min_models <= models <= (m.max_models or models)]
    return [method(select_topk=1) if method is SCE and models == 1 else method(**others) for method in fit]


def method_kind(method):
    return method.kind
