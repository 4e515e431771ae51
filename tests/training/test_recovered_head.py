"""Distillation through a frozen head that is recovered from a source's own cached rows, from the cache to a model on disk."""

import json

import pytest
import torch

from fusion import pipeline
from fusion.cache import Cache
from fusion.cache.head_recovery import principal_angles
from fusion.models.loading import ModelRef, load_model
from fusion.objectives import DualHead
from fusion.stages import extract, train
from fusion.stages.context import RunContext
from fusion.training import auxiliary_modules
from tests.helpers import runs, tiny

HEAD = {"kind": "dual_head", "head": "cache", "loss": "kl", "temperature": 2.0}
WHOLE = {
    "extract": {"top_k": "all", "value_format": "float32"},
    "objectives": [{"kind": "cross_entropy", "weight": 0.1}, HEAD],
}
TRAINING = {"max_steps": 12, "learning_rate": 3e-3, "save_strategy": "no", "per_device_train_batch_size": 16}


def context(folder, **changes):
    return RunContext(runs.config(folder, **WHOLE | {"training": TRAINING} | changes))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clone")
    pipeline.run(runs.config(folder, **WHOLE), until="extract")
    return folder


@pytest.fixture(scope="module")
def caches(folder):
    return {name: Cache(folder / "runs/small/cache" / name) for name in ("neox", "qwen")}


@pytest.fixture
def sources(folder, caches):
    this = context(folder)
    return [train.training_source(this, name, cache) for name, cache in caches.items()]


def test_the_frozen_head_spans_what_the_sources_own_does_and_is_made_without_it(folder, sources, monkeypatch):
    weights = {r.name: load_model(ModelRef(str(folder / r.name))).get_output_embeddings().weight for r in sources}
    monkeypatch.setattr(auxiliary_modules, "load_model", lambda *_: pytest.fail("weights of a source were read"))
    made = auxiliary_modules.build_modules([DualHead.model_validate(HEAD)], sources, 32, dtype="float32", seed=0)
    for source in sources:
        module, size = auxiliary_modules.modules_of(made, 0, [source.name])[source.name], len(source.vocabulary_map)
        assert module.weight.shape == (size, 32)
        assert module.weight.dtype == torch.float32
        assert principal_angles(module.weight, weights[source.name][:size].detach()).max() < 0.1
        assert [name for name, _ in module.named_parameters()] == ["projector.weight", "projector.bias"]


def test_some_state_makes_each_of_the_sources_rows_through_the_recovered_head(sources):
    """Up to softmax every row of the source is in the span: nothing of it is lost with the basis."""
    source = sources[1]
    modules = auxiliary_modules.build_modules([DualHead.model_validate(HEAD)], sources, 32, dtype="float32", seed=0)
    module = auxiliary_modules.modules_of(modules, 0, [source.name])[source.name]
    rows = source.cache.rows(source.cache.ids)
    logits = torch.zeros(len(rows), rows.k).scatter(1, rows.ids, rows.logprobs)
    logits = (logits - logits.mean(-1, keepdim=True)).double()
    centred = (module.weight - module.weight.mean(0)).double()
    states = torch.linalg.lstsq(centred, logits.T).solution.T
    left = (states @ centred.T).log_softmax(-1) - logits.log_softmax(-1)
    assert left.abs().max() < 1e-3


def test_the_term_falls_and_the_exported_model_is_an_ordinary_one(folder, sources):
    this = context(folder)
    train.train_one(this, "falls", sources, [source.name for source in sources])
    place = this.config.folder / "train/falls"
    log = json.loads((place / "log.json").read_text())
    for name in ("neox", "qwen"):
        values = [entry[f"loss/dual_head/{name}"] for entry in log]
        assert sum(values[-3:]) < 0.9 * sum(values[:3])
    assert (
        load_model(ModelRef(str(place / "model"))).state_dict().keys()
        == load_model(ModelRef(str(folder / "pivot"))).state_dict().keys()
    )


def test_rows_that_do_not_tell_are_refused_before_anything_is_trained(folder, caches, tmp_path):
    extract.refuse_unknown(context(folder), caches)
    few = runs.raw(folder, name="few", **WHOLE)
    few["data"]["train"] = [{**few["data"]["train"][0], "limit": 1}]
    with pytest.raises(
        ValueError, match=r"head: cache finds no output layer in .*neox, .* 2048 rows.*No gap.*More examples"
    ):
        pipeline.run(runs.loading.parse(few, "test"), "extract")
    assert not (folder / "runs/few/train").exists()
    capped = ModelRef(str(tiny.folder("gemma2", tmp_path / "gemma2")))
    with pytest.raises(ValueError, match=r"gemma2 does more to its logits than a matrix and a bias"):
        auxiliary_modules.check_modules([DualHead.model_validate(HEAD)], capped, 250, caches["neox"])


def test_wide_models_are_recovered_from_four_rows_a_dimension(caches, folder, monkeypatch):
    asked = []
    monkeypatch.setattr(
        auxiliary_modules, "recover_span_from_cache", lambda cache, rows: asked.append(rows) or pytest.fail("enough")
    )
    monkeypatch.setattr(auxiliary_modules, "DEFAULT_ROWS", 100)
    for model in (ModelRef(str(folder / "neox")), None):
        with pytest.raises(pytest.fail.Exception):
            auxiliary_modules.recover_output_layer(caches["neox"], model, "float32")
    assert asked == [4 * 32, 100]
