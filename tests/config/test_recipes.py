"""Every method's recipe, some steps of it on the quickstart's models: the loss falls, and what comes out is a model."""

import json

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from fusion import pipeline
from fusion.config import loading
from fusion.config.recipes import recipes
from fusion.study import load

METHODS = [name for name, file in recipes().items() if file.parent.name == "methods"]
SMALL = [
    *(f"data.train.{i}.limit=4" for i in range(3)),
    *(f"data.{part}.{i}.limit=2" for part in ("heldout", "validation") for i in range(3)),
    # all examples in every batch, so that losses are those of one text
    *("training.per_device_train_batch_size=12", "training.max_steps=6", "training.warmup_steps=1"),
    *("training.save_strategy=no", "training.report_to=[]", "baseline=false"),
]
LONGER = [
    *(f"data.train.{i}.limit=8" for i in range(3)),
    "training.per_device_train_batch_size=24",
    "training.max_steps=12",
]
MORE = {
    "easiest": LONGER,
    "infigfusion": LONGER,
    "rounds": ["rounds.prompts=6", "rounds.num_generations=2", "data.validation=[]", "rounds.max_completion_length=8"],
    # a width is found from two rows for each of its dimensions
    "clone": [*(f"data.train.{i}.limit=24" for i in range(3)), "training.per_device_train_batch_size=72"],
}

EVERY_TIME = [
    *("aligndistil", "best_source", "cot2align", "easiest", "fine_tuned", "forward_kl", "infifusion", "infigfusion"),
    *("llavadi_hidden", "llp_spans", "matcher", "mix_cpt", "pairwise_sce", "rs_kd", "ternary", "uld"),
]
"""One recipe of each kind of setting. The others differ from these in an objective, a weighting, a transform or a merge method,
each of which has its contract."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("recipes")


@pytest.mark.parametrize(
    "name", [name if name in EVERY_TIME else pytest.param(name, marks=pytest.mark.slow) for name in METHODS]
)
def test_the_loss_of_every_methods_recipe_falls_and_its_model_loads(name, folder):
    where = [f"runs={folder}", f"store={folder / 'store'}"]
    place = pipeline.run(loading.load(name, [*SMALL, *MORE.get(name, []), *where]), until="rounds")
    logs = [*place.glob("train/*/log.json"), *place.glob("train/pairwise/*/log.json")]
    assert logs
    for log in logs:
        losses = torch.tensor([entry["loss"] for entry in json.loads(log.read_text()) if "loss" in entry])
        assert losses[-1] < losses[0]
    model = AutoModelForCausalLM.from_pretrained(place / "fused")
    ids = AutoTokenizer.from_pretrained(place / "fused")("1 + 1 = ", return_tensors="pt").input_ids
    assert model(ids).logits.isfinite().all()


def test_the_study_of_methods_has_an_arm_for_every_recipe():
    study = load("methods")
    assert sorted(study.arms) == sorted(METHODS)
    assert all(arm == {"extends": name} for name, arm in study.arms.items())


def test_the_recipes_that_train_every_time_are_there():
    assert set(EVERY_TIME) < set(METHODS)
