"""The reports of `fusion inspect` on a small run: the numbers behind the tables, before and after fusion."""

from __future__ import annotations

import pytest
import torch
from rich.console import Console
from transformers import AutoModelForCausalLM

from fusion import pipeline
from fusion.analysis import concept_units, dissect_models, token_classes_by_source
from fusion.analysis.concepts import CONCEPTS
from fusion.report import inspect_tables
from fusion.stages.context import RunContext
from tests.helpers import runs


@pytest.fixture(scope="module")
def context(tmp_path_factory):
    training = {"max_steps": 30, "per_device_train_batch_size": 8, "learning_rate": 3e-3, "save_strategy": "no"}
    config = runs.config(
        tmp_path_factory.mktemp("reports"), baseline=False, training=training, objectives=[{"kind": "forward_kl"}]
    )
    pipeline.run(config, until="merge")
    return RunContext(config)


def shown(*what) -> str:
    console = Console(width=250)
    with console.capture() as capture:
        console.print(*what)
    return " ".join(capture.get().split())


def test_classes_compare_pivot_and_fused_model_with_each_source(context):
    found = token_classes_by_source(context, min_rows=3)
    assert list(found) == ["neox", "qwen"]
    for entries in found.values():
        assert len(entries) > 3
        assert all(each.count >= 3 and list(each.predictions) == ["source", "pivot", "fused"] for each in entries)
        assert [each.count for each in entries] == sorted((each.count for each in entries), reverse=True)
        nearer = [each.predictions["fused"].divergence < each.predictions["pivot"].divergence for each in entries]
        assert sum(nearer) > len(nearer) / 2  # thirty steps towards the sources
    table = shown(inspect_tables.classes_table("qwen", found["qwen"], context.tokenizers["pivot"]))
    assert "fused KL" in table
    assert "mean" in table


def test_what_the_pivot_says_of_a_token_is_what_the_model_itself_says(context):
    from fusion.analysis.source_effects import _batches
    from fusion.transforms.true_token import with_gold_entry

    model = AutoModelForCausalLM.from_pretrained(context.config.pivot.path)
    size = max(context.tokenizers["pivot"].get_vocab().values()) + 1
    each = token_classes_by_source(context, min_rows=3)["neox"][0]
    sums: dict[int, float] = {}
    for _, batch in _batches(context, 500, 16):
        source = batch["targets"].sources["neox"]
        with torch.no_grad():
            logits = model(batch["input_ids"], attention_mask=batch["attention_mask"]).logits[..., :size]
        said = logits.flatten(0, 1)[batch["targets"].hidden_index][source.pivot_index].double().softmax(-1)
        rows = with_gold_entry(source.mapped)[0]
        for n in (rows.token == each.token).nonzero()[:, 0].tolist():
            for id, value in zip(rows.ids[n].tolist(), rows.logprobs[n].tolist(), strict=True):
                if id >= 0 and value > -torch.inf:
                    sums[id] = sums.get(id, 0.0) + said[n, id].item() / each.count
    p = torch.tensor([*sums.values(), 1 - sum(sums.values())], dtype=torch.float64)
    assert each.predictions["pivot"].entropy == pytest.approx(-(p * p.log()).sum().item(), abs=1e-5)


@pytest.mark.parametrize("kind", ["mlp", "residual"])
def test_concepts_are_looked_for_in_the_same_places_of_both_models(context, kind):
    found = dissect_models(context, kind)
    assert list(found) == ["pivot", "fused"]
    pivot, fused = found.values()
    assert pivot.units == fused.units == 2 * (48 if kind == "mlp" else 32)
    assert pivot.places == fused.places == sum(prefix > 0 for t in context.encoded("pivot") for prefix in t.prefix)
    assert [f.prevalence for f in pivot.concepts] == [f.prevalence for f in fused.concepts]
    assert [f.concept for f in pivot.concepts] == list(CONCEPTS)
    assert all(f.best_iou <= f.max_iou + 1e-9 for model in found.values() for f in model.concepts)
    table = shown(inspect_tables.concepts_table(found, kind))
    assert "Too rare or too common here" in table
    assert "white space" in table


def test_what_is_read_of_a_unit_is_what_the_model_computes(context):
    model = AutoModelForCausalLM.from_pretrained(context.config.pivot.path).eval()
    ids = torch.tensor([[5, 9, 12, 7]])
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    with torch.no_grad():
        states = model(ids, output_hidden_states=True).hidden_states
        layers = concept_units._residual(model, inputs)
        assert all(torch.equal(a, b) for a, b in zip(layers, states[1:], strict=True))
        mlp, block = concept_units._mlp(model, inputs)[0], model.model.layers[0]
        before = block.post_attention_layernorm(states[0] + block.self_attn(
            block.input_layernorm(states[0]), position_embeddings=model.model.rotary_emb(states[0], torch.arange(4)[None]),
            attention_mask=torch.full((1, 1, 4, 4), -torch.inf).triu(1))[0])  # fmt: skip
        known = block.mlp.act_fn(block.mlp.gate_proj(before)) * block.mlp.up_proj(before)
    torch.testing.assert_close(mlp, known, atol=1e-5, rtol=1e-4)


def test_a_model_without_an_mlp_by_that_name_and_too_little_text_are_refused(context, tmp_path):
    model = AutoModelForCausalLM.from_pretrained(context.config.pivot.path)
    for layer in model.model.layers:
        layer.other, layer.mlp = layer.mlp, None
        del layer.mlp
    ids = torch.tensor([[5, 9]])
    with pytest.raises(ValueError, match=r"LlamaForCausalLM has no part called mlp .* use --concepts residual"):
        concept_units._mlp(model, {"input_ids": ids, "attention_mask": torch.ones_like(ids)})
    with pytest.raises(ValueError, match=r"places of text are too few to tell the 0.5% largest values .* it takes 200"):
        dissect_models(context, "residual", sample=2)


def test_without_caches_or_a_fused_model_that_is_said_or_left_out(tmp_path):
    context = RunContext(runs.config(tmp_path))
    with pytest.raises(ValueError, match="holds no complete cache"):
        token_classes_by_source(context, min_rows=3)
    assert list(dissect_models(context, "residual")) == ["pivot"]
