"""What every merge method must do: match its float64 loop, and leave unchanged what must not change."""

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from fusion.merging.methods import tiles
from fusion.merging.methods.registry import (
    METHODS,
    SCE,
    TIES,
    AnyMethod,
    DARELinear,
    Karcher,
    Linear,
    ModelStock,
    MultiSlerp,
    NuSlerp,
    Slerp,
    TaskArithmetic,
)
from tests.helpers import reference_merge as reference
from tests.helpers.merge_examples import (
    CASES,
    RANDOM_KINDS,
    SHAPES,
    TENSOR_NAME,
    base_and_models,
    method_kind,
    methods_for,
)


def test_every_method_of_the_configuration_is_in_the_list_and_has_a_case_here():
    kinds = {
        option["properties"]["kind"]["const"]
        for option in TypeAdapter(AnyMethod).json_schema()["$defs"].values()
        if "kind" in option["properties"]
    }
    assert kinds == {method().kind for method in METHODS}
    assert len(METHODS) == 15
    assert kinds - {method.kind for method, _ in CASES.values()} == {
        "karcher"
    }  # which is tested by what it makes small
    for method in METHODS:
        assert TypeAdapter(AnyMethod).validate_python({"kind": method().kind}) == method()


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
def test_every_method_matches_its_definition(case, shape, dtype):
    method, expected = CASES[case]
    base, models = base_and_models(shape, method.max_models or 3, dtype=dtype, seed=math.prod(shape))
    merged = method(base, models, TENSOR_NAME)
    assert merged.dtype == torch.float32
    assert merged.shape == base.shape
    torch.testing.assert_close(merged.double(), expected(base, models), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("case", CASES)
def test_the_size_of_the_tiles_changes_nothing(case, monkeypatch):
    method, _ = CASES[case]
    base, models = base_and_models((11, 13), method.max_models or 3)
    whole = method(base, models)
    monkeypatch.setattr(tiles, "TILE_ENTRIES", 30)
    monkeypatch.setattr(tiles, "TASK_ENTRIES", 60)
    torch.testing.assert_close(method(base, models), whole, rtol=1e-6, atol=0)
    monkeypatch.setattr(tiles, "TILE_CACHE_BYTES", 0)
    torch.testing.assert_close(method(base, models), whole, rtol=1e-6, atol=0)  # not equal: ω sums in another order


@settings(deadline=None)
@given(
    shape=st.lists(st.integers(0, 4), max_size=3).map(tuple),
    models=st.integers(1, 5),
    seed=st.integers(0, 999),
    density=st.floats(0.001, 1),
)
def test_any_shape_and_number_of_models_gives_finite_numbers_near_the_definition(shape, models, seed, density):
    base, others = base_and_models(shape, models, seed)
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


FULL = {"density": 1.0, "select_topk": 1.0, "epsilon": 0.0, "gamma": 0.0}
"""Settings with which nothing is left out."""


@pytest.mark.parametrize("kind", METHODS, ids=lambda kind: kind().kind)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
def test_identical_models_return_themselves_where_nothing_is_left_out(kind, dtype):
    base, (model, *_) = base_and_models((6, 5), dtype=dtype)
    full = {name: value for name, value in (FULL | {"weights": [0.25, 0.75]}).items() if name in kind.model_fields}
    assert torch.equal(kind(**full)(base, [model] * 2), model.float())


@pytest.mark.parametrize("kind", METHODS, ids=lambda kind: kind().kind)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=["bfloat16", "float16"])
def test_identical_models_of_16_bits_come_back_bit_for_bit_whatever_the_weights(kind, dtype):
    base, (model, *_) = base_and_models((60, 50), dtype=dtype)
    count = kind.max_models or 3
    full = {
        name: value
        for name, value in (FULL | {"weights": [0.3, 0.1, 0.6][:count]}).items()
        if name in kind.model_fields
    }
    full |= {"normalize": True} if "normalize" in kind.model_fields else {}
    assert torch.equal(kind(**full)(base, [model] * count).to(dtype), model)


def test_seven_identical_changes_add_up_or_come_back():
    base, (model, *_) = base_and_models((6, 5))
    same, change = [model] * 7, model - base
    torch.testing.assert_close(TaskArithmetic(weights=[0.5] * 7)(base, same), base + 3.5 * change)
    for method in (Linear(), MultiSlerp(), Karcher(), ModelStock(), TIES(density=1), SCE(select_topk=1)):
        torch.testing.assert_close(method(base, same), model, rtol=1e-7, atol=0)


def test_identical_changes_are_trimmed_by_ties_and_not_selected_by_sce():
    base, model = torch.zeros(5), torch.tensor([5.0, 4.0, 3.0, 2.0, 1.0])
    assert TIES(density=0.6)(base, [model] * 3).tolist() == [5.0, 4.0, 3.0, 0.0, 0.0]
    assert torch.equal(SCE(select_topk=0.9)(base, [model] * 7), base)


@pytest.mark.parametrize("method", methods_for(1), ids=method_kind)
def test_a_single_model_is_returned_up_to_trimming_and_scale(method):
    base, (model,) = base_and_models((1, 50), models=1)
    merged, change = method(base, [model], TENSOR_NAME), (model - base).double()
    if method.kind == "ties":
        change = torch.tensor(reference.largest(change[0].tolist(), 0.6))
    if method.kind.startswith("dare"):
        change = torch.tensor(reference.dropped(change[0].tolist(), 0.5, f"0/{TENSOR_NAME}/0"))
    if method.kind.startswith("della"):
        change = torch.tensor(reference.dropped_by_rank(change[0].tolist(), 0.5, 0.15, 50, f"0/{TENSOR_NAME}/0"))
    if method.kind.startswith("breadcrumbs"):
        change = torch.tensor(reference.middle(change[0].tolist(), 0.9, 0.01))
    if method.kind in ("task_arithmetic", "dare_linear", "della_linear", "breadcrumbs"):
        change = 0.3 * change
    torch.testing.assert_close(merged, (base + change).float())


@pytest.mark.parametrize("method", methods_for(2) + methods_for(3), ids=method_kind)
def test_models_equal_to_the_base_give_the_base(method):
    base, _ = base_and_models((9, 4))
    assert torch.equal(method(base, [base] * (method.max_models or 3)), base)


@pytest.mark.parametrize("method", [m for m in methods_for(4) if m.kind not in RANDOM_KINDS], ids=method_kind)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
def test_the_order_of_the_models_changes_nothing(method, dtype):
    base, models = base_and_models((8, 16), models=4, dtype=dtype)
    first = method(base, models)
    for order in itertools.permutations(models):
        torch.testing.assert_close(method(base, order), first, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("method", [TIES(density=1), SCE(select_topk=1)], ids=method_kind)
def test_changes_that_cancel_exactly_elect_nobody_in_any_order(method):
    changes = [torch.tensor([x]) for x in (0.1, 0.7, -0.8125, 0.0125)]
    changes[3] = -(
        changes[0].double() + changes[1].double() + changes[2].double()
    ).float()  # Σ is 0, though not in float32
    assert sum(change.double() for change in changes).item() == 0
    for order in itertools.permutations(changes):
        assert method(torch.zeros(1), order).item() == 0


@pytest.mark.parametrize("method", methods_for(2), ids=method_kind)
def test_merging_mirrored_models_gives_the_mirror_image(method):
    base, models = base_and_models((10, 10), models=2)
    torch.testing.assert_close(method(-base, [-model for model in models]), -method(base, models), rtol=0, atol=0)


@pytest.mark.parametrize("method", [m for m in methods_for(2) if m.kind not in RANDOM_KINDS], ids=method_kind)
def test_a_transposed_tensor_merges_to_the_transpose(method):
    base, models = base_and_models((6, 9), models=2)
    torch.testing.assert_close(method(base.T, [model.T for model in models]), method(base, models).T)


@pytest.mark.parametrize("method", methods_for(2), ids=method_kind)
def test_a_value_that_is_not_finite_is_refused(method):
    base, models = base_and_models((6, 9), models=2)
    models[1][2, 3] = math.nan
    with pytest.raises(ValueError, match=r"the tensor in model 2 has 1 values that are NaN or infinite"):
        method(base, models)


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
        ({"kind": "della", "density": 0.9, "epsilon": 0.2}, "gives probabilities from 0.7 to 1.1"),
        ({"kind": "della", "density": 0.1}, "gives probabilities from -0.05 to 0.25"),
        ({"kind": "breadcrumbs", "gamma": 1}, "less than 1"),
        ({"kind": "task_arithmetic", "weights": [{"layers": []}]}, "at least 1 item"),
        ({"kind": "model_stock", "origin": "zero"}, "Input should be 'base'"),
        ({"kind": "dare"}, "does not match any of the expected tags"),
    ],
)
def test_settings_out_of_range_are_refused(wrong, message):
    with pytest.raises(ValidationError, match=message):
        TypeAdapter(AnyMethod).validate_python(wrong)
