"""Checkpoints whose tensors are not those of the model: each is refused by name, and what is no fault is not."""

import json
import logging

import pytest
import torch
from safetensors.torch import save_file
from transformers import AutoConfig, AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel, Qwen3Config, Qwen3ForCausalLM

from fusion.models import notices
from fusion.models.checkpoint_check import check_folder
from fusion.models.loading import ModelRef, check_checkpoint, load_model
from tests.helpers.families import EMBEDDING, HEAD, WEIGHTS, edit_weights, load_tensors, save_tiny_llama, set_config

LAYER = "model.layers.1."
UP = "model.layers.0.mlp.up_proj"


@pytest.fixture
def folder(tmp_path):
    save_tiny_llama(tmp_path / "m")
    return tmp_path / "m"


def rename(change):
    """Give every tensor the name that `change` makes of it."""

    def edit(tensors):
        for name in list(tensors):
            tensors[change(name)] = tensors.pop(name)

    return edit


def drop(*beginnings):
    """Leave out the tensors whose names begin so."""

    def edit(tensors):
        for name in [name for name in tensors if name.startswith(beginnings)]:
            del tensors[name]

    return edit


def put(name, *shape, dtype=torch.float32):
    """Add a tensor, or replace it."""
    return lambda tensors: tensors.update({name: torch.ones(shape, dtype=dtype)})


def fill_with_nan(name):
    return lambda tensors: tensors[name].fill_(float("nan"))


def to_fp8(tensors):
    for name in [name for name in tensors if "proj" in name]:
        tensors[name] = tensors[name].to(torch.float8_e4m3fn)
        tensors[f"{name}_scale"] = torch.ones(1)


def to_gptq(tensors):
    for name in [name for name in tensors if "proj" in name]:
        weight = tensors.pop(name)
        for part, dtype in (("qweight", torch.int32), ("qzeros", torch.int32), ("scales", torch.float16)):
            tensors[name.replace("weight", part)] = torch.ones(weight.shape, dtype=dtype)


def with_lora_inside(tensors):
    for name in [name for name in tensors if name.endswith("q_proj.weight")]:
        module = name.removesuffix(".weight")
        tensors[f"{module}.base_layer.weight"] = tensors.pop(name)
        tensors[f"{module}.lora_A.default.weight"] = torch.ones(2, 16)


def another_layer(tensors):
    for name in [name for name in tensors if name.startswith(LAYER)]:
        tensors[name.replace(LAYER, "model.layers.2.")] = tensors[name].clone()


REFUSED = {
    "prefix language_model.": (
        rename("language_model.{}".format),
        r"21 tensors that the model has are not in its files: lm_head.weight, model.embed_tokens.weight, \S+ and 18 more"
        r"(.|\n)*begin with `language_model.` where the model's begin with nothing",
    ),
    "prefix inside": (
        rename(lambda name: name.replace("model.", "model.language_model.")),
        r"begin with `model.language_model.` where the model's begin with `model.`",
    ),
    "prefix of torch.compile": (rename("_orig_mod.{}".format), "begin with `_orig_mod.`"),
    "prefix of DistributedDataParallel": (rename("module.{}".format), "begin with `module.`"),
    "names of another architecture": (
        rename(lambda name: name.replace("self_attn", "attention").replace("o_proj", "dense")),
        r"8 tensors that the model has are not in its files: model.layers.0.self_attn.k_proj.weight",
    ),
    "head and a layer missing": (
        drop(HEAD, LAYER),
        r"10 tensors that the model has are not in its files: lm_head.weight, model.layers.1.input_layernorm.weight",
    ),
    "head missing, untied": (drop(HEAD), r"1 tensor that the model has .*: lm_head.weight(.|\n)*tie_word_embeddings: true"),
    "embeddings missing": (drop(EMBEDDING), "embed_tokens.weight"),
    "a norm missing": (drop("model.norm"), r"model\.norm\.weight"),
    "wrong shape": (
        put(f"{UP}.weight", 20, 16),
        rf"{UP}.weight has shape \(20, 16\) in the files and \(24, 16\) in the model",
    ),
    "rows of tokens that the configuration lacks": (put(EMBEDDING, 40, 16), r"embed_tokens.weight has shape \(40, 16\)"),
    "an empty tensor of a sharded save": (put(f"{UP}.weight", 0), r"up_proj.weight has shape \(0,\)"),
    "extra bias": (put(f"{UP}.bias", 24), rf"1 tensor in its files would be left out .*{UP}.bias(.|\n)*mlp_bias"),
    "extra bias of the head": (put("lm_head.bias", 37), "left out of the model: lm_head.bias"),
    "norms of queries": (put("model.layers.0.self_attn.q_norm.weight", 8), "left out of the model: .*q_norm"),
    "more layers": (another_layer, r"9 tensors .*left out of the model: model.layers.2(.|\n)*num_hidden_layers 2"),
    "fp8 with scales": (to_fp8, r"14 tensors in its files would be left out(.|\n)*no quantization_config"),
    "GPTQ without its configuration": (to_gptq, r"14 tensors that the model has(.|\n)*no quantization_config"),
    "integers": (
        put(f"{UP}.weight", 24, 16, dtype=torch.int8),
        rf"{UP}.weight are stored as I8, and config.json has no quantization_config",
    ),
    "an adapter inside": (with_lora_inside, "merge_and_unload"),
    "NaN throughout": (fill_with_nan("model.norm.weight"), r"model.norm.weight is NaN throughout"),
}  # fmt: skip


@pytest.mark.parametrize("kind", REFUSED)
def test_tensors_that_are_not_the_models_are_refused_by_name(folder, kind):
    edit, message = REFUSED[kind]
    edit_weights(folder, edit)
    with pytest.raises(ValueError, match=message):
        load_model(ModelRef(str(folder)))


@pytest.mark.parametrize("kind", sorted(set(REFUSED) - {"NaN throughout"}))
def test_headers_alone_tell_the_same(folder, kind):
    edit, message = REFUSED[kind]
    edit_weights(folder, edit)
    with pytest.raises(ValueError, match=message):
        check_folder(folder)


def test_a_head_that_is_tied_may_be_absent_or_repeated(tmp_path):
    model = save_tiny_llama(tmp_path, tied=True)
    assert HEAD not in load_tensors(tmp_path)
    for edit in (lambda tensors: None, lambda tensors: tensors.update({HEAD: tensors[EMBEDDING].clone()})):
        edit_weights(tmp_path, edit)
        loaded = load_model(ModelRef(str(tmp_path)))
        assert all(torch.equal(a, b) for a, b in zip(loaded.parameters(), model.parameters(), strict=True))
        check_folder(tmp_path)


def test_embeddings_may_be_absent_where_the_tied_head_is_there(tmp_path):
    save_tiny_llama(tmp_path, tied=True)
    edit_weights(tmp_path, lambda tensors: tensors.update({HEAD: tensors.pop(EMBEDDING)}))
    load_model(ModelRef(str(tmp_path)))


def test_a_head_of_its_own_under_a_tied_configuration_is_refused(tmp_path):
    save_tiny_llama(tmp_path, tied=True)
    edit_weights(tmp_path, put(HEAD, 37, 16))
    with pytest.raises(ValueError, match="tie_word_embeddings: true, and the files hold a head that differs"):
        load_model(ModelRef(str(tmp_path)))


def test_modules_that_the_model_does_not_have_are_left_out_and_named_once(folder, caplog):
    def edit(tensors):
        for name in (
            "vision_tower.patch.weight",
            "model.multi_modal_projector.weight",
            "mtp.layers.0.weight",
            "v_head.bias",
        ):
            tensors[name] = torch.ones(3)

    edit_weights(folder, edit)
    with caplog.at_level(logging.WARNING, logger=notices.__name__):
        for _ in range(2):
            load_model(ModelRef(str(folder)))
    [record] = [record for record in caplog.records if record.name == notices.__name__]
    assert (
        "4 tensors belong to modules that the language model does not have: model.multi_modal_projector"
        in record.message
    )


def test_buffers_that_old_checkpoints_hold_are_no_fault(folder, caplog):
    def edit(tensors):
        for layer in (0, 1):
            tensors[f"model.layers.{layer}.self_attn.rotary_emb.inv_freq"] = torch.ones(4)
            tensors[f"model.layers.{layer}.self_attn.rotary_emb.cos_cached"] = torch.ones(4, 8)

    edit_weights(folder, edit)
    load_model(ModelRef(str(folder)))
    assert not [record for record in caplog.records if record.name == notices.__name__]


def test_layers_that_predict_further_tokens_are_no_fault(folder):
    set_config(folder, num_nextn_predict_layers=1)
    edit_weights(folder, another_layer)
    load_model(ModelRef(str(folder)))


def test_a_checkpoint_of_the_base_model_alone_fits_where_its_head_is_tied(tmp_path):
    made = GPT2LMHeadModel(GPT2Config(vocab_size=37, n_embd=16, n_layer=2, n_head=2))
    made.transformer.save_pretrained(tmp_path)
    edit_weights(tmp_path, lambda tensors: tensors.update({"h.0.attn.bias": torch.ones(1, 1, 8, 8, dtype=torch.bool)}))
    loaded = load_model(ModelRef(str(tmp_path)))
    assert all(torch.equal(a, b) for a, b in zip(loaded.parameters(), made.parameters(), strict=True))


def test_a_model_under_the_name_of_another_architecture_is_refused(tmp_path):
    sizes = {"vocab_size": 37, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "head_dim": 8}
    Qwen3ForCausalLM(Qwen3Config(**sizes, num_attention_heads=2, num_key_value_heads=1)).save_pretrained(tmp_path)
    set_config(tmp_path, model_type="llama", architectures=["LlamaForCausalLM"])
    with pytest.raises(ValueError, match=r"left out of the model: model.layers.0.self_attn.k_norm"):
        load_model(ModelRef(str(tmp_path)))


def test_experts_that_transformers_stacks_when_it_loads_are_no_fault(tmp_path):
    config = AutoConfig.for_model(
        "mixtral", vocab_size=37, hidden_size=16, intermediate_size=24, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=1, num_local_experts=2,
    )  # fmt: skip
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    load_model(ModelRef(str(tmp_path)))
    check_folder(tmp_path)
    edit_weights(tmp_path, drop("model.layers.0.block_sparse_moe.experts.1"))
    with pytest.raises(ValueError, match="experts"):
        load_model(ModelRef(str(tmp_path)))


def lose_a_shard(folder):
    tensors = load_tensors(folder)
    (folder / WEIGHTS).unlink()
    save_file(tensors, folder / "model-00001-of-00002.safetensors", metadata={"format": "pt"})
    names = dict.fromkeys(tensors, "model-00001-of-00002.safetensors") | {HEAD: "model-00002-of-00002.safetensors"}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": names}))


def keep_two_sets(folder):
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {HEAD: WEIGHTS}}))


def become_a_pointer(folder):
    (folder / WEIGHTS).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 4\n")


def cut_off(folder):
    (folder / WEIGHTS).write_bytes((folder / WEIGHTS).read_bytes()[:-100])


def become_an_adapter(folder):
    for name in (WEIGHTS, "config.json"):
        (folder / name).unlink()
    sit_beside_an_adapter(folder)


def sit_beside_an_adapter(folder):
    (folder / "adapter_config.json").write_text(
        json.dumps({"peft_type": "LORA", "base_model_name_or_path": "some/base"})
    )


def pickle(folder):
    torch.save(load_tensors(folder), folder / "pytorch_model.bin")
    (folder / WEIGHTS).unlink()


FILES = [
    (lose_a_shard, FileNotFoundError, "names the shard model-00002-of-00002.safetensors, which is not in the folder"),
    (keep_two_sets, ValueError, "has both model.safetensors and model.safetensors.index.json"),
    (become_a_pointer, ValueError, "is a Git LFS pointer: run git lfs pull"),
    (cut_off, ValueError, r"model.safetensors is damaged"),
    (become_an_adapter, ValueError, r"holds a LoRA adapter \(adapter_config.json\) of some/base, not a whole model"),
    (sit_beside_an_adapter, ValueError, "holds a LoRA adapter"),
    (pickle, ValueError, r"has pickled weights only \(pytorch_model.bin\).*save_pretrained"),
    (lambda folder: (folder / WEIGHTS).unlink(), FileNotFoundError, "found no weights"),
]


@pytest.mark.parametrize(("spoil", "error", "message"), FILES)
def test_files_that_are_no_whole_model_are_refused(folder, spoil, error, message):
    spoil(folder)
    for load in (load_model, check_checkpoint):
        with pytest.raises(error, match=message):
            load(ModelRef(str(folder)))
