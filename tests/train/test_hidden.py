"""Objectives that look at hidden states, from extraction to a model on disk: the term falls and what comes out is ordinary."""

import json

import pytest
import torch
from transformers import AutoModelForCausalLM

import runs
from fusion import pipeline

KINDS = [
    {"kind": "affinity"},
    {"kind": "affinity", "sketch": 8, "fresh": False},
    {"kind": "span_relations"},
]
LONGER = {"max_steps": 12, "learning_rate": 3e-3, "save_strategy": "no"}


def trained(folder, objective, **changes):
    """The run's folder, and what was logged of the term for each source."""
    raw = runs.raw(folder)
    config = runs.config(
        folder,
        **{"baseline": False, "extract": raw["extract"] | {"hidden": True}} | changes,
        objectives=[{"kind": "cross_entropy", "weight": 0.1}, objective],
        training=raw["training"] | LONGER | {"per_device_train_batch_size": 16} | changes.get("training", {}),
    )
    pipeline.run(config, until="train")
    log = json.loads((config.folder / "train/unified/log.json").read_text())
    kind = objective["kind"]
    return config, {name: [entry[f"loss/{kind}/{name}"] for entry in log] for name in ("neox", "qwen")}


@pytest.mark.parametrize("objective", KINDS, ids=repr)
def test_the_term_falls_and_the_exported_model_is_an_ordinary_one(tmp_path, objective):
    config, terms = trained(tmp_path, objective)
    for values in terms.values():
        assert sum(values[-3:]) < 0.9 * sum(values[:3])
    model, info = AutoModelForCausalLM.from_pretrained(config.folder / "train/unified/model", output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    before = AutoModelForCausalLM.from_pretrained(config.pivot.path)
    assert model.state_dict().keys() == before.state_dict().keys()
    assert not all(torch.equal(w, before.state_dict()[n]) for n, w in model.state_dict().items())
