"""LoRA against the formula and against what the pivot was before; what an adapter cannot be."""

import sys

import pytest
import torch
from safetensors.torch import load_file

from fusion.models.loading import ModelRef, load_model
from fusion.stages import train
from fusion.stages.context import RunContext
from fusion.training.adapter import LoRA, QLoRA, check_pivot, load_pivot, merge_adapter
from tests.helpers import runs, tiny


def load_in_float32(ref, adapter):
    return load_pivot(ref, "float32", "cpu", adapter)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A context whose baseline was trained with an adapter, and its folder."""
    folder = tmp_path_factory.mktemp("adapter")
    adapter = {"kind": "lora", "r": 3, "lora_alpha": 6, "target_modules": ["q_proj", "down_proj"]}
    context = RunContext(runs.config(folder, adapter=adapter))
    train.train_one(context, "fine-tuned", [], [])
    return context, context.config.folder / "train" / "fine-tuned"


def test_the_merged_model_is_the_pivot_plus_the_scaled_product(trained):
    context, folder = trained
    before, after = (load_file(f"{place}/model.safetensors") for place in (context.config.pivot.path, folder / "model"))
    adapter = load_file(folder / "adapter/adapter_model.safetensors")
    assert before.keys() == after.keys()
    changed = {name for name, weight in after.items() if not torch.equal(weight, before[name])}
    assert changed == {name for name in before if "q_proj" in name or "down_proj" in name}
    for name in changed:
        a, b = (adapter[f"base_model.model.{name.removesuffix('.weight')}.lora_{x}.weight"] for x in "AB")
        assert a.shape[0] == 3
        torch.testing.assert_close(after[name], before[name] + 6 / 3 * b @ a)


def test_only_the_adapter_is_trained(tmp_path):
    model = load_pivot(ModelRef(str(tiny.folder("llama", tmp_path))), "float32", "cpu", LoRA(r=2))
    trained = {name for name, weight in model.named_parameters() if weight.requires_grad}
    assert trained
    assert all(".lora_" in name for name in trained)
    assert not any("lm_head" in name for name in trained)


def test_an_untrained_adapter_changes_nothing(tmp_path):
    ref = ModelRef(str(tiny.folder("llama", tmp_path / "pivot")))
    load_pivot(ref, "float32", "cpu", LoRA()).save_pretrained(tmp_path / "adapter")
    merge_adapter(ref, "float32", tmp_path / "adapter", tmp_path / "merged")
    merged = load_model(ModelRef(str(tmp_path / "merged"))).state_dict()
    assert all(torch.equal(weight, merged[name]) for name, weight in load_model(ref).state_dict().items())


def test_an_adapter_on_the_head_merges_into_the_model_that_was_trained(tmp_path):
    """Of a head with a weight of its own; the logits of both are compared."""
    ref = ModelRef(str(tiny.folder("llama", tmp_path / "pivot")))
    trained = load_pivot(ref, "float32", "cpu", LoRA(r=2, target_modules=["q_proj", "lm_head"])).eval()
    torch.manual_seed(0)
    for name, weight in trained.named_parameters():
        if ".lora_B" in name:
            torch.nn.init.normal_(weight)
    trained.save_pretrained(tmp_path / "adapter")
    merge_adapter(ref, "float32", tmp_path / "adapter", tmp_path / "merged")
    ids = torch.arange(5, 40)[None]
    with torch.no_grad():
        wanted, found = trained(ids).logits, load_model(ModelRef(str(tmp_path / "merged")))(ids).logits
        before = load_model(ref)(ids).logits
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)
    assert (before - wanted).abs().max() > 0.1


@pytest.mark.parametrize("start", [lambda ref, adapter: check_pivot(ref, adapter, None), load_in_float32])
def test_a_head_that_is_the_embedding_too_is_refused_before_it_is_trained(tmp_path, start):
    ref = ModelRef(str(tiny.folder("qwen2", tmp_path)))
    with pytest.raises(
        ValueError, match=r"target_modules has lm_head, and in the pivot lm_head and model\.embed_tokens are one weight"
    ):
        start(ref, LoRA(target_modules=["q_proj", "lm_head"]))
    start(ref, LoRA(target_modules=["q_proj"]))


def test_layers_that_do_not_exist_are_named(tmp_path):
    ref = ModelRef(str(tiny.folder("llama", tmp_path)))
    with pytest.raises(ValueError, match=r"no linear layer q_prox; it has down_proj, gate_proj, k_proj, lm_head"):
        load_pivot(ref, "float32", "cpu", LoRA(target_modules=["q_prox"]))


@pytest.mark.skipif(torch.cuda.is_available(), reason="asks for what a GPU can do")
def test_qlora_needs_a_gpu(tmp_path):
    with pytest.raises(ValueError, match="adapter.kind is qlora, which needs a GPU, and there is none; use lora"):
        load_pivot(ModelRef(str(tmp_path)), "float32", "cpu", QLoRA())


def test_an_adapter_without_peft_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(ValueError, match="pip install 'logit-fusion\\[adapters\\]'"):
        load_pivot(ModelRef(str(tmp_path)), "float32", "cpu", LoRA())
