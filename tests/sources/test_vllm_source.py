"""vLLM as a backend, against a module that mimics its offline engine on a tiny real model, and against transformers' rows."""

import dataclasses
import sys

import pytest
import torch

from fusion.models.loading import ModelRef
from fusion.sources import VLLM, Transformers
from fusion.sources.vllm_source import token_logprobs
from tests.helpers import serving, tiny
from tests.helpers.families import edit_weights


@pytest.fixture
def vllm(monkeypatch):
    module = serving.vllm_module()
    monkeypatch.setitem(sys.modules, "vllm", module)
    return module


def test_rows_are_those_of_transformers_but_for_the_moments(vllm, tiny_source):
    _, wanted, texts, expected = tiny_source
    heard = []
    rows = VLLM().open(wanted).rows(texts, heard.append)
    for name in ("logprobs", "gold"):
        torch.testing.assert_close(getattr(rows, name), getattr(expected, name), atol=1e-5, rtol=0)
    for name in ("ids", "prefix", "example", "token"):
        assert torch.equal(getattr(rows, name), getattr(expected, name))
    assert rows.mean.isnan().all()
    assert rows.std.isnan().all()
    assert sum(heard) == sum(len(text.input_ids) for text in texts)


def test_the_engine_is_started_for_what_is_asked(vllm, tiny_source):
    folder, wanted, texts, _ = tiny_source
    VLLM(tensor_parallel_size=2, max_model_len=100, engine={"quantization": "awq"}).open(wanted).rows(texts)
    asked = serving.LLM.made[0].arguments
    assert (asked["model"], asked["dtype"], asked["max_logprobs"]) == (str(folder), "float32", 6)
    assert (asked["tensor_parallel_size"], asked["max_model_len"], asked["quantization"]) == (2, 100, "awq")


def test_a_checkpoint_with_other_names_is_refused_before_the_engine_starts(vllm, tmp_path, tiny_source):
    _, wanted, _, _ = tiny_source
    folder = tiny.folder("llama", tmp_path / "renamed")
    edit_weights(folder, lambda tensors: tensors.update({"lm_head.bias": tensors.pop("lm_head.weight")[0]}))
    before = len(serving.LLM.made)
    with pytest.raises(ValueError, match=r"not in its files: lm_head.weight"):
        VLLM().open(dataclasses.replace(wanted, ref=ModelRef(str(folder))))
    assert len(serving.LLM.made) == before


def test_lists_of_dictionaries_are_read_as_flat_ones_are(tiny_source):
    folder, _, texts, _ = tiny_source
    listed = serving.prompt_logprobs(serving.LLM(str(folder)).model, texts[1].input_ids, 5)
    flat = serving.FlatLogprobs()
    for entries in listed:
        flat.append(entries)
    assert list(token_logprobs(listed)) == list(token_logprobs(flat))
    assert next(iter(token_logprobs(listed))) == {}


def test_padded_ids_count_as_mass_outside_the_entries(vllm, tmp_path, tiny_source):
    _, wanted, texts, _ = tiny_source
    folder = tiny.folder("gpt_neox", tmp_path / "padded", padding=40)
    wanted = dataclasses.replace(wanted, ref=ModelRef(str(folder)))
    rows, masked = VLLM().open(wanted).rows(texts), Transformers().open(wanted).rows(texts)
    assert int(rows.ids.max()) < len(wanted.tokenizer)
    assert (rows.gold < masked.gold).all()  # the padded ids have taken their share


def test_an_engine_that_changes_the_prompt_is_refused(vllm, tiny_source):
    _, wanted, texts, _ = tiny_source
    source = VLLM().open(wanted)
    source.engine.changes = lambda ids: ids[1:]
    with pytest.raises(ValueError, match=r"vLLM answered for \d+ tokens, not for the \d+ it was given"):
        source.rows(texts)


@pytest.mark.parametrize(("backend", "message"), [
    (VLLM(engine={"max_logprobs": 3, "model": "x"}), "backend.engine sets max_logprobs, model, which the run sets itself"),
])  # fmt: skip
def test_settings_of_the_run_are_not_the_engines(vllm, tiny_source, backend, message):
    with pytest.raises(ValueError, match=message):
        backend.open(tiny_source[1])


def test_without_vllm_the_way_out_is_named(tiny_source, monkeypatch):
    monkeypatch.setitem(sys.modules, "vllm", None)
    with pytest.raises(
        ValueError, match=r"backend kind: vllm, and vllm cannot be imported .* or use kind: transformers"
    ):
        VLLM().open(tiny_source[1])


def test_it_does_not_run_under_a_launcher(vllm, tiny_source, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ValueError, match="vLLM starts its own processes and cannot run under torchrun"):
        VLLM().open(tiny_source[1])
    assert serving.LLM.made == []


@pytest.mark.parametrize(("change", "message"), [
    (lambda value: value + 30, r"vLLM's answer for text 0: row 0 .*are no natural-log probabilities: the highest is"),
    (lambda value: value * 8, "row 0 .* all other tokens of the vocabulary cannot have the rest"),
])  # fmt: skip
def test_numbers_that_are_no_log_probabilities_are_refused(vllm, tiny_source, monkeypatch, change, message):
    def changed(model, ids, k):
        listed = prompt_logprobs(model, ids, k)
        return [entries and {id: serving.Logprob(change(e.logprob)) for id, e in entries.items()} for entries in listed]

    prompt_logprobs = serving.prompt_logprobs
    monkeypatch.setattr(serving, "prompt_logprobs", changed)
    with pytest.raises(ValueError, match=message):
        VLLM().open(tiny_source[1]).rows(tiny_source[2])
