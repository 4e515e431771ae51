"""Curves on validation examples of trainings in two processes against one, for every engine, and the weights without them."""

import json

import pytest
from safetensors.torch import load_file

from tests.helpers import runs, spread
from tests.helpers.spread import HALF

pytestmark = pytest.mark.slow
ENGINES = ["ddp", "zero1", "zero2", "zero3", "fsdp2"]
SHORT = {"max_steps": 4, "eval_steps": 2, "save_steps": 3}
PLAIN = {"objectives": [{"kind": "cross_entropy", "weight": 0.6}, {"kind": "forward_kl", "weight": 0.4}]}


@pytest.fixture(scope="module", params=[5, 1])
def folder(request, tmp_path_factory):
    """Trainings that are read on so many validation examples: also on fewer than there are processes."""
    folder = tmp_path_factory.mktemp("watched-spread")
    data = runs.raw(folder)["data"]
    path = runs.write_data(folder, "validation.jsonl", request.param, start=200)
    data["validation"] = [{"path": path, "domain": "d0", "where": {"domain": 0}}]
    if request.param > 1:
        data["validation"].append({"path": path, "domain": "d1", "where": {"domain": 1}})
    spread.prepare(folder, data=data)
    spread.train(folder, "one", training=SHORT, data=data, **PLAIN)
    two = [
        {"place": kind, "engine": {"kind": kind}, "training": HALF | SHORT, "data": data, **PLAIN} for kind in ENGINES
    ]
    bare = [
        {"place": f"{kind}-bare", "engine": {"kind": kind}, "training": HALF | bare_steps(), **PLAIN}
        for kind in ENGINES
    ]
    spread.spread(folder, 2, *two, *bare)
    return folder


def bare_steps():
    return {name: value for name, value in SHORT.items() if not name.startswith("eval")}


def curve(folder, place):
    log = json.loads((folder / place / "log.json").read_text())
    names = ("step", "eval_")
    return [{k: v for k, v in entry.items() if k.startswith(names)} for entry in log if "eval_entropy" in entry]


@pytest.mark.parametrize("kind", ENGINES)
def test_two_processes_have_the_curves_of_one(folder, kind):
    mine, one = curve(folder, kind), curve(folder, "one")
    assert [entry["step"] for entry in mine] == [0, 2, 4]
    for entry, expected in zip(mine, one, strict=True):
        assert entry == pytest.approx(expected, rel=1e-4, abs=1e-5)


@pytest.mark.parametrize("kind", ENGINES)
def test_weights_are_the_same_to_the_bit_without_validation_examples(folder, kind):
    mine, bare = (load_file(folder / place / "model" / "model.safetensors") for place in (kind, f"{kind}-bare"))
    assert all(weight.equal(bare[name]) for name, weight in mine.items())
