"""Settings that differ by layer and by the name of the tensor."""

import pytest
import torch

from fusion.merging.methods.registry import DELLA, SCE, TIES, Breadcrumbs, Linear, Slerp, TaskArithmetic
from fusion.merging.methods.schedule import LayerSchedule, TensorSchedule
from tests.helpers import reference_merge as reference
from tests.helpers.merge_examples import base_and_models


def test_weights_along_the_layers_are_straight_lines_between_anchors():
    method = Linear(weights=[LayerSchedule(layers=[0, 1, 0]), 1.0], normalize=False)
    found = [method.for_tensor(f"model.layers.{i}.mlp.up_proj.weight", 5).weights[0] for i in range(5)]
    assert found == [0, 0.5, 1, 0.5, 0]
    assert method.for_tensor("model.embed_tokens.weight", 5).weights[0] == 0
    assert Linear(weights=[LayerSchedule(layers=[1, 2]), 1.0]).for_tensor("lm_head.weight", 5).weights == [2, 1]


def test_weights_by_name_take_the_first_pattern_that_fits():
    weights = [TensorSchedule(tensors={"*.mlp.*": 0.2, "*.1.*": LayerSchedule(layers=[0, 0.4]), "*": 0.5}), 1.0]
    method = TaskArithmetic(weights=weights)
    names = ["a.1.mlp.up", "a.1.attn.q", "norm.weight"]
    assert [method.for_tensor(name, 3).weights[0] for name in names] == [0.2, 0.2, 0.5]
    base, models = base_and_models((4, 5), models=2)
    expected = reference.task_arithmetic(base, models, [0.2, 1.0])
    torch.testing.assert_close(
        method(base, models, "a.1.mlp.up", num_layers=3).double(), expected, rtol=1e-6, atol=1e-7
    )


def test_a_density_may_differ_by_layer():
    base, models = base_and_models((4, 25), models=2)
    method = TIES(density=LayerSchedule(layers=[0.2, 1.0]))
    expected = reference.ties(base, models, [0.5, 0.5], 0.6)
    torch.testing.assert_close(method(base, models, "h.1.w", num_layers=3).double(), expected, rtol=1e-6, atol=1e-7)


def test_a_tensor_that_no_pattern_fits_and_a_number_out_of_range_are_named():
    base, models = base_and_models((4, 5), models=2)
    with pytest.raises(ValueError, match=r"no pattern of \*\.mlp\.\* fits the tensor h.norm"):
        Slerp(t=TensorSchedule(tensors={"*.mlp.*": 0.5}))(base, models, "h.norm")
    with pytest.raises(ValueError, match=r"ties at h.1.w: .*less than or equal to 1, got \{'density': 2.0\}"):
        TIES(density=LayerSchedule(layers=[0.2, 2.0]))(base, models, "h.1.w", num_layers=2)


def test_tensors_outside_the_layers_take_the_nearest_anchor_or_all_the_first():
    names = ["model.embed_tokens.weight", "model.layers.4.w", "model.norm.weight", "lm_head.weight"]
    found = {}
    for outside in ("nearest", "first"):
        method = Linear(weights=[LayerSchedule(layers=[1, 2], outside=outside)])
        found[outside] = [method.for_tensor(name, 5).weights[0] for name in names]
    assert found == {"nearest": [1, 2, 2, 2], "first": [1, 2, 1, 1]}


def test_a_gradient_begins_anew_in_each_slice_and_what_is_outside_goes_with_the_first_and_the_last():
    gradient = LayerSchedule(layers=[0, 1], outside="first")
    parts = [
        {"layer_range": [0, 3], "value": gradient},
        {"layer_range": [3, 4], "value": {"tensors": {"*mlp*": 7, "*": 9}}},
    ]
    method = Linear(weights=[{"slices": parts}, 1.0])
    names = ["model.embed_tokens.weight", *(f"model.layers.{i}.mlp.up" for i in range(4)), "model.norm.weight"]
    assert [method.for_tensor(name, 4).weights[0] for name in names] == [0, 0, 0.5, 1, 7, 9]


@pytest.mark.parametrize(
    ("ranges", "message"),
    [
        ([[0, 2], [3, 4]], r"layer_range \[3, 4\] should begin at layer 2"),
        ([[1, 2]], r"layer_range \[1, 2\] should begin at layer 0"),
        ([[0, 0]], r"layer_range \[0, 0\] holds no layer"),
    ],
)
def test_slices_that_leave_layers_out_are_named(ranges, message):
    with pytest.raises(ValueError, match=message):
        Linear(weights=[{"slices": [{"layer_range": each, "value": 1} for each in ranges]}])


@pytest.mark.parametrize("value", [True, {"layers": [0.5, True]}, {"tensors": {"*": True}}])
def test_true_is_no_number_of_a_schedule(value):
    with pytest.raises(ValueError, match="must be a number, got true"):
        Linear(weights=[value, 1.0])


def test_lambda_gamma_epsilon_and_the_selected_fraction_may_differ_too():
    layers = LayerSchedule(layers=[0.1, 0.3])
    assert TaskArithmetic(**{"lambda": layers}).for_tensor("h.1.w", 3).lambda_ == pytest.approx(0.2)
    assert SCE(select_topk=layers).for_tensor("h.2.w", 3).select_topk == 0.3
    assert Breadcrumbs(gamma=[layers, 0.2]).for_tensor("h.0.w", 3).gamma == [0.1, 0.2]
    assert DELLA(density=0.6, epsilon=[0.3, layers]).for_tensor("h.2.w", 3).epsilon == [0.3, 0.3]
    with pytest.raises(ValueError, match="density 0.6 with epsilon 0.45 gives probabilities"):
        DELLA(density=[0.5, 0.6], epsilon=[layers, 0.45])


def test_each_model_may_have_its_own_outliers():
    base, models = base_and_models((4, 25), models=2)
    found = Breadcrumbs(density=0.7, gamma=[0.1, 0.0], weights=[0.3, 0.5])(base, models)
    deltas = reference.changes(base, models)
    middles = [reference.middle(deltas[0], 0.7, 0.1), reference.middle(deltas[1], 0.7, 0.0)]
    torch.testing.assert_close(found.double(), reference.joined(base, middles, [0.3, 0.5]), rtol=1e-6, atol=1e-7)
