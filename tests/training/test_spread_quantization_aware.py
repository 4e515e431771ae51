"""A ternary student in two processes against the same in one: the same losses, weights that its codes tell."""

import pytest
import torch
from safetensors.torch import load_file

from fusion.training import quantized_weights
from fusion.training.quantization_aware import CODES
from tests.helpers import spread
from tests.helpers.spread import HALF

pytestmark = pytest.mark.slow  # two processes; in one: test_quantization_aware.py

OBJECTIVES = [{"kind": "cross_entropy", "weight": 0.5}, {"kind": "forward_kl", "weight": 0.5}]
TERNARY = {"objectives": OBJECTIVES, "quantization_aware_training": {"kind": "ternary"}}
SHORT = {"max_steps": 6}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("spread")
    spread.prepare(folder, objectives=OBJECTIVES)
    spread.train(folder, "one", training=SHORT, **TERNARY)
    two = [{"place": k, "engine": {"kind": k}, "training": HALF | SHORT, **TERNARY} for k in ("ddp", "zero2")]
    spread.spread(folder, 2, *two)
    return folder


@pytest.mark.parametrize("kind", ["ddp", "zero2"])
def test_two_processes_train_the_same_student(folder, kind):
    mine, one = spread.log(folder, kind), spread.log(folder, "one")
    assert len(mine) == len(one) == 6
    for entry, expected in zip(mine, one, strict=True):
        # a weight at the border between two values may fall to either side by rounding
        assert entry["loss"] == pytest.approx(expected["loss"], rel=1e-2)


@pytest.mark.parametrize("kind", ["one", "ddp", "zero2"])
def test_the_written_weights_are_those_of_the_codes(folder, kind):
    model = folder / kind / "model"
    weights, codes = load_file(model / "model.safetensors"), quantized_weights.load_weights(model / CODES)
    assert len(codes) == 14
    assert all(torch.equal(weight, weights[f"{name}.weight"]) for name, weight in codes.items())
