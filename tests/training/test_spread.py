"""Trainings in two processes against the same one in a single process: losses, weights, resuming, also with fewer processes.

Objectives here are smooth: where one has kinks (the absolute differences of the rank-wise pair loss), rounding decides on
which side a step falls, and two trainings that are equal to the last digit part ways later on.
"""

import json

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from tests.helpers import runs, spread
from tests.helpers.spread import HALF

ENGINES = ["ddp", "zero2", "zero3", "fsdp2"]
"""ZeRO-1 is ZeRO-2 with whole gradients: `validation/test_watched_in_processes.py`, which is slow, trains with it."""
SMOOTH = [
    {"kind": "cross_entropy", "weight": 0.5},
    {"kind": "gld", "weight": 0.1},
    {"kind": "forward_kl", "weight": 0.4},
]
PLAIN = {"objectives": SMOOTH, "logits_chunk": 7}
LORA = {"objectives": [SMOOTH[0], SMOOTH[2]], "adapter": {"kind": "lora", "r": 4}}
SHORT = {"max_steps": 6, "save_steps": 6}
SAMPLED = ("entropy", "calibration/confidence", "calibration/accuracy")
"""Logged of some rows of each process's batch, so not the same ones in two processes as in one."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Every training that the tests below look at, in three starts of Python."""
    folder = tmp_path_factory.mktemp("spread")
    tied = tied_pivot(folder)
    spread.prepare(folder, objectives=SMOOTH)
    spread.prepare(folder, runs=str(folder / "tied"), **tied)
    spread.train(folder, "one", **PLAIN)
    spread.train(folder, "one-short", training=SHORT, **PLAIN)
    spread.train(folder, "one-lora", training=SHORT, **LORA)
    spread.train(folder, "one-tied", training=SHORT, runs=str(folder / "tied"), **tied)
    two = []
    for kind in ENGINES:
        shared = {"place": kind, "engine": {"kind": kind}, "training": HALF, **PLAIN}
        two += [shared | {"stop_at": 7, "copy_to": f"{kind}-moved"}, shared]
    for kind in ("zero3", "fsdp2"):
        short = {"engine": {"kind": kind}, "training": HALF | SHORT}
        two += [{"place": f"{kind}-lora", **short, **LORA}]
        two += [{"place": f"{kind}-tied", **short, **tied, "runs": str(folder / "tied")}]
    for kind, offload in {"zero2": "optimizer", "zero3": "all"}.items():
        engine = {"kind": kind, "offload": offload}
        two += [{"place": f"{kind}-offload", "engine": engine, "training": HALF | SHORT, **PLAIN}]
    spread.spread(folder, 2, *two)
    one = [
        {"place": f"{kind}-moved", "engine": {"kind": kind if kind != "ddp" else "auto"}, **PLAIN} for kind in ENGINES
    ]
    spread.spread(folder, 0, *one)
    return folder


def tied_pivot(folder):
    """A pivot whose head is its embedding."""
    where = {name: str(place) for name, place in runs.models(folder).items()}
    sources = [{"name": "neox", "path": where["neox"]}, {"name": "llama", "path": where["pivot"]}]
    return {"pivot": {"path": where["qwen"]}, "sources": sources, **PLAIN}


def assert_same_training(folder, place, other, steps, tolerance):
    mine, theirs = spread.log(folder, place), spread.log(folder, other)
    assert len(mine) == len(theirs[:steps]) == steps
    for entry, expected in zip(mine, theirs, strict=False):
        assert entry.keys() == expected.keys()
        for name in entry.keys() - {"epoch", "learning_rate", "grad_norm", *SAMPLED}:
            assert entry[name] == pytest.approx(expected[name], rel=tolerance, abs=tolerance), (
                place,
                entry["step"],
                name,
            )


def weights(folder, place):
    return load_file(folder / place / "model" / "model.safetensors")


def assert_same_weights(folder, place, other, tolerance):
    mine, theirs = weights(folder, place), weights(folder, other)
    assert mine.keys() == theirs.keys()
    for name, weight in mine.items():
        torch.testing.assert_close(weight, theirs[name], atol=tolerance, rtol=0)


@pytest.mark.parametrize("kind", ENGINES)
def test_a_training_that_is_killed_and_goes_on_in_two_processes_is_that_of_one(folder, kind):
    assert_same_training(folder, kind, "one", spread.STEPS, 1e-3)
    assert_same_weights(folder, kind, "one", 3e-5)


@pytest.mark.parametrize("kind", ENGINES)
def test_a_checkpoint_of_two_processes_goes_on_in_one(folder, kind):
    assert json.loads((folder / f"{kind}-moved/checkpoint-6/engine.json").read_text())["processes"] == 2
    assert json.loads((folder / f"{kind}-moved/checkpoint-9/engine.json").read_text())["processes"] == 1
    assert_same_training(folder, f"{kind}-moved", "one", spread.STEPS, 1e-3)
    assert_same_weights(folder, f"{kind}-moved", "one", 3e-5)


@pytest.mark.parametrize("kind", ["zero3", "fsdp2"])
def test_sharded_tied_embeddings_train_as_whole_ones(folder, kind):
    assert_same_training(folder, f"{kind}-tied", "one-tied", 6, 1e-4)
    assert_same_weights(folder, f"{kind}-tied", "one-tied", 1e-5)


@pytest.mark.parametrize("kind", ["zero2", "zero3"])
def test_what_is_offloaded_to_the_cpu_trains_alike(folder, kind):
    assert_same_training(folder, f"{kind}-offload", "one-short", 6, 1e-4)


@pytest.mark.parametrize("kind", ["zero3", "fsdp2"])
def test_a_sharded_adapter_trains_as_a_whole_one_and_is_merged(folder, kind):
    assert_same_training(folder, f"{kind}-lora", "one-lora", 6, 1e-4)
    assert_same_weights(folder, f"{kind}-lora", "one-lora", 1e-6)


def test_the_exported_model_is_an_ordinary_one(folder):
    for place in (*ENGINES, "fsdp2-tied", "zero3-lora"):
        model, info = AutoModelForCausalLM.from_pretrained(folder / place / "model", output_loading_info=True)
        assert not info["missing_keys"]
        assert not info["unexpected_keys"]
        assert model.dtype == torch.float32
