"""Models as people merge them: what of two folders must agree, what is left out and said, and what the result carries."""

import json
import logging
import math

import pytest
import torch
from transformers import AutoTokenizer, pipeline

from fusion.merging.files.stream import merge
from fusion.merging.methods.registry import Linear
from fusion.models.auxiliary_files import config_with_dtype
from fusion.models.notices import mention_once
from tests.helpers.families import (
    EMBEDDING,
    HEAD,
    edit_weights,
    load_tensors,
    no_output_in,
    save_tiny_llama,
    set_config,
)
from tests.helpers.tiny_tokenizers import byte_level

THETA = {"rope_parameters": {"rope_type": "default", "rope_theta": 1e6}}


@pytest.fixture(autouse=True)
def heard_anew():
    """Each test hears the notes that another may have caused."""
    mention_once.cache_clear()


@pytest.fixture
def pair(tmp_path):
    """A base and a model grown from it."""
    base = save_tiny_llama(tmp_path / "base")
    save_tiny_llama(tmp_path / "m1", seed=1, like=base)
    return tmp_path / "base", tmp_path / "m1"


# Configurations


@pytest.mark.parametrize(
    ("key", "values"),
    [
        ("rope_parameters.rope_theta", THETA),
        ("hidden_act", {"hidden_act": "gelu"}),
        ("rms_norm_eps", {"rms_norm_eps": 1e-5}),
    ],
    ids=["rope", "activation", "eps"],
)
def test_weights_that_mean_another_function_are_refused_unless_the_key_is_allowed(pair, tmp_path, caplog, key, values):
    base, model = pair
    set_config(model, **values)
    name = key.rpartition(".")[2]
    with pytest.raises(
        ValueError, match=rf"m1: {key} is \S+, the base \S+base has \S+; --allow-different {name} takes"
    ):
        merge(base, [model], Linear(), tmp_path / "out")
    assert no_output_in(tmp_path)
    merge(base, [model], Linear(), tmp_path / "out", allow_different=[name])
    assert f"{key} " in caplog.text
    assert "; the result has the base's." in caplog.text
    assert json.loads((tmp_path / "out/config.json").read_text()) == json.loads((base / "config.json").read_text())
    assert f"allow_different:\n- {name}\n" in (tmp_path / "out/recipe.yaml").read_text()


def test_an_allowed_key_that_no_configuration_has_is_a_mistake(pair, tmp_path):
    with pytest.raises(ValueError, match="no config.json has rope_tehta; did you mean rope_theta"):
        merge(*pair[:1], [pair[1]], Linear(), tmp_path / "out", allow_different=["rope_tehta"])


def test_lengths_and_dropout_may_differ_and_the_bases_are_taken_and_said(pair, tmp_path, caplog):
    base, model = pair
    set_config(model, max_position_embeddings=64, attention_dropout=0.1, rope_theta=10000.0)
    with caplog.at_level(logging.WARNING):
        merge(base, [model], Linear(), tmp_path / "out")
    said = (
        "m1 has attention_dropout 0.1 (base: 0.0), max_position_embeddings 64 (base: 2048); the result has the base's."
    )
    assert said in caplog.text
    assert json.loads((tmp_path / "out/config.json").read_text())["max_position_embeddings"] == 2048


# Buffers

BUFFERS = {
    "model.layers.0.self_attn.rotary_emb.inv_freq": torch.arange(1, 5) / math.pi,
    "model.layers.1.self_attn.rotary_emb.inv_freq": torch.arange(1, 5) / math.pi,
    "model.layers.0.attn.bias": torch.ones(1, 1, 8, 8, dtype=torch.bool).tril(),
    "model.layers.0.attn.masked_bias": torch.tensor(-1e4),
    "model.embeddings.position_ids": torch.arange(8)[None],
}


def test_buffers_of_a_model_that_the_base_lacks_are_left_out_and_said(pair, tmp_path, caplog):
    base, model = pair
    edit_weights(model, lambda tensors: tensors.update(BUFFERS))
    merge(base, [model], Linear(), tmp_path / "out")
    assert load_tensors(tmp_path / "out").keys() == load_tensors(base).keys()
    assert (
        "m1: model.embeddings.position_ids and 4 more, computed from config.json, not in the base: left out"
        in caplog.text
    )


def test_buffers_of_the_base_are_kept_to_the_bit_whatever_the_models_have(pair, tmp_path, caplog):
    base, model = pair
    edit_weights(base, lambda tensors: tensors.update(BUFFERS))
    merge(base, [model], Linear(weights=[0.5], normalize=False), tmp_path / "lacking", dtype="bfloat16")
    assert "in the base alone: kept as it is" in caplog.text
    edit_weights(
        model,
        lambda tensors: tensors.update({name: 2 * value[..., :3] for name, value in BUFFERS.items() if value.dim()}),
    )
    merge(base, [model], Linear(weights=[0.5], normalize=False), tmp_path / "other", dtype="bfloat16")
    for out in ("lacking", "other"):
        merged = load_tensors(tmp_path / out)
        assert all(
            torch.equal(merged[name], value) and merged[name].dtype == value.dtype for name, value in BUFFERS.items()
        )


def test_a_bias_is_no_causal_mask(pair, tmp_path):
    base, model = pair
    edit_weights(model, lambda tensors: tensors.update({"model.layers.0.attn.bias": torch.ones(16)}))
    with pytest.raises(ValueError, match=r"model.layers.0.attn.bias is extra"):
        merge(base, [model], Linear(), tmp_path / "out")


@pytest.mark.parametrize("suffix", ["absmax", "qzeros", "weight_scale_inv", "SCB", "quant_state.bitsandbytes__nf4"])
def test_what_a_quantizer_left_is_refused_with_the_way_out(pair, tmp_path, suffix):
    base, model = pair
    name = f"model.layers.0.mlp.up_proj.{suffix}"
    edit_weights(model, lambda tensors: tensors.update({name: torch.ones(4)}))
    with pytest.raises(ValueError, match=rf"m1: its weights are of few bits, as {name} \(F32\); .*Dequantize it first"):
        merge(base, [model], Linear(), tmp_path / "out")
    with pytest.raises(ValueError, match=rf"m1: its weights are of few bits, as {name} "):
        merge(model, [base], Linear(), tmp_path / "out")


# Chat models grown from a base that cannot chat

TURNS = (
    "{% for m in messages %}<turn>{{ m.role }}\n{{ m.content }}</turn>\n{% endfor %}"
    "{% if add_generation_prompt %}<turn>assistant\n{% endif %}"
)
ENDED = {"eos_token_id": 0, "transformers_version": "4.40.0"}


def save_chain(folder, tokenizer, *, answer="y", end, rows):
    """A Llama whose next token depends on the last one alone: `answer`, then `end`, then `answer` again, for ever."""
    model = save_tiny_llama(folder, vocab_size=rows, bos_token_id=None, eos_token_id=0, max_position_embeddings=512)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            weight.fill_(1.0 if "norm" in name else 0.0)
        embedding, head = model.model.embed_tokens.weight, model.lm_head.weight
        first = tokenizer.convert_tokens_to_ids(answer)
        embedding[:, 0], head[first, 0] = 1.0, 30.0  # so likely that sampling takes it too
        embedding[first, 0], embedding[first, 1] = 0.0, 1.0
        if end < rows:
            head[end, 1] = 30.0
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    (folder / "generation_config.json").write_text(json.dumps(ENDED))
    return folder


def chat_tokenizer(folder):
    """The tokenizer of the base with two tokens more, and a template that ends turns with one of them, which is not eos."""
    byte_level(chat=False).save_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<turn>", "</turn>"]})
    tokenizer.chat_template = TURNS
    return tokenizer


@pytest.fixture(params=["as many rows", "more rows"])
def chat_family(tmp_path, request):
    """A base without chat template and two chat models of it, whose embeddings have room for their tokens and some more."""
    plain, chat = byte_level(chat=False), chat_tokenizer(tmp_path / "tokenizer")
    rows, end = len(plain) + 8, chat.convert_tokens_to_ids("</turn>")
    base_rows = rows if request.param == "as many rows" else len(plain)
    base = save_chain(tmp_path / "base", plain, end=end, rows=base_rows)
    return base, [save_chain(tmp_path / name, chat, end=end, rows=rows) for name in ("m1", "m2")]


def chatted(folder, max_new_tokens=12):
    """What a pipeline of plain transformers answers, with no argument that says how to ask or where to stop."""
    speak = pipeline("text-generation", model=str(folder), tokenizer=str(folder), dtype="float32", device="cpu")
    turns = [{"role": "user", "content": "say y"}]
    return speak(turns, max_new_tokens=max_new_tokens)[0]["generated_text"][-1]["content"]


def test_a_merge_that_takes_its_tokenizer_from_a_chat_model_chats_and_stops(chat_family, tmp_path, caplog):
    base, models = chat_family
    merge(base, models, Linear(), tmp_path / "out", vocabulary="pad", tokenizer_source=models[1])
    out, end = tmp_path / "out", AutoTokenizer.from_pretrained(models[1]).convert_tokens_to_ids("</turn>")
    assert chatted(out) == "y"
    for name in ("config.json", "generation_config.json"):
        assert json.loads((out / name).read_text())["eos_token_id"] == [0, end]
    for name in ("tokenizer.json", "chat_template.jinja"):
        assert (out / name).read_bytes() == (models[1] / name).read_bytes()
    assert load_tensors(out)["lm_head.weight"].shape[0] == json.loads((out / "config.json").read_text())["vocab_size"]
    assert load_tensors(out)["lm_head.weight"].shape[0] > end
    assert "chat" not in caplog.text
    assert not merge(base, models, Linear(), tmp_path / "out", vocabulary="pad", tokenizer_source=models[1]).created
    with pytest.raises(FileExistsError, match="another tokenizer_source"):
        merge(base, models, Linear(), tmp_path / "out", vocabulary="pad", tokenizer_source=models[0])


def test_a_base_without_a_template_under_chat_models_is_said_with_the_way_out(chat_family, tmp_path, caplog):
    base, models = chat_family
    merge(base, models, Linear(), tmp_path / "out", vocabulary="pad")
    assert "base has no chat template, and m1 and m2 can chat: the result cannot; --tokenizer-source" in caplog.text
    mention_once.cache_clear()
    caplog.clear()
    merge(models[0], models, Linear(), tmp_path / "out2", vocabulary="pad")
    assert not caplog.text


# Heads, code, and types


def test_a_head_of_its_own_does_not_go_into_a_model_that_ties_it(tmp_path):
    base = save_tiny_llama(tmp_path / "base", tied=True)
    edit_weights(tmp_path / "base", lambda tensors: tensors.update({HEAD: tensors[EMBEDDING].clone()}))
    save_tiny_llama(tmp_path / "m1", seed=1)
    assert base.config.tie_word_embeddings
    with pytest.raises(ValueError, match=r"m1: lm_head.weight is not its embedding, and the base \S+base ties the two"):
        merge(tmp_path / "base", [tmp_path / "m1"], Linear(), tmp_path / "out")
    edit_weights(tmp_path / "m1", lambda tensors: tensors.update({HEAD: tensors[EMBEDDING].clone()}))
    merge(tmp_path / "base", [tmp_path / "m1"], Linear(), tmp_path / "out")


def test_code_of_a_model_that_is_not_the_bases_is_refused_unless_allowed_and_the_bases_is_copied(pair, tmp_path):
    base, model = pair
    for folder in pair:
        set_config(folder, auto_map={"AutoModelForCausalLM": "modeling_mine.Mine"})
        (folder / "modeling_mine.py").write_text("raise SystemError('never run')")
    merge(base, [model], Linear(), tmp_path / "out")
    (model / "modeling_mine.py").write_text("raise SystemError('other code')")
    with pytest.raises(
        ValueError, match=r"m1: modeling_mine.py is other code than that of the base .*--allow-different auto_map"
    ):
        merge(base, [model], Linear(), tmp_path / "out2")
    merge(base, [model], Linear(), tmp_path / "out2", allow_different=["auto_map"])
    for out in ("out", "out2"):
        assert (tmp_path / out / "modeling_mine.py").read_bytes() == (base / "modeling_mine.py").read_bytes()


def test_the_type_of_the_result_stands_in_every_part_of_its_configuration():
    nested = {"torch_dtype": "float32", "text_config": {"dtype": "float32", "a": 1}, "vision_config": {"b": {}}}
    assert config_with_dtype(nested, "bfloat16") == {
        "torch_dtype": "bfloat16",
        "text_config": {"dtype": "bfloat16", "a": 1},
        "vision_config": {"b": {}},
    }
    assert config_with_dtype({"text_config": {"dtype": "float16"}}, "bfloat16")["dtype"] == "bfloat16"
    assert config_with_dtype(nested, None) is nested


def test_sixteen_bit_types_mix_and_the_result_has_the_bases(tmp_path):
    base = save_tiny_llama(tmp_path / "base", dtype=torch.bfloat16)
    save_tiny_llama(tmp_path / "m1", seed=1, like=base, dtype=torch.float16)
    save_tiny_llama(tmp_path / "m2", seed=2, like=base, dtype=torch.float32)
    merge(tmp_path / "base", [tmp_path / "m1", tmp_path / "m2"], Linear(), tmp_path / "out")
    merged, parts = load_tensors(tmp_path / "out"), [load_tensors(tmp_path / name) for name in ("m1", "m2")]
    exact = sum(part[EMBEDDING].double() for part in parts) / 2
    assert torch.equal(merged[EMBEDDING], exact.to(torch.bfloat16))
    assert json.loads((tmp_path / "out/config.json").read_text())["dtype"] == "bfloat16"


def test_ends_that_models_state_in_config_json_alone_are_added_there(pair, tmp_path):
    base, model = pair
    for folder, end in ((base, 2), (model, [2, 7])):
        (folder / "generation_config.json").unlink()
        set_config(folder, eos_token_id=end)
    merge(base, [model], Linear(), tmp_path / "out")
    assert json.loads((tmp_path / "out/config.json").read_text())["eos_token_id"] == [2, 7]
