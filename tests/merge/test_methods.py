"""The merge methods against float64 loops, against examples worked on paper, and by what must not change."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError
from scipy.stats import chisquare

from fusion.merge import stack
from fusion.merge.methods import (
    ALL,
    DELLA,
    SCE,
    TIES,
    AnyMethod,
    Breadcrumbs,
    BreadcrumbsTies,
    DARELinear,
    DARETies,
    DELLALinear,
    Karcher,
    Linear,
    ModelStock,
    MultiSlerp,
    NuSlerp,
    Slerp,
    TaskArithmetic,
)
from fusion.merge.random import uniform
from fusion.merge.schedule import Layers, Tensors
from fusion.merge.threshold import edge, thresholds
from fusion.merge.trimmed import adapted
from tests import reference_merge as reference

NAME = "model.layers.1.mlp.up_proj.weight"


def row(base):
    return math.prod(base.shape[1:]) if base.dim() > 1 else base.numel()


def by_rank(b, m, density):
    streams = [f"0/{NAME}/{s}" for s in range(len(m))]
    thinned = zip(reference.changes(b, m), streams, strict=True)
    return [reference.dropped_by_rank(c, density, 0.15, max(1, row(b)), stream) for c, stream in thinned]


def at_random(b, m, densities, seed=0):
    streams = [f"{seed}/{NAME}/{s}" for s in range(len(m))]
    return [reference.dropped(*z) for z in zip(reference.changes(b, m), densities, streams, strict=True)]


def in_the_middle(b, m, density=0.9, gamma=0.01):
    return [reference.middle(c, density, gamma) for c in reference.changes(b, m)]


AGREE = {"elect": True, "normalise": True}
THIRDS = [1 / 3] * 3
CASES = {
    "linear": (Linear(), lambda b, m: reference.linear(b, m, [1.0] * len(m))),
    "linear, weights": (Linear(weights=[2, -0.5, 1]), lambda b, m: reference.linear(b, m, [2, -0.5, 1])),
    "linear, sum": (
        Linear(weights=[2, -0.5, 1], normalise=False),
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
        TaskArithmetic(weights=[1, 2, 3], normalise=True, scale=0.5),
        lambda b, m: reference.joined(b, reference.changes(b, m), [1, 2, 3], normalise=True, scale=0.5),
    ),
    "ties": (TIES(), lambda b, m: reference.ties(b, m, [1 / len(m)] * len(m), 0.6)),
    "ties, weights": (
        TIES(weights=[3, 0, 1], density=0.29),
        lambda b, m: reference.ties(b, m, [3, 0, 1], 0.29),
    ),
    "ties, densities and a sum": (
        TIES(weights=[1, 1, 1], density=[0.2, 1, 0.7], normalise=False, scale=2),
        lambda b, m: reference.joined(
            b,
            [reference.largest(c, d) for c, d in zip(reference.changes(b, m), (0.2, 1, 0.7), strict=True)],
            [1, 1, 1],
            elect=True,
            scale=2,
        ),
    ),
    "dare linear": (DARELinear(), lambda b, m: reference.joined(b, at_random(b, m, [0.5] * 3), [0.3] * 3)),
    "dare linear, densities and a seed": (
        DARELinear(density=[0.1, 0.5, 1.0], seed=7, weights=[1, 2, 3]),
        lambda b, m: reference.joined(b, at_random(b, m, [0.1, 0.5, 1.0], 7), [1, 2, 3]),
    ),
    "dare ties": (DARETies(), lambda b, m: reference.joined(b, at_random(b, m, [0.5] * 3), THIRDS, **AGREE)),
    "della linear": (DELLALinear(), lambda b, m: reference.joined(b, by_rank(b, m, 0.5), [0.3] * 3)),
    "della": (DELLA(density=0.3), lambda b, m: reference.joined(b, by_rank(b, m, 0.3), THIRDS, **AGREE)),
    "breadcrumbs": (Breadcrumbs(), lambda b, m: reference.joined(b, in_the_middle(b, m), [0.3] * 3)),
    "breadcrumbs, many outliers": (
        Breadcrumbs(density=0.7, gamma=0.1),
        lambda b, m: reference.joined(b, in_the_middle(b, m, 0.7, 0.1), [0.3] * 3),
    ),
    "breadcrumbs ties": (BreadcrumbsTies(), lambda b, m: reference.joined(b, in_the_middle(b, m), THIRDS, **AGREE)),
    "sce": (SCE(), lambda b, m: reference.sce(b, m, 0.1)),
    "sce, all": (SCE(select_topk=1), lambda b, m: reference.sce(b, m, 1)),
    "sce, selected weights": (SCE(selection="weights"), lambda b, m: reference.sce(b, m, 0.1, "weights")),
}
SHAPES = [(), (1,), (7,), (5, 3), (2, 3, 41), (0,), (3, 0)]
RANDOM = {"dare_linear", "dare_ties", "della_linear", "della"}


def grown(shape, models=3, seed=0, dtype=torch.float32):
    """A base and models that differ from it a little, some entries not at all."""
    draw = torch.Generator().manual_seed(seed)
    base = torch.randn(shape, generator=draw)
    changes = [
        0.1 * torch.randn(shape, generator=draw) * (torch.rand(shape, generator=draw) > 0.2) for _ in range(models)
    ]
    return base.to(dtype), [(base + change).to(dtype) for change in changes]


def every(models, **others):
    """Each method that can merge that many models, with settings under which it can."""
    fit = [m for m in ALL if m.fewest <= models <= (m.most or models)]
    return [method(select_topk=1) if method is SCE and models == 1 else method(**others) for method in fit]


def by_kind(method):
    return method.kind


def test_every_method_of_the_configuration_is_in_the_list_and_has_a_case_here():
    kinds = {
        option["properties"]["kind"]["const"]
        for option in TypeAdapter(AnyMethod).json_schema()["$defs"].values()
        if "kind" in option["properties"]
    }
    assert kinds == {method().kind for method in ALL}
    assert len(ALL) == 15
    assert kinds - {method.kind for method, _ in CASES.values()} == {
        "karcher"
    }  # which is tested by what it makes small
    for method in ALL:
        assert TypeAdapter(AnyMethod).validate_python({"kind": method().kind}) == method()


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
def test_every_method_matches_its_definition(case, shape, dtype):
    method, expected = CASES[case]
    base, models = grown(shape, method.most or 3, dtype=dtype, seed=math.prod(shape))
    merged = method(base, models, NAME)
    assert merged.dtype == torch.float32
    assert merged.shape == base.shape
    torch.testing.assert_close(merged.double(), expected(base, models), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("case", CASES)
def test_the_size_of_the_tiles_changes_nothing(case, monkeypatch):
    method, _ = CASES[case]
    base, models = grown((11, 13), method.most or 3)
    whole = method(base, models)
    monkeypatch.setattr(stack, "TILE", 30)
    monkeypatch.setattr(stack, "TASK", 60)
    torch.testing.assert_close(method(base, models), whole, rtol=1e-6, atol=0)
    monkeypatch.setattr(stack, "REMEMBERED", 0)
    torch.testing.assert_close(method(base, models), whole, rtol=1e-6, atol=0)  # not equal: ω sums in another order


@settings(deadline=None)
@given(
    shape=st.lists(st.integers(0, 4), max_size=3).map(tuple),
    models=st.integers(1, 5),
    seed=st.integers(0, 999),
    density=st.floats(0.001, 1),
)
def test_any_shape_and_number_of_models_gives_finite_numbers_near_the_definition(shape, models, seed, density):
    base, others = grown(shape, models, seed)
    equal = [1 / models] * models
    pairs = [
        (Linear(), reference.linear(base, others, equal)),
        (TaskArithmetic(), reference.task_arithmetic(base, others, [0.3] * models)),
        (TIES(density=density), reference.ties(base, others, equal, density)),
    ]
    topk = 1.0 if models == 1 else density
    for method, expected in [*pairs, (SCE(select_topk=topk), reference.sce(base, others, topk))]:
        merged = method(base, others)
        assert torch.isfinite(merged).all()
        torch.testing.assert_close(merged.double(), expected, rtol=1e-6, atol=1e-7)


# Problems whose answer is known


def test_ties_gives_the_numbers_worked_on_paper():
    # Five entries, density 0.6: three of each model are kept, (those) are not.
    #   a         4    -3     2   (-1)  (0.5)
    #   b         2    (1)  (-1)    3    -6
    #   c        (0)  (0.5)   1    -3     2
    #   elected   +     -     +   none    -      the sums are 6, -3, 3, 0, -4
    #   mean      3    -3    1.5    0    -6      of a and b, a, a and c, nobody, b
    base = torch.tensor([10.0, 20.0, 30.0, 40.0, 50.0])
    a = torch.tensor([4.0, -3.0, 2.0, -1.0, 0.5])
    b = torch.tensor([2.0, 1.0, -1.0, 3.0, -6.0])
    c = torch.tensor([0.0, 0.5, 1.0, -3.0, 2.0])
    merged = TIES(density=0.6)(base, [base + a, base + b, base + c])
    assert merged.tolist() == [13.0, 17.0, 31.5, 40.0, 44.0]


def test_ties_weights_both_the_election_and_the_mean():
    # 1·3 - 2·2 = -1 elects minus in the first entry; (1·2 + 2·8) / 3 = 6 in the second
    merged = TIES(density=1, weights=[1, 2])(torch.zeros(2), [torch.tensor([3.0, 2.0]), torch.tensor([-2.0, 8.0])])
    torch.testing.assert_close(merged, torch.tensor([-2.0, 6.0]))


def test_sce_gives_the_numbers_worked_on_paper():
    # Variances 9, 1, 0, 25/4 of four entries; two thirds of the three that vary keep the first and the last.
    # Selected changes: a (3, 4), b (-3, -1): squares 25 and 10, so ω = 5/7, 2/7.
    # Signs: 3 - 3 is a tie and stays at the base; 4 - 1 elects plus, where a alone agrees.
    a, b = torch.tensor([3.0, 1.0, 2.0, 4.0]), torch.tensor([-3.0, -1.0, 2.0, -1.0])
    assert SCE(select_topk=0.67)(torch.zeros(4), [a, b]).tolist() == [0.0, 0.0, 0.0, 4.0]
    # With b = (5, 0, 2, 1): variances 1, 1/4, 0, 9/4; squares of a 9 + 16 = 25, of b 25 + 1 = 26; so
    # (25·3 + 26·5) / 51 and (25·4 + 26·1) / 51.
    b = torch.tensor([5.0, 0.0, 2.0, 1.0])
    merged = SCE(select_topk=0.67)(torch.zeros(4), [a, b])
    torch.testing.assert_close(merged, torch.tensor([205 / 51, 0.0, 0.0, 126 / 51]))


FULL = {"density": 1.0, "select_topk": 1.0, "epsilon": 0.0, "gamma": 0.0}
"""Settings with which nothing is left out."""


@pytest.mark.parametrize("kind", ALL, ids=lambda kind: kind().kind)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
def test_identical_models_return_themselves_where_nothing_is_left_out(kind, dtype):
    base, (model, *_) = grown((6, 5), dtype=dtype)
    full = {name: value for name, value in (FULL | {"weights": [0.25, 0.75]}).items() if name in kind.model_fields}
    assert torch.equal(kind(**full)(base, [model] * 2), model.float())


def test_seven_identical_changes_add_up_or_come_back():
    base, (model, *_) = grown((6, 5))
    same, change = [model] * 7, model - base
    torch.testing.assert_close(TaskArithmetic(weights=[0.5] * 7)(base, same), base + 3.5 * change)
    for method in (Linear(), MultiSlerp(), Karcher(), ModelStock(), TIES(density=1), SCE(select_topk=1)):
        torch.testing.assert_close(method(base, same), model, rtol=1e-7, atol=0)


def test_identical_changes_are_trimmed_by_ties_and_not_selected_by_sce():
    base, model = torch.zeros(5), torch.tensor([5.0, 4.0, 3.0, 2.0, 1.0])
    assert TIES(density=0.6)(base, [model] * 3).tolist() == [5.0, 4.0, 3.0, 0.0, 0.0]
    assert torch.equal(SCE(select_topk=0.9)(base, [model] * 7), base)


def test_sce_leaves_unselected_entries_at_the_base_and_changes_the_selected():
    base, models = grown((40, 25))
    variance = torch.stack(models).double().var(0, correction=0)
    merged = SCE(select_topk=0.1)(base, models)
    unselected = variance < variance.flatten().sort(descending=True).values[int(0.1 * (variance > 0).sum()) - 1]
    assert 850 < unselected.sum() < 950
    assert torch.equal(merged[unselected], base[unselected])
    assert (merged != base).sum() > 0.9 * (~unselected).sum()


@pytest.mark.parametrize("method", every(1), ids=by_kind)
def test_a_single_model_is_returned_up_to_trimming_and_scale(method):
    base, (model,) = grown((1, 50), models=1)
    merged, change = method(base, [model], NAME), (model - base).double()
    if method.kind == "ties":
        change = torch.tensor(reference.largest(change[0].tolist(), 0.6))
    if method.kind.startswith("dare"):
        change = torch.tensor(reference.dropped(change[0].tolist(), 0.5, f"0/{NAME}/0"))
    if method.kind.startswith("della"):
        change = torch.tensor(reference.dropped_by_rank(change[0].tolist(), 0.5, 0.15, 50, f"0/{NAME}/0"))
    if method.kind.startswith("breadcrumbs"):
        change = torch.tensor(reference.middle(change[0].tolist(), 0.9, 0.01))
    if method.kind in ("task_arithmetic", "dare_linear", "della_linear", "breadcrumbs"):
        change = 0.3 * change
    torch.testing.assert_close(merged, (base + change).float())


def test_sce_refuses_to_select_from_a_single_model():
    with pytest.raises(ValueError, match=r"select_topk 0.1 the result would be the base"):
        SCE()(torch.zeros(3), [torch.ones(3)])


@pytest.mark.parametrize("method", every(2) + every(3), ids=by_kind)
def test_models_equal_to_the_base_give_the_base(method):
    base, _ = grown((9, 4))
    assert torch.equal(method(base, [base] * (method.most or 3)), base)


@pytest.mark.parametrize("method", [m for m in every(4) if m.kind not in RANDOM], ids=by_kind)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
def test_the_order_of_the_models_changes_nothing(method, dtype):
    base, models = grown((8, 16), models=4, dtype=dtype)
    first = method(base, models)
    for order in itertools.permutations(models):
        torch.testing.assert_close(method(base, order), first, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("method", [TIES(density=1), SCE(select_topk=1)], ids=by_kind)
def test_changes_that_cancel_exactly_elect_nobody_in_any_order(method):
    changes = [torch.tensor([x]) for x in (0.1, 0.7, -0.8125, 0.0125)]
    changes[3] = -(
        changes[0].double() + changes[1].double() + changes[2].double()
    ).float()  # Σ is 0, though not in float32
    assert sum(change.double() for change in changes).item() == 0
    for order in itertools.permutations(changes):
        assert method(torch.zeros(1), order).item() == 0


@pytest.mark.parametrize("method", every(2), ids=by_kind)
def test_merging_mirrored_models_gives_the_mirror_image(method):
    base, models = grown((10, 10), models=2)
    torch.testing.assert_close(method(-base, [-model for model in models]), -method(base, models), rtol=0, atol=0)


@pytest.mark.parametrize("method", [m for m in every(2) if m.kind not in RANDOM], ids=by_kind)
def test_a_transposed_tensor_merges_to_the_transpose(method):
    base, models = grown((6, 9), models=2)
    torch.testing.assert_close(method(base.T, [model.T for model in models]), method(base, models).T)


@pytest.mark.parametrize("method", every(2), ids=by_kind)
def test_a_value_that_is_not_finite_is_refused(method):
    base, models = grown((6, 9), models=2)
    models[1][2, 3] = math.nan
    with pytest.raises(ValueError, match=r"the tensor in model 2 has 1 values that are NaN or infinite"):
        method(base, models)


# Directions


def test_slerp_turns_at_equal_angles_and_keeps_a_common_norm():
    merged = Slerp(t=1 / 3)(torch.zeros(2), [torch.tensor([2.0, 0.0]), torch.tensor([0.0, 2.0])])
    torch.testing.assert_close(merged, 2 * torch.tensor([math.cos(math.pi / 6), math.sin(math.pi / 6)]))


def test_slerp_goes_straight_between_opposite_models():
    a = torch.tensor([1.0, 2.0])
    torch.testing.assert_close(Slerp(t=0.25)(a, [a, -a]), 0.5 * a)


def test_slerp_ends_at_its_models():
    base, models = grown((5, 6), models=2)
    assert torch.equal(Slerp(t=0)(base, models), models[0])
    assert torch.equal(Slerp(t=1)(base, models), models[1])


@pytest.mark.parametrize("weights", [[1, 1, 1], [1, 2, 3]])
def test_the_karcher_mean_has_the_least_spread_and_the_mean_norm(weights):
    draw = torch.Generator().manual_seed(1)
    models = [torch.randn(12, generator=draw) for _ in weights]
    merged = Karcher(weights=weights)(models[0], models)
    least = reference.sphere_spread(merged, models, weights)
    for scale in (1e-1, 1e-2, 1e-3):
        for _ in range(20):
            other = merged + scale * torch.randn(12, generator=draw)
            assert reference.sphere_spread(other, models, weights) > least - 1e-6 * least
    norms = sum(w * model.norm() for w, model in zip(weights, models, strict=True)) / sum(weights)
    torch.testing.assert_close(merged.norm(), norms)


def test_the_karcher_mean_of_two_is_half_way_by_slerp():
    base, (a, b) = grown((7, 7), models=2)
    torch.testing.assert_close(
        Karcher()(base, [a / a.norm(), b / b.norm()]), Slerp()(base, [a / a.norm(), b / b.norm()])
    )


def test_model_stock_of_orthogonal_changes_is_the_base_and_of_parallel_ones_the_mean():
    base = torch.tensor([1.0, 1.0])
    apart = [base + torch.tensor([1.0, 0.0]), base + torch.tensor([0.0, 3.0])]
    assert torch.equal(ModelStock()(base, apart), base)
    along = [base + torch.tensor([1.0, 2.0]), base + torch.tensor([3.0, 6.0])]
    torch.testing.assert_close(ModelStock()(base, along), base + torch.tensor([2.0, 4.0]))


# Chance


def test_random_numbers_depend_on_their_place_alone_and_follow_the_reference():
    whole = uniform("a stream", 0, 5000)
    assert torch.equal(torch.cat([uniform("a stream", 0, 1234), uniform("a stream", 1234, 5000)]), whole)
    assert whole[:200].tolist() == [reference.draw("a stream", i) for i in range(200)]
    late = 2**32 - 3
    assert uniform("a stream", late, late + 6).tolist() == [reference.draw("a stream", late + i) for i in range(6)]


def test_random_numbers_are_uniform_and_streams_are_independent():
    one, two = (uniform(name, 0, 1 << 18).numpy() for name in ("one", "two"))
    counts, _ = np.histogram(one, bins=64, range=(0, 1))
    assert chisquare(counts).pvalue > 1e-4
    assert abs(np.corrcoef(one, two)[0, 1]) < 0.01
    assert abs(np.corrcoef(one[1:], one[:-1])[0, 1]) < 0.01


@pytest.mark.parametrize("method", [DARELinear(density=0.2, weights=[1.0]), DELLALinear(density=0.4, weights=[1.0])])
def test_what_is_dropped_at_random_is_made_up_for_on_average(method):
    base, change = torch.zeros(400, 1000), torch.linspace(0.5, 1.5, 1000).expand(400, 1000)
    merged = method(base, [change])
    torch.testing.assert_close(merged.mean(0).mean(), torch.tensor(1.0), rtol=0.02, atol=0)
    assert abs((merged != 0).double().mean() - method.density) < 0.005


def test_della_keeps_the_large_more_often_than_the_small():
    change = torch.linspace(0, 1, 1000).expand(500, 1000)
    kept = (DELLALinear(density=0.5, epsilon=0.3)(torch.zeros(500, 1000), [change]) != 0).double().mean(0)
    assert abs(kept[10:110].mean() - 0.236) < 0.01
    assert abs(kept[890:990].mean() - 0.764) < 0.01


def test_each_tensor_and_each_seed_drops_other_entries():
    base, models = grown((30, 30))
    merged = {(name, seed): DARETies(seed=seed)(base, models, name) for name in "ab" for seed in (0, 1)}
    for first, second in itertools.combinations(merged.values(), 2):
        assert not torch.equal(first, second)
    assert torch.equal(merged["a", 0], DARETies()(base, models, "a"))


# The guess at RSAF


def test_an_adaptive_density_is_the_density_where_all_changes_are_normal_and_equal_in_size():
    draw = torch.Generator().manual_seed(3)
    models = [torch.randn(100_000, generator=draw) for _ in range(2)]
    kept = (TIES(adaptive=True, density=0.3)(torch.zeros(100_000), models) != 0).double().mean()
    fixed = (TIES(density=0.3)(torch.zeros(100_000), models) != 0).double().mean()
    assert abs(kept - fixed) < 0.01


def test_an_adaptive_density_keeps_more_of_what_changed_more_and_less_of_what_is_skewed():
    draw = torch.Generator().manual_seed(3)
    normal = torch.randn(50_000, generator=draw)
    stack_ = stack.Stack.of(
        torch.zeros(50_000), [normal, 3 * normal, normal**3 * normal.abs().mean() / (normal**3).abs().mean()]
    )
    small, large, skewed = adapted(stack_, [0.2] * 3)
    assert large == pytest.approx(3 * small, rel=1e-3)
    assert skewed < 0.5 * small


# Settings that differ from tensor to tensor


def test_weights_along_the_layers_are_straight_lines_between_anchors():
    method = Linear(weights=[Layers(layers=[0, 1, 0]), 1.0], normalise=False)
    found = [method.at(f"model.layers.{i}.mlp.up_proj.weight", 5).weights[0] for i in range(5)]
    assert found == [0, 0.5, 1, 0.5, 0]
    assert method.at("model.embed_tokens.weight", 5).weights[0] == 0
    assert Linear(weights=[Layers(layers=[1, 2]), 1.0]).at("lm_head.weight", 5).weights == [2, 1]


def test_weights_by_name_take_the_first_pattern_that_fits():
    weights = [Tensors(tensors={"*.mlp.*": 0.2, "*.1.*": Layers(layers=[0, 0.4]), "*": 0.5}), 1.0]
    method = TaskArithmetic(weights=weights)
    names = ["a.1.mlp.up", "a.1.attn.q", "norm.weight"]
    assert [method.at(name, 3).weights[0] for name in names] == [0.2, 0.2, 0.5]
    base, models = grown((4, 5), models=2)
    expected = reference.task_arithmetic(base, models, [0.2, 1.0])
    torch.testing.assert_close(method(base, models, "a.1.mlp.up", 3).double(), expected, rtol=1e-6, atol=1e-7)


def test_a_density_may_differ_by_layer():
    base, models = grown((4, 25), models=2)
    method = TIES(density=Layers(layers=[0.2, 1.0]))
    expected = reference.ties(base, models, [0.5, 0.5], 0.6)
    torch.testing.assert_close(method(base, models, "h.1.w", 3).double(), expected, rtol=1e-6, atol=1e-7)


def test_a_tensor_that_no_pattern_fits_and_a_number_out_of_range_are_named():
    base, models = grown((4, 5), models=2)
    with pytest.raises(ValueError, match=r"no pattern of \*\.mlp\.\* fits the tensor h.norm"):
        Slerp(t=Tensors(tensors={"*.mlp.*": 0.5}))(base, models, "h.norm")
    with pytest.raises(ValueError, match=r"ties at h.1.w: .*less than or equal to 1, got \{'density': 2.0\}"):
        TIES(density=Layers(layers=[0.2, 2.0]))(base, models, "h.1.w", 2)


# Thresholds


def each_of(numbers, size=7):
    def each(do):
        for piece in numbers.split(size):
            do(piece)

    return each


def threshold(numbers, fraction, **options):
    (found,) = thresholds(each_of(numbers), lambda piece: [piece], [fraction], **options)
    return found


@given(values=st.lists(st.floats(0, 2.0**127, width=32), min_size=1, max_size=60), fraction=st.floats(0.01, 1))
def test_the_threshold_is_the_one_a_sort_finds(values, fraction):
    numbers = torch.tensor(values, dtype=torch.float32)
    count = reference.kept(fraction, len(values))
    assert threshold(numbers, fraction) == sorted(numbers.tolist(), reverse=True)[count - 1]


def test_several_sequences_have_each_their_own_threshold():
    numbers = torch.rand(3, 1000, generator=torch.Generator().manual_seed(0))
    found = thresholds(each_of(numbers.T, 100), lambda piece: list(piece.T.contiguous()), [0.1, 0.5, 0.999])
    assert found == [sorted(row.tolist())[-n] for row, n in zip(numbers, (100, 500, 999), strict=True)]


def test_the_threshold_reads_its_fraction_as_the_decimal_that_was_written():
    numbers = torch.arange(1, 101, dtype=torch.float32)
    assert 0.29 * 100 < 29
    assert threshold(numbers, 0.29) == 72.0


def test_the_threshold_among_nonzero_numbers_ignores_zeros():
    numbers = torch.tensor([0.0] * 90 + [float(x) for x in range(1, 11)])
    assert threshold(numbers, 0.2, nonzero=True) == 9.0
    assert threshold(numbers, 0.2) == 0.0
    assert threshold(torch.zeros(5), 0.2, nonzero=True) == math.inf


@given(st.floats(2.0**-140, 2.0**120, width=32), st.floats(-3, 3))
def test_what_lies_above_the_edge_is_what_rounds_to_the_threshold_or_more(limit, ulps):
    apart = float(np.spacing(np.float32(limit)))
    for value in (limit + ulps * apart, edge(limit), math.nextafter(edge(limit), math.inf), limit, limit - apart / 2):
        assert (value > edge(limit)) == (float(np.float32(value)) >= limit)


def test_entries_that_tie_with_the_last_kept_are_kept_too():
    merged = TIES(density=0.5)(torch.zeros(4), [torch.tensor([1.0, -1.0, 1.0, 0.5])])
    assert merged.tolist() == [1.0, -1.0, 1.0, 0.0]


# Errors


def test_no_models_other_counts_and_other_shapes_are_refused():
    with pytest.raises(ValueError, match="ties needs at least one model"):
        TIES()(torch.zeros(2), [])
    with pytest.raises(ValueError, match="linear has 3 weights for 2 models"):
        Linear(weights=[1, 1, 1])(torch.zeros(2), [torch.zeros(2)] * 2)
    with pytest.raises(ValueError, match=r"shape \(3,\), the base's \(2,\)"):
        TaskArithmetic()(torch.zeros(2), [torch.zeros(2), torch.zeros(3)])
    with pytest.raises(ValueError, match="slerp needs at least 2 models, got 1"):
        Slerp()(torch.zeros(2), [torch.zeros(2)])
    with pytest.raises(ValueError, match="nuslerp merges 2 models, got 3; multislerp and karcher take any number"):
        NuSlerp()(torch.zeros(2), [torch.zeros(2)] * 3)
    with pytest.raises(ValueError, match="density lists 2 values for 3 models"):
        DARELinear(density=[0.5, 0.5])(torch.zeros(2), [torch.zeros(2)] * 3)
    with pytest.raises(ValueError, match=r"weights \[1.0, -1.0\] sum to 0 and leave no mean"):
        Karcher(weights=[1, -1])(torch.zeros(2), [torch.zeros(2)] * 2)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"kind": "linear", "weights": [0.1, 0.2, -0.3]}, "sum to 0"),
        ({"kind": "linear", "weights": [math.nan]}, "finite number"),
        ({"kind": "ties", "weights": [-1.0, 2.0]}, "greater than or equal to 0"),
        ({"kind": "ties", "weights": [0.0, 0.0]}, "at least one must be positive"),
        ({"kind": "ties", "density": 0}, "greater than 0"),
        ({"kind": "sce", "select_topk": 1.1}, "less than or equal to 1"),
        ({"kind": "sce", "weights": [1.0]}, "Extra inputs"),
        ({"kind": "slerp", "t": 1.5}, "less than or equal to 1"),
        ({"kind": "nuslerp", "weights": [1, -1]}, "sum to 0"),
        ({"kind": "dare_ties", "weights": [-1.0, 2.0]}, "greater than or equal to 0"),
        ({"kind": "della", "density": 0.9, "epsilon": 0.2}, "gives chances from 0.7 to 1.1"),
        ({"kind": "della", "density": 0.1}, "gives chances from -0.05 to 0.25"),
        ({"kind": "breadcrumbs", "gamma": 1}, "less than 1"),
        ({"kind": "task_arithmetic", "weights": [{"layers": []}]}, "at least 1 item"),
        ({"kind": "model_stock", "origin": "zero"}, "Input should be 'base'"),
        ({"kind": "dare"}, "does not match any of the expected tags"),
    ],
)
def test_settings_out_of_range_are_refused(wrong, message):
    with pytest.raises(ValidationError, match=message):
        TypeAdapter(AnyMethod).validate_python(wrong)
