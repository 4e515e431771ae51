"""Checkpoints that cannot be read or trained, and tokens without an embedding, are named before anything is computed."""

import json

import pytest
from transformers import AutoTokenizer

from fusion.models import quantized_checkpoints
from fusion.stages.context import RunContext
from fusion.stages.limits.refuse import refuse_limits, refuse_plan
from tests.helpers import runs

METHODS = {
    "gptq": ({"quant_method": "gptq", "bits": 4}, "optimum"),
    "awq": ({"quant_method": "awq", "bits": 4}, "gptqmodel"),
    "bitsandbytes": ({"load_in_4bit": True, "quant_method": "bitsandbytes"}, "bitsandbytes"),
    "old bitsandbytes": ({"load_in_8bit": True}, "bitsandbytes"),
    "compressed-tensors": ({"quant_method": "compressed-tensors"}, "compressed-tensors"),
    "hqq": ({"quant_method": "hqq"}, "hqq"),
    "aqlm": ({"quant_method": "aqlm"}, "aqlm"),
    "torchao": ({"quant_method": "torchao"}, "torchao"),
}


def change(folder, name, **values):
    file = runs.models(folder)[name] / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


def refused(folder, refuse=refuse_plan, **changes) -> str:
    with pytest.raises(ValueError) as error:
        refuse(RunContext(runs.config(folder, **changes)))
    return str(error.value)


def nothing_installed(monkeypatch):
    monkeypatch.setattr(quantized_checkpoints, "is_installed", lambda _package: False)


@pytest.mark.parametrize("kind", METHODS)
def test_a_quantized_source_names_the_package_that_it_lacks(tmp_path, monkeypatch, kind):
    nothing_installed(monkeypatch)
    given, package = METHODS[kind]
    change(tmp_path, "qwen", quantization_config=given)
    said = refused(tmp_path)
    assert said.startswith("source qwen (")
    assert f"needs the package {package}, which is not installed: pip install {package}" in said


def test_a_plan_for_another_machine_only_mentions_the_package(tmp_path, monkeypatch):
    nothing_installed(monkeypatch)
    change(tmp_path, "qwen", quantization_config={"quant_method": "hqq"})
    notes = refuse_plan(RunContext(runs.config(tmp_path, plan={"gpu": "h100"})))
    assert ["needs the package hqq" in note for note in notes] == [True]


@pytest.mark.parametrize(
    "given", [{"quant_method": "gptq", "bits": 4}, {"quant_method": "fp8"}, {"load_in_4bit": True}]
)
def test_a_quantized_pivot_cannot_be_trained(tmp_path, given):
    change(tmp_path, "pivot", quantization_config=given)
    said = refused(tmp_path, refuse_limits)
    assert said.startswith("pivot (")
    assert "such weights cannot be trained" in said
    assert "qlora" in said


def test_a_quantized_source_that_is_fine_tuned_first_cannot_be_trained(tmp_path):
    raw = runs.raw(tmp_path)
    change(tmp_path, "neox", quantization_config={"quant_method": "fp8"})
    sources = [raw["sources"][0] | {"fine_tune": {}}, raw["sources"][1]]
    assert "source neox" in refused(tmp_path, refuse_limits, sources=sources)


def test_a_method_that_transformers_does_not_know_is_refused(tmp_path):
    change(tmp_path, "qwen", quantization_config={"quant_method": "future"})
    assert "is quantized by future" in refused(tmp_path, refuse_limits)


def test_added_tokens_without_an_embedding_are_named_where_a_text_has_them(tmp_path):
    folder = runs.models(tmp_path)["qwen"]
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens([f"number {i}" for i in range(9)])
    tokenizer.save_pretrained(folder)
    said = refused(tmp_path, refuse_limits)
    assert said.startswith("source qwen (")
    assert "of 22 examples" in said
    assert "beyond its embedding, which has" in said
    assert "resize_token_embeddings" in said


def test_added_tokens_that_no_text_has_are_no_mistake(tmp_path):
    """Gemma 3's tokenizer has one token more than its text model."""
    folder = runs.models(tmp_path)["qwen"]
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens([f"<image{i}>" for i in range(9)], special_tokens=True)
    tokenizer.save_pretrained(folder)
    refuse_limits(RunContext(runs.config(tmp_path)))


def test_a_padding_token_without_an_embedding_is_named(tmp_path):
    folder = runs.models(tmp_path)["pivot"]
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens([f"<unused{i}>" for i in range(9)])
    tokenizer.add_special_tokens({"pad_token": "<|pad|>"})
    tokenizer.save_pretrained(folder)
    assert "its padding token '<|pad|>' has the id" in refused(tmp_path, refuse_limits)


def test_a_stop_that_is_no_token_is_named(tmp_path):
    raw = runs.raw(tmp_path)
    said = refused(tmp_path, refuse_limits, pivot=raw["pivot"] | {"stop": [5, 99999]})
    assert "stop has the token id 99999" in said


def test_what_an_export_would_refuse_after_training_is_said_before(tmp_path):
    raw = runs.raw(tmp_path)
    said = refused(tmp_path, refuse_limits, pivot=raw["pivot"] | {"stop": ["qqzzqq"]})
    assert "pivot.stop: 'qqzzqq' takes several tokens" in said


def test_settings_for_a_chat_template_that_is_not_there_are_refused(tmp_path):
    raw = runs.raw(tmp_path)
    said = refused(tmp_path, refuse_limits, pivot=raw["pivot"] | {"chat_template_kwargs": {"enable_thinking": False}})
    assert "chat_template_kwargs is for chat templates, and its tokenizer has none" in said


def test_a_batch_that_is_never_full_is_refused_where_others_are_dropped(tmp_path):
    training = {"dataloader_drop_last": True, "per_device_train_batch_size": 17}
    said = refused(tmp_path, refuse_limits, training=training)
    assert "training.dataloader_drop_last leaves nothing to learn from: there are 16 examples" in said
