"""Whole runs in bfloat16 on models whose logits reach 100, as real ones do, against the same runs in float32."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from fusion import pipeline
from fusion.cache import Cache
from fusion.models.head import hidden_states
from fusion.models.loading import ModelRef, load_model
from fusion.stages.context import RunContext
from fusion_eval.results import Result
from tests.helpers import runs

LOGITS = 100
STEP = 0.5  # of bfloat16 between 64 and 128
WAYS = {
    "mixed": {"training": {"bf16": True}},
    "pure": {"dtype": "bfloat16", "extract": {"dtype": "bfloat16"}},
}
OBJECTIVES = [
    {"kind": "cross_entropy", "weight": 0.5, "use_remaining_weight": True},
    {"kind": "gld", "weight": 0.1},
    {"kind": "infifusion", "weight": 0.1},
    {"kind": "forward_kl", "weight": 0.3},
]


def enlarge(folder):
    """Scale the output layer of a saved model until its largest logits are about `LOGITS`."""
    model = load_model(ModelRef(str(folder)))
    layer = model.get_output_embeddings()
    with torch.no_grad():
        hidden = hidden_states(model, input_ids=torch.arange(100)[None])
        factor = LOGITS / layer(hidden).abs().max()
    file = folder / "model.safetensors"
    weights = load_file(file)
    name = next((n for n in ("lm_head.weight", "embed_out.weight") if n in weights), None)
    if name is None:  # tied: the head gets weights of its own
        config = json.loads((folder / "config.json").read_text()) | {"tie_word_embeddings": False}
        (folder / "config.json").write_text(json.dumps(config))
        name = "lm_head.weight"
        weights[name] = weights["model.embed_tokens.weight"].clone()
    weights[name] = weights[name] * factor
    save_file(weights, file, metadata={"format": "pt"})


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The run in float32 and each way, on the same models."""
    folder = tmp_path_factory.mktemp("large")
    for place in runs.models(folder).values():
        enlarge(place)
    made = {}
    for name, way in {"float32": {}, **WAYS}.items():
        raw = runs.raw(
            folder, name=name, objectives=OBJECTIVES, weighting={"kind": "gold_posterior", "level": "position"}
        )
        raw |= {"strategies": ["unified"], "baseline": False, "evaluation": {}}
        raw["training"] |= {"save_strategy": "no", "max_steps": 4, "learning_rate": 1e-3} | way.get("training", {})
        raw["extract"] |= {"value_format": "float32"} | way.get("extract", {})
        raw["dtype"] = way.get("dtype", "float32")
        made[name] = RunContext(runs.loading.parse(raw, "test"))
        pipeline.run(made[name].config, "evaluate")
    return made


def log(context):
    return json.loads((context.config.folder / "train" / "unified" / "log.json").read_text())


def test_the_logits_are_as_large_as_those_of_real_models(made):
    model = load_model(made["float32"].config.pivot.ref)
    assert 90 < model(input_ids=torch.arange(100)[None]).logits.abs().max() < 110


@pytest.mark.parametrize("way", WAYS)
def test_losses_follow_those_of_float32(made, way):
    for ours, whole in zip(log(made[way]), log(made["float32"]), strict=True):
        assert ours["loss"] == pytest.approx(whole["loss"], rel=0.02)
        for name in ("loss/cross_entropy", "loss/forward_kl/neox", "loss/gld/neox", "weight/neox"):
            assert ours[name] == pytest.approx(whole[name], rel=0.05, abs=0.02), name


@pytest.mark.parametrize("name", ["pivot", "neox", "qwen"])
def test_cached_log_probabilities_in_float16_are_those_of_float32_within_its_steps(made, name):
    config = made["float32"].config
    half = config.model_copy(update={"name": "half", "extract": config.extract.model_copy(update={"dtype": "float16"})})
    pipeline.run(half, until="extract")
    rows, whole = (Cache(each.folder / "cache" / name).rows(made["float32"].ids) for each in (half, config))
    assert 0 < (rows.gold - whole.gold).abs().max() < STEP  # float16 has three bits more


@pytest.mark.parametrize("name", ["pivot", "neox", "qwen"])
def test_cached_log_probabilities_are_those_of_float32_within_the_steps_of_the_logits(made, name):
    pure, whole = (
        Cache(made[way].config.folder / "cache" / name).rows(made["float32"].ids) for way in ("pure", "float32")
    )
    assert (pure.gold - whole.gold).abs().mean() < STEP
    assert (pure.gold - whole.gold).abs().max() < 6 * STEP
    assert (pure.ids[:, 0] == whole.ids[:, 0]).float().mean() > 0.9


@pytest.mark.parametrize("way", WAYS)
def test_measured_quality_is_that_of_float32_within_three_hundredths(made, way):
    for name in ("pivot", "unified"):
        ours, whole = (
            Result.load(made[each].config.folder / "eval" / name / "heldout.json").samples for each in (way, "float32")
        )
        nll = [sum(sample.nll for sample in samples) for samples in (ours, whole)]
        assert nll[0] == pytest.approx(nll[1], rel=0.03)


def test_weights_keep_the_type_they_were_trained_in(made):
    for way, dtype in (("mixed", torch.float32), ("pure", torch.bfloat16)):
        weights = load_file(made[way].config.folder / "fused" / "model.safetensors")
        assert {weight.dtype for weight in weights.values()} == {dtype}
