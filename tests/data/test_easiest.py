"""The easiest examples: chosen by the pivot's perplexity before training, of each domain, and seen by every training."""

from __future__ import annotations

import json
import math

import pytest
import torch

from fusion import pipeline
from fusion.data.easiest import easiest_counts, select_easiest
from fusion.data.example import Example
from fusion.models.loading import load_model
from fusion.plan import plan
from fusion.stages.context import RunContext
from tests.helpers import runs


def examples(*domains):
    return [Example((), f"text {n}", domain) for n, domain in enumerate(domains)]


def test_the_share_of_each_domain_with_the_lowest_perplexity_is_chosen_in_order():
    some = examples("a", "a", "b", "a", "b", "a")
    cost = [3.0, 1.0, 9.0, 4.0, 8.0, 2.0]
    assert select_easiest(cost, some, 0.5) == [1, 4, 5]
    assert select_easiest(cost, some, 0.01) == [1, 4]
    assert select_easiest(cost, some, 1.0) == [0, 1, 2, 3, 4, 5]
    assert easiest_counts(some, 0.3) == {"a": 2, "b": 1}


def test_equal_perplexities_go_by_content_whatever_the_order():
    some = examples(*"aaaa")
    chosen = {some[n].id for n in select_easiest([1.0] * 4, some, 0.5)}
    assert chosen == {some[::-1][n].id for n in select_easiest([1.0] * 4, some[::-1], 0.5)}
    assert len(chosen) == 2


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("easiest")
    raw = runs.raw(folder)
    training = {name: value for name, value in raw["training"].items() if name != "max_steps"} | {"num_train_epochs": 1}
    config = runs.config(folder, data=raw["data"] | {"easiest_fraction": 0.5}, training=training)
    pipeline.run(config, until="train")
    return RunContext(config)


def test_they_are_those_that_the_model_itself_finds_easiest(run):
    model, scores = load_model(run.config.pivot.ref), []
    size = max(run.tokenizers["pivot"].get_vocab().values()) + 1
    for text in run.encoded("pivot"):
        ids = torch.tensor(text.input_ids)
        with torch.no_grad():
            logprobs = model(ids[None]).logits[0, :, :size].double().log_softmax(-1)
        gold = logprobs[torch.arange(text.start - 1, len(ids) - 1), ids[text.start :]]
        scores.append(math.exp(-gold.mean().item()))
    for domain in ("d0", "d1"):
        inside = [n for n, example in enumerate(run.train_examples) if example.domain == domain]
        chosen = [n for n in inside if n in run.training_indices]
        assert len(chosen) == 4
        assert max(scores[n] for n in chosen) <= min(scores[n] for n in inside if n not in chosen) * 1.001


def test_baseline_and_fusion_see_them_alone_as_planned(run):
    planned = {stage.stage: stage for stage in plan(run).stages}
    for name in ("fine-tuned", "unified"):
        log = json.loads((run.config.folder / f"train/{name}/log.json").read_text())
        assert len(log) == planned[f"train {name}"].steps == 2
        assert planned[f"train {name}"].examples == 8
    assert planned["extract pivot"].examples == 16
    assert run.record.read()["data"]["train"] == {"d0": 4, "d1": 4}
