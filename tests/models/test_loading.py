"""Models from folders and GGUF files: what identifies them, and what is refused."""

import shutil

import gguf
import numpy as np
import pytest
import torch
from transformers import AutoTokenizer

from fusion.models.loading import (
    ModelRef,
    count_parameters,
    load_config,
    load_model,
    load_tokenizer,
    model_fingerprint,
    vocabulary_size,
)
from tests.helpers import tiny


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny.folder("llama", tmp_path_factory.mktemp("models") / "llama")


def test_a_fingerprint_follows_the_contents_and_not_the_place(folder, tmp_path):
    copy = shutil.copytree(folder, tmp_path / "copy")
    (copy / "README.md").write_text("notes")
    assert model_fingerprint(ModelRef(str(copy))) == model_fingerprint(ModelRef(str(folder)))
    (copy / "chat_template.jinja").write_text("{{ messages }}")
    assert model_fingerprint(ModelRef(str(copy))) != model_fingerprint(ModelRef(str(folder)))


@pytest.mark.parametrize("kind", tiny.TOKENIZERS)
def test_a_tokenizer_that_is_loaded_without_the_models_configuration_is_the_same(kind, tmp_path):
    folder = tiny.folder(kind, tmp_path / kind)
    ours, theirs = load_tokenizer(ModelRef(str(folder))), AutoTokenizer.from_pretrained(folder)
    assert type(ours) is type(theirs)
    assert ours.backend_tokenizer.to_str() == theirs.backend_tokenizer.to_str()
    assert ours.special_tokens_map.items() >= theirs.special_tokens_map.items()


def test_a_damaged_tokenizer_configuration_is_named(folder, tmp_path):
    copy = shutil.copytree(folder, tmp_path / "copy")
    (copy / "tokenizer_config.json").write_text("{")
    with pytest.raises(ValueError, match=f"Cannot load the tokenizer of {copy}"):
        load_tokenizer(ModelRef(str(copy)))


def test_one_changed_weight_changes_the_fingerprint(folder, tmp_path):
    copy = shutil.copytree(folder, tmp_path / "copy")
    data = bytearray((copy / "model.safetensors").read_bytes())
    data[-1] ^= 1
    (copy / "model.safetensors").write_bytes(data)
    assert model_fingerprint(ModelRef(str(copy))) != model_fingerprint(ModelRef(str(folder)))


def test_parameters_are_counted_without_weights(folder, tmp_path):
    copy = shutil.copytree(folder, tmp_path / "copy", ignore=shutil.ignore_patterns("*.safetensors"))
    model = load_model(ModelRef(str(folder)))
    assert count_parameters(ModelRef(str(copy))) == sum(p.numel() for p in model.parameters())


def test_the_vocabulary_ends_where_the_tokenizer_does(folder):
    ref = ModelRef(str(folder))
    assert load_config(ref).vocab_size == vocabulary_size(load_tokenizer(ref)) + 5


@pytest.mark.parametrize("path", ["./absent", "/no/such/model", "absent.gguf", "~/no/such/folder/at/all"])
def test_a_local_path_that_does_not_exist_is_named(path):
    with pytest.raises(FileNotFoundError, match="does not exist"):
        load_model(ModelRef(path))


def test_a_hub_id_that_cannot_be_had_says_what_to_do():
    with pytest.raises(ValueError, match=r"Cannot load the weights of nobody/nothing .*--set pivot.path="):
        load_model(ModelRef("nobody/nothing"))


def rotary_pairs(weight, heads):
    """llama.cpp's order of the rows of q and k: the two halves of each head interleaved."""
    return weight.reshape(heads, 2, -1, weight.shape[1]).swapaxes(1, 2).reshape(weight.shape)


@pytest.fixture(scope="module")
def gguf_file(tmp_path_factory):
    """A tiny Llama with a byte-level tokenizer, written as GGUF, and the model it was made from."""
    torch.manual_seed(0)
    tokenizer, model = tiny.tokens.gpt(tiny.TEXTS), tiny.model("llama", 300)
    model.resize_token_embeddings(len(tokenizer))
    file = tmp_path_factory.mktemp("gguf") / "tiny.gguf"
    writer = gguf.GGUFWriter(file, "llama")
    config = model.config
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(256)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_rope_freq_base(10000.0)
    writer.add_vocab_size(len(tokenizer))
    ids = sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list([token for token, _ in ids])
    writer.add_token_types([3 if id in tokenizer.all_special_ids else 1 for _, id in ids])
    merges = tiny.json_of(tokenizer)["model"]["merges"]
    writer.add_token_merges([" ".join(merge) for merge in merges])
    writer.add_bos_token_id(tokenizer.eos_token_id)
    writer.add_eos_token_id(tokenizer.eos_token_id)
    names = {
        "model.embed_tokens.weight": "token_embd.weight", "model.norm.weight": "output_norm.weight",
        "lm_head.weight": "output.weight",
    }  # fmt: skip
    parts = {
        "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
        "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
        "mlp.down_proj": "ffn_down", "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm",
    }  # fmt: skip
    for layer in range(config.num_hidden_layers):
        names |= {f"model.layers.{layer}.{a}.weight": f"blk.{layer}.{b}.weight" for a, b in parts.items()}
    for name, weight in model.state_dict().items():
        array = weight.numpy().astype(np.float32)
        if "q_proj" in name or "k_proj" in name:
            heads = config.num_attention_heads if "q_proj" in name else config.num_key_value_heads
            array = rotary_pairs(array, heads)
        writer.add_tensor(names[name], np.ascontiguousarray(array))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file, model, tokenizer


def test_a_gguf_file_is_the_model_it_was_made_from_and_can_be_saved(gguf_file, tmp_path):
    file, original, tokenizer = gguf_file
    ref = ModelRef(str(file))
    loaded = load_model(ref)
    text = "how much is 12 + 30? naïve 北京"
    ids = load_tokenizer(ref)(text, add_special_tokens=False)["input_ids"]
    assert ids == tokenizer(text, add_special_tokens=False)["input_ids"]
    torch.testing.assert_close(
        loaded(torch.tensor([ids])).logits, original(torch.tensor([ids])).logits, atol=1e-4, rtol=1e-4
    )
    loaded.save_pretrained(tmp_path)
    again = load_model(ModelRef(str(tmp_path)))
    assert all(torch.equal(a, b) for a, b in zip(again.parameters(), loaded.parameters(), strict=True))


def test_a_gguf_file_is_known_by_its_contents(gguf_file, tmp_path):
    copy = shutil.copy(gguf_file[0], tmp_path / "other.gguf")
    assert model_fingerprint(ModelRef(str(copy))) == model_fingerprint(ModelRef(str(gguf_file[0])))
    assert count_parameters(ModelRef(str(copy))) == sum(p.numel() for p in gguf_file[1].parameters())
