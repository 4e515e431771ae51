"""Packed training against padded training, and models that cannot keep packed texts apart."""

import json

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from fusion import pipeline
from fusion.models.head import run_to_head
from fusion.stages import train
from fusion.stages.context import RunContext
from fusion.stages.lineage import lineage
from fusion.training import packing
from tests.helpers import runs, tiny

KINDS = list(tiny.SHAPES)


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("kind", KINDS)
def test_packed_texts_do_not_see_each_other(kind, attention):
    model = tiny.model(kind)
    if kind == "gemma2":  # soft-caps its attention, which sdpa cannot do
        attention = "eager"
    model.set_attn_implementation(attention)
    packing.check_packed_texts_stay_apart(model)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_model_that_mixes_packed_texts_is_refused(monkeypatch, dtype):
    def without_positions(model, **inputs):
        return run_to_head(model, input_ids=inputs["input_ids"])

    monkeypatch.setattr(packing, "run_to_head", without_positions)
    with pytest.raises(ValueError, match="does not keep packed texts apart.*Set packing to false"):
        packing.check_packed_texts_stay_apart(tiny.model("llama").to(dtype))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_model_that_counts_positions_on_is_refused(monkeypatch, dtype):
    def further(model, **inputs):
        at = inputs.get("position_ids")
        return run_to_head(
            model,
            **(
                inputs
                if at is None
                else inputs | {"position_ids": at + 9 * (at.diff(prepend=at[:, :1]) < 0).cumsum(-1)}
            ),
        )

    model = AutoModelForCausalLM.from_config(
        AutoConfig.for_model("gpt2", vocab_size=64, n_embd=32, n_layer=2, n_head=2)
    )
    monkeypatch.setattr(packing, "run_to_head", further)
    with pytest.raises(ValueError, match="does not keep packed texts apart"):
        packing.check_packed_texts_stay_apart(model.eval().to(dtype))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("kind", KINDS)
def test_packed_texts_are_told_apart_in_16_bits_too(kind, dtype):
    packing.check_packed_texts_stay_apart(tiny.model(kind).to(dtype))
    with torch.autocast("cpu", dtype):
        packing.check_packed_texts_stay_apart(tiny.model(kind))


def test_a_line_is_limited_where_attention_computes_its_whole_square():
    model = tiny.model("llama")
    assert packing.max_line_length(model, 128) == 128
    model.config._attn_implementation = "flash_attention_2"
    assert packing.max_line_length(model, 128) > 10**9


def test_packing_changes_no_loss_and_no_weight_beyond_rounding(tmp_path):
    logs, weights = [], []
    for packs in (False, True):
        context = RunContext(runs.config(tmp_path, name=f"pack-{packs}", packing=packs, baseline=False))
        context.record.update(**lineage(context))
        caches = pipeline.extract(context)
        sources = [train.training_source(context, name, cache) for name, cache in caches.items() if name != "pivot"]
        assert train.train_one(context, "unified", sources, ["neox", "qwen"], caches["pivot"])
        folder = context.config.folder / "train/unified"
        logs.append(json.loads((folder / "log.json").read_text()))
        weights.append(dict(tiny.AutoModelForCausalLM.from_pretrained(folder / "model").named_parameters()))
    assert len(logs[0]) == 4
    for padded, packed in zip(*logs, strict=True):
        for name in padded.keys() - {"epoch", "grad_norm"}:
            assert packed[name] == pytest.approx(padded[name], rel=2e-3), name
    for name, weight in weights[0].items():
        torch.testing.assert_close(weights[1][name], weight, atol=1e-3, rtol=1e-2)
