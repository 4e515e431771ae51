"""Trainings of students of few bits: what is computed with, what is trained, what is written, and what is refused."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from fusion import pipeline
from fusion.config.loading import ConfigError
from fusion.models.loading import ModelRef, load_model
from fusion.stages import train
from fusion.stages.context import RunContext
from fusion.training import quantized_weights
from fusion.training.quantization_aware import (
    CODES,
    Binary,
    Int4,
    Ternary,
    finalize_weights,
    quantize_layers,
    read_sizes,
)
from tests.helpers import runs, tiny

LAYERS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
OBJECTIVES = [{"kind": "cross_entropy", "weight": 0.5}, {"kind": "forward_kl", "weight": 0.5}]


def config(folder, **changes):
    return runs.config(
        folder, **{"quantization_aware_training": {"kind": "ternary"}, "objectives": OBJECTIVES} | changes
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("quantizer")


@pytest.fixture(scope="module")
def finished(folder):
    """A whole run with ternary weights."""
    return pipeline.run(config(folder), "evaluate")


@pytest.fixture
def model(folder):
    return tiny.model("llama")


def is_linear(name):
    return any(layer in name for layer in LAYERS)


@pytest.mark.parametrize("name", ["fused", "train/unified/model", "train/fine-tuned/model"])
def test_the_model_and_the_baseline_are_ordinary_folders_of_ternary_weights(finished, name):
    model = AutoModelForCausalLM.from_pretrained(finished / name)
    weights = dict(model.named_parameters())
    linear = {n: w for n, w in weights.items() if is_linear(n)}
    assert len(linear) == 14
    assert all(len(row.unique()) <= 3 for weight in linear.values() for row in weight)
    assert all(len(weights[n].unique()) > 100 for n in weights if "embed" in n or "lm_head" in n)
    assert set(load_file(finished / name / "model.safetensors")) == set(load_model_keys(finished))


def load_model_keys(finished):
    return load_file(finished.parent.parent / "pivot" / "model.safetensors")


def test_the_codes_give_exactly_the_written_weights(finished):
    weights, codes = (
        load_file(finished / "fused/model.safetensors"),
        quantized_weights.load_weights(finished / "fused" / CODES),
    )
    assert {f"{name}.weight" for name in codes} == {name for name in weights if is_linear(name)}
    for name, weight in codes.items():
        assert torch.equal(weight, weights[f"{name}.weight"])


def test_the_size_is_two_bits_a_weight_and_the_scales(finished):
    found = read_sizes(finished / "fused")
    weights = load_file(finished / "fused/model.safetensors")
    linear = [weight for name, weight in weights.items() if is_linear(name)]
    assert found["kind"] == "ternary"
    assert found["quantized"] == sum(weight.numel() for weight in linear)
    assert found["parameters"] == sum(p.numel() for p in load_model(ModelRef(str(finished / "fused"))).parameters())
    assert found["bytes_before"] == 4 * found["quantized"]
    stored = load_file(finished / "fused" / CODES)
    assert sum(t.nbytes for t in stored.values()) == sum(w.numel() / 4 + 4 * len(w) for w in linear)
    assert 0 < found["bytes"] - sum(t.nbytes for t in stored.values()) < 5000  # names and shapes


def test_the_evaluated_model_is_the_quantized_one(finished):
    assert (finished / "eval/unified/heldout.json").exists()
    assert len(json.loads((finished / "train/unified/log.json").read_text())) == 4


def test_full_weights_are_trained_behind_the_quantized_ones(finished):
    (checkpoint,) = finished.glob("train/unified/checkpoint-4")
    kept = load_file(checkpoint / "model.safetensors")
    full = {n: w for n, w in kept.items() if n.endswith("weight.original")}
    assert len(full) == 14
    written = load_file(finished / "train/unified/model/model.safetensors")
    for name, weight in full.items():
        assert len(weight.unique()) > 100
        plain = name.replace("parametrizations.weight.original", "weight")
        assert torch.equal(Ternary().values(weight), written[plain])


def test_a_killed_training_ends_with_the_same_weights(folder, finished, tmp_path):
    shutil.copytree(finished, tmp_path / "small")
    train = tmp_path / "small/train/unified"
    for gone in ("model", "checkpoint-4"):
        shutil.rmtree(train / gone)
    for gone in ("done.json", "log.json"):
        (train / gone).unlink()
    again = pipeline.run(config(folder, runs=str(tmp_path)), "train")
    for file in ("model.safetensors", str(CODES)):
        assert (again / "train/unified/model" / file).read_bytes() == (
            finished / "train/unified/model" / file
        ).read_bytes()


def test_an_untrained_student_computes_with_the_quantized_pivot(model):
    weights = {name: p.detach().clone() for name, p in model.named_parameters()}
    quantize_layers(model, Ternary())
    ids = torch.arange(7)[None]
    with torch.no_grad():
        seen = model(input_ids=ids).logits
    finalize_weights(model)
    with torch.no_grad():
        assert torch.equal(model(input_ids=ids).logits, seen)
    for name, weight in model.named_parameters():
        assert torch.equal(weight, Ternary().values(weights[name]) if is_linear(name) else weights[name])


def test_the_gradient_of_a_full_weight_is_that_of_the_quantized_one(model):
    copy = tiny.model("llama")
    quantize_layers(model, Ternary())
    quantize_layers(copy, Ternary())
    finalize_weights(copy)
    ids = torch.arange(7)[None]
    for each in (model, copy):
        each(input_ids=ids).logits.square().sum().backward()
    plain = dict(copy.named_parameters())
    for name, weight in model.named_parameters():
        torch.testing.assert_close(weight.grad, plain[name.replace("parametrizations.weight.original", "weight")].grad)


@pytest.mark.parametrize(
    "quantizer",
    [
        Binary(),
        Int4(),
        Int4(granularity=8),
        Ternary(granularity=8),
        Ternary(granularity="tensor"),
        Ternary(threshold=0),
    ],
)
def test_other_students_settle_to_what_their_codes_say(model, quantizer, tmp_path):
    quantize_layers(model, quantizer)
    layers = finalize_weights(model)
    assert len(layers) == 14
    quantized_weights.save_codes(tmp_path / "codes", layers, quantizer.bits)
    again, weights = quantized_weights.load_weights(tmp_path / "codes"), dict(model.named_parameters())
    assert all(torch.equal(weight, weights[f"{name}.weight"]) for name, weight in again.items())
    if quantizer.granularity == "row":
        assert max(len(row.unique()) for row in weights["model.layers.0.mlp.up_proj.weight"]) <= 1 << quantizer.bits


def test_sixteen_bit_weights_stay_sixteen_bit_and_are_told_by_their_codes(model, tmp_path):
    model = model.to(torch.bfloat16)
    quantize_layers(model, Ternary())
    layers = finalize_weights(model)
    quantized_weights.save_codes(tmp_path / "codes", layers, 2)
    weights = dict(model.named_parameters())
    for name, weight in quantized_weights.load_weights(tmp_path / "codes").items():
        assert weights[f"{name}.weight"].dtype == torch.bfloat16
        assert torch.equal(weight.bfloat16(), weights[f"{name}.weight"])


def test_layers_can_be_kept_and_the_head_and_the_embeddings_taken_in(model):
    quantize_layers(model, Ternary(modules_to_not_convert=["o_proj", "down_proj"], lm_head=True, embeddings=True))
    names = set(finalize_weights(model))
    assert {"lm_head", "model.embed_tokens"} < names
    assert len(names) == 10 + 2
    assert not any(name.endswith(("o_proj", "down_proj")) for name in names)


def test_a_head_that_is_the_embedding_is_refused():
    with pytest.raises(
        ValueError,
        match="quantization_aware_training.lm_head and .embeddings: Qwen2ForCausalLM has one weight for both",
    ):
        quantize_layers(tiny.model("qwen2"), Ternary(lm_head=True))


def test_a_group_that_does_not_fill_a_row_is_named(model):
    with pytest.raises(
        ValueError,
        match=r"training.granularity is 5: rows of 32 weights .* \(model.layers.0.*\); take a divisor, or row",
    ):
        quantize_layers(model, Ternary(granularity=5))


def test_a_layer_that_is_not_there_is_named(model):
    with pytest.raises(
        ValueError,
        match="modules_to_not_convert: there is no linear layer o_prox; there are down_proj, gate_proj",
    ):
        quantize_layers(model, Ternary(modules_to_not_convert=["o_prox"]))


def test_a_model_without_a_layer_to_quantize_is_refused(model):
    with pytest.raises(
        ValueError,
        match="kind is int4, and LlamaForCausalLM has no linear layer to quantize",
    ):
        quantize_layers(model, Int4(modules_to_not_convert=list(LAYERS)))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"adapter": {"kind": "lora"}},
            "kind ternary trains .* own weights, adapter.kind lora leaves them",
        ),
        (
            {"engine": {"kind": "zero3"}},
            "needs the whole of each weight, which engine.kind zero3 shards; use ddp or zero2",
        ),
        ({"engine": {"kind": "fsdp2"}}, "engine.kind fsdp2 shards"),
        (
            {"strategies": ["unified", "pairwise"]},
            r"a merge of quantized models is not quantized; use strategies: \[unified\]",
        ),
        (
            {"quantization_aware_training": {"kind": "terniary"}},
            r"quantization_aware_training.kind: there is no terniary; did you mean ternary\?",
        ),
        (
            {"quantization_aware_training": {"kind": "ternary", "granularity": "column"}},
            "quantization_aware_training.granularity",
        ),
        (
            {"quantization_aware_training": {"kind": "ternary", "granularity": 0}},
            "quantization_aware_training.granularity",
        ),
        (
            {"quantization_aware_training": {"kind": "ternary", "threshold": 1.0}},
            "threshold.*less than 1",
        ),
    ],
)
def test_what_does_not_go_together_is_refused_when_the_configuration_is_read(folder, changes, message):
    with pytest.raises(ConfigError, match=message):
        config(folder, **changes)


def test_a_training_with_another_student_is_refused(folder, finished):
    context = RunContext(config(folder, quantization_aware_training={"kind": "binary"}))
    with pytest.raises(ValueError, match="quantization_aware_training .kind: .ternary. there, .binary. here"):
        train.train_one(context, "fine-tuned", [], [])
