"""Which differences between two config.json change what the same weights compute, for the forms that people's files have."""

import pytest

from fusion.merging.files.config_comparison import all_keys, compare_configs

LAYERS = {"num_hidden_layers": 2, "hidden_size": 16, "num_attention_heads": 2}
LLAMA, QWEN2, GEMMA2, GEMMA3 = ({"model_type": kind} | LAYERS for kind in ("llama", "qwen2", "gemma2", "gemma3_text"))
GPT2 = {"model_type": "gpt2"}
MOE = {"model_type": "qwen3_moe"} | LAYERS
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 1024}


def rope(theta, **others):
    return {"rope_parameters": {"rope_type": "default", "rope_theta": theta} | others}


def by_layer(local, full):
    return {
        "rope_parameters": {
            "sliding_attention": {"rope_type": "default", "rope_theta": local},
            "full_attention": {"rope_type": "default", "rope_theta": full},
        }
    }


SAME = {
    "theta under both its names": (LLAMA | {"rope_theta": 1e6}, LLAMA | rope(1000000)),
    "theta left to the default": (LLAMA, LLAMA | rope(10000.0)),
    "scaling under both its names": (
        LLAMA | {"rope_theta": 5e5, "rope_scaling": {"type": "linear", "factor": 2.0}},
        LLAMA | {"rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 5e5}},
    ),
    "no scaling": (LLAMA | {"rope_scaling": None}, LLAMA),
    "theta by type of layer": (GEMMA3 | {"rope_theta": 1e6, "rope_local_base_freq": 1e4}, GEMMA3 | by_layer(1e4, 1e6)),
    "eps in float32": (LLAMA | {"rms_norm_eps": 1e-5}, LLAMA | {"rms_norm_eps": 9.999999747378752e-06}),
    "heads left to the default": (QWEN2 | {"head_dim": 8}, QWEN2),
    "a window that is not used": (
        QWEN2 | {"use_sliding_window": False, "sliding_window": 4096, "max_window_layers": 1},
        QWEN2 | {"sliding_window": None},
    ),
    "a pattern and its layers": (
        GEMMA3 | {"sliding_window_pattern": 2},
        GEMMA3 | {"layer_types": ["sliding_attention", "full_attention"]},
    ),
    "bookkeeping": (
        LLAMA | {"torch_dtype": "float16", "eos_token_id": 2, "_name_or_path": "a", "use_cache": True},
        LLAMA | {"dtype": "bfloat16", "eos_token_id": [2, 3], "transformers_version": "5.0.0", "pad_token_id": 0},
    ),
    "few bits, which tensors have or not": (LLAMA, LLAMA | {"quantization_config": {"quant_method": "fp8"}}),
    "code beside one": (
        LLAMA | {"auto_map": {"AutoConfig": "mine.C"}, "rope_theta": 1e4},
        LLAMA | rope(10000.0),
    ),
    "nested and the same": (
        {"model_type": "gemma3", "text_config": {"rope_theta": 1e6, "torch_dtype": "float16"}},
        {"model_type": "gemma3", "text_config": {"dtype": "bfloat16"}},
    ),
}


@pytest.mark.parametrize(("base", "model"), SAME.values(), ids=SAME)
def test_what_the_architecture_reads_alike_is_no_difference(base, model):
    assert compare_configs(base, model) == []
    assert compare_configs(model, base) == []


REFUSED = {
    "theta as it is stored now": (LLAMA | rope(1e6), LLAMA | rope(1e4), {"rope_parameters.rope_theta"}),
    "theta under two names": (LLAMA | {"rope_theta": 1e6}, LLAMA | rope(1e4), {"rope_parameters.rope_theta"}),
    "theta against the default": (QWEN2 | rope(1e6), QWEN2, {"rope_parameters.rope_theta"}),
    "local theta": (
        GEMMA3,
        GEMMA3 | {"rope_local_base_freq": 2e4},
        {"rope_parameters.sliding_attention.rope_theta"},
    ),
    "theta in a part": (
        {"model_type": "gemma3", "text_config": {}},
        {"model_type": "gemma3", "text_config": {"rope_theta": 1e5}},
        {"text_config.rope_parameters.full_attention.rope_theta"},
    ),
    "scaling": (
        LLAMA,
        LLAMA | {"rope_scaling": {"rope_type": "linear", "factor": 2.0}},
        {"rope_parameters.rope_type", "rope_parameters.factor"},
    ),
    "activation": (LLAMA, LLAMA | {"hidden_act": "gelu"}, {"hidden_act"}),
    "activation by its other name": (GEMMA2, GEMMA2 | {"hidden_activation": "silu"}, {"hidden_activation"}),
    "activation of GPT-2": (GPT2, GPT2 | {"activation_function": "relu"}, {"activation_function"}),
    "eps": (LLAMA, LLAMA | {"rms_norm_eps": 1e-5}, {"rms_norm_eps"}),
    "eps of GPT-NeoX": ({"model_type": "gpt_neox"}, {"model_type": "gpt_neox", "layer_norm_eps": 1e-6}, {"layer_norm_eps"}),
    "scale of queries": (GEMMA2, GEMMA2 | {"query_pre_attn_scalar": 8}, {"query_pre_attn_scalar"}),
    "softcapping": (GEMMA2, GEMMA2 | {"final_logit_softcapping": None}, {"final_logit_softcapping"}),
    "window": (GEMMA2, GEMMA2 | {"sliding_window": 512}, {"sliding_window"}),
    "types of layers": (
        GEMMA3 | {"layer_types": ["sliding_attention", "full_attention"]},
        GEMMA3 | {"layer_types": ["full_attention", "full_attention"]},
        {"layer_types[0]"},
    ),
    "experts a token": (MOE, MOE | {"num_experts_per_tok": 2}, {"num_experts_per_tok"}),
    "weights of experts": (MOE, MOE | {"norm_topk_prob": True}, {"norm_topk_prob"}),
    "multipliers": (
        {"model_type": "granite"},
        {"model_type": "granite", "embedding_multiplier": 12.0, "logits_scaling": 8.0},
        {"embedding_multiplier", "logits_scaling"},
    ),
    "heads that the class does not declare": (QWEN2, QWEN2 | {"head_dim": 4}, {"head_dim"}),
    "length where rope is scaled by it": (
        LLAMA | {"rope_scaling": {"rope_type": "dynamic", "factor": 2.0}, "max_position_embeddings": 4096},
        LLAMA | {"rope_scaling": {"rope_type": "dynamic", "factor": 2.0}, "max_position_embeddings": 8192},
        {"max_position_embeddings"},
    ),
    "unknown architecture": ({"model_type": "mine", "a": 1}, {"model_type": "mine", "a": 1, "twist": 3}, {"twist"}),
    "remote code": (
        LLAMA | {"auto_map": {"AutoConfig": "mine.C"}, "twist": 1},
        LLAMA | {"auto_map": {"AutoConfig": "mine.C"}, "twist": 2},
        {"twist"},
    ),
}  # fmt: skip


@pytest.mark.parametrize(("base", "model", "keys"), REFUSED.values(), ids=REFUSED)
def test_what_changes_the_function_is_named_with_both_values(base, model, keys):
    found = [each for each in compare_configs(base, model) if each.matters]
    assert {each.key for each in found} == keys
    assert all(each.base != each.model for each in found)
    assert {each.key for each in compare_configs(model, base) if each.matters} == keys


SAID = {
    "length": (LLAMA, LLAMA | {"max_position_embeddings": 9}, {"max_position_embeddings"}),
    "length with a factor of its own": (
        LLAMA | {"rope_scaling": YARN, "max_position_embeddings": 4096},
        LLAMA | {"rope_scaling": YARN, "max_position_embeddings": 8192},
        {"max_position_embeddings"},
    ),
    "dropout": (LLAMA, LLAMA | {"attention_dropout": 0.1}, {"attention_dropout"}),
    "dropout of GPT-2": (GPT2, GPT2 | {"attn_pdrop": 0.0}, {"attn_pdrop"}),
    "losses of a router": (MOE, MOE | {"router_aux_loss_coef": 0.5}, {"router_aux_loss_coef"}),
    "keys that no code reads": (LLAMA, LLAMA | {"unsloth_version": "2025.1"}, {"unsloth_version"}),
    "parts that no code reads": (LLAMA, LLAMA | {"recipe": {"steps": 3}}, {"recipe.steps"}),
    "length of an unknown architecture": ({"model_type": "mine"}, {"model_type": "mine", "max_seq_len": 9}, {"max_seq_len"}),
}  # fmt: skip


@pytest.mark.parametrize(("base", "model", "keys"), SAID.values(), ids=SAID)
def test_what_does_not_change_the_function_is_listed_and_does_not_matter(base, model, keys):
    assert {(each.key, each.matters) for each in compare_configs(base, model)} == {(key, False) for key in keys}


def test_a_difference_is_named_by_its_key_by_a_part_of_its_path_and_by_all_of_it():
    [difference] = compare_configs(GEMMA3, GEMMA3 | {"rope_theta": 5.0})
    for key in ("rope_theta", "full_attention", "rope_parameters", "rope_parameters.full_attention.rope_theta"):
        assert difference.is_named_by(frozenset([key]))
    assert not difference.is_named_by(frozenset(["theta", "sliding_attention"]))
    assert {"rope_theta", "rope_parameters", "layer_types", "rms_norm_eps"} <= all_keys(GEMMA3)


def test_configurations_are_not_changed_by_being_compared():
    scaling = {"type": "linear", "factor": 2.0}
    config = LLAMA | {"rope_scaling": dict(scaling)}
    assert compare_configs(config, LLAMA)
    assert config == LLAMA | {"rope_scaling": scaling}
