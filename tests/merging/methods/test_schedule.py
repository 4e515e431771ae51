"""Settings that differ by layer and by the name of the tensor."""

import pytest
import torch

from fusion.merging.methods.registry import TIES, Linear, Slerp, TaskArithmetic
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
