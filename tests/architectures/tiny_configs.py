"""Tiny configurations of any architecture of transformers: its default one with every size made small."""

from __future__ import annotations

import copy
import re
from typing import Any

from transformers.models.auto.configuration_auto import CONFIG_MAPPING

VOCABULARY = 448
"""Rows of each output layer: the tokens of `tiny.TOKENIZERS["gpt"]`, and some that belong to none."""

_LAYERS = """num_hidden_layers n_layer n_layers num_layers num_blocks decoder_layers encoder_layers num_decoder_layers
    num_encoder_layers"""
_HEADS = """num_attention_heads n_head n_heads num_heads attention_heads decoder_attention_heads encoder_attention_heads
    num_encoder_attention_heads num_decoder_attention_heads linear_num_heads linear_num_key_heads
    linear_num_value_heads swa_num_attention_heads index_n_heads num_index_heads"""
_KV_HEADS = """num_key_value_heads num_kv_heads swa_num_key_value_heads num_query_groups num_global_key_value_heads"""
_WIDTHS = """hidden_size d_model n_embd dim_model emb_dim embedding_dim embedding_size input_embedding_size
    output_embedding_size lru_width word_embed_proj_dim ple_embed_dim shape_embed_dim pronunciation_embed_dim
    adapter_in_dim adapter_out_dim adapter_input_size hidden_size_global"""
_HEAD_DIMS = """head_dim swa_head_dim v_head_dim index_head_dim linear_head_dim linear_key_head_dim linear_value_head_dim
    kv_channels d_head d_kv dim_head qk_head_dim global_head_dim attention_head_size nope_head_dim local_head_dim"""
_INNER = """intermediate_size moe_intermediate_size decoder_ffn_dim encoder_ffn_dim ffn_dim
    shared_expert_intermediate_size moe_shared_expert_intermediate_size shared_intermediate_size
    shared_experts_intermediate_size intermediate_size_mlp dense_intermediate_size expert_ffn_hidden_size
    ffn_hidden_size n_inner dim_ff dff d_inner feed_forward_size prompt_mid_dim router_hidden_size"""
_EXPERTS = "num_experts num_local_experts n_routed_experts moe_num_experts num_experts_per_layer"
_EXPERTS_USED = "num_experts_per_tok num_experts_per_token moe_topk moe_k top_k_experts"
_LENGTHS = """max_position_embeddings n_positions n_ctx max_seq_len model_max_length context_length max_target_positions
    max_source_positions"""
_WINDOWS = """sliding_window sliding_window_size window_size attention_window_size local_attention attention_chunk_size
    keep_window_size"""
_RANKS = """kv_lora_rank q_lora_rank o_lora_rank laurel_rank adapter_rank loop_gate_rank gated_norm_rank hc_lowrank
    time_step_rank mamba_dt_rank d_rel"""
_STATES = "state_size mamba_d_state ssm_state_size"

SIZES: dict[str, Any] = {
    name: size
    for names, size in (
        (_LAYERS, 2), (_HEADS, 4), (_KV_HEADS, 2), (_WIDTHS, 32), (_HEAD_DIMS, 8), (_INNER, 48), (_EXPERTS, 4),
        (_EXPERTS_USED, 2), (_LENGTHS, 256), (_WINDOWS, 64), (_RANKS, 8), (_STATES, 8),
        ("qk_rope_head_dim qk_nope_head_dim rotary_dim", 4), ("n_group topk_group num_expert_group n_groups mamba_n_groups", 1),
        ("vocab_size output_vocab_size vocab_size_per_layer_input decoder_vocab_size", VOCABULARY),
        ("mamba_n_heads mamba_d_head mamba_num_heads mamba_head_dim mamba_headdim", 8), ("mamba_d_ssm", 64),
        ("attention_hidden_size", 64), ("attention_head_dim", 16),
        ("chunk_size mamba_chunk_size block_size", 16), ("hidden_size_per_layer_input", 8),
        ("num_kv_shared_layers", 0), ("embedding_multiplier residual_multiplier attention_multiplier", 0.5),
    )
    for name in names.split()
}  # fmt: skip
"""What each size is called in the configurations of transformers, and how small it becomes."""

LOGIT_SETTINGS: dict[str, Any] = {
    "logits_scaling": 4.0, "logit_scale": 0.25, "lm_head_multiplier": 0.5, "logits_mup_width_multiplier": 3.0,
    "final_logit_softcapping": 30.0, "logits_soft_cap": 30.0, "output_logit_soft_cap": 30.0,
    "unpadded_vocab_size": 440,
}  # fmt: skip
"""Settings of what happens to logits, none of them at the value at which nothing does."""


def tiny_config(kind: str) -> Any:
    """Build the configuration of a model type (`llama`) with small sizes, nested configurations included.

    Layers of every kind that the default configuration has are there, one or two of each.
    """
    default = CONFIG_MAPPING[kind]
    values = shrink(default(**DEFAULTS.get(kind, {})).to_dict())
    return default(
        **{name: value for name, value in values.items() if name not in ("model_type", "transformers_version")}
    )


TOKEN_IDS = {"bos_token_id": 0, "eos_token_id": 0, "decoder_start_token_id": 0, "pad_token_id": 1}

DEFAULTS: dict[str, dict[str, Any]] = {
    kind: {"text_config": {"model_type": text, "hidden_size_per_layer_input": 0, "vocab_size_per_layer_input": 0}}
    for kind, text in (("gemma4_assistant", "gemma4_text"), ("gemma4_unified_assistant", "gemma4_unified_text"))
}
"""What a configuration must be given to be built at all."""
_EXPERTS_OF_DOTS = {"n_routed_experts": 4, "num_experts_per_tok": 2, "n_shared_experts": 1}
_INDEXER = {
    "indexer_n_heads": 4, "indexer_kv_heads": 1, "indexer_head_dim": 8, "indexer_budget": 64, "indexer_compress_ratio": 4,
}  # fmt: skip
EXCEPTIONS: dict[str, dict[str, Any]] = {
    "bamba": {"attn_layer_indices": [1]},
    "blt": {"encoder_hash_byte_group_vocab": 64},
    "cohere_compass_text": {"rope_parameters": {"full_attention": {"rope_type": "default", "rope_theta": 1e4}}},
    "dbrx": {
        "attn_config": {"rope_theta": 1e4, "kv_n_heads": 2, "clip_qkv": 8.0},
        "ffn_config": {"ffn_hidden_size": 48, "moe_num_experts": 4, "moe_top_k": 2},
    },
    "deepseek_v2": {"num_experts_per_tok": 2},
    "dory": {  # its configuration counts attention and MLP as layers of their own
        "n_input_layers": 2,
        "n_recurrent_layers": 2,
        "n_output_layers": 2,
        "num_hidden_layers": 6,
        "layer_types": ["sliding_attention", "mlp", "full_attention", "mlp", "sliding_attention", "mlp"],
    },
    "dots1": _EXPERTS_OF_DOTS,
    "dots3_note_text": {"num_key_value_heads": 4},
    "granitemoehybrid": {"layer_types": ["linear_attention", "full_attention"]},
    "hrm_text": {"num_layers_per_stack": None},
    "inkling_text": {"unpadded_vocab_size": 440},
    "jamba": {"attn_layer_period": 2, "attn_layer_offset": 1},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"]},
    "longcat_flash": {"zero_expert_num": 2},
    "mamba2": {"num_heads": 8},
    "nemotron": {"num_key_value_heads": 2},
    "qwen4_exp_text": _INDEXER,
    "recurrent_gemma": {"num_hidden_layers": 3},
    "reformer": {"axial_pos_embds": False},
    "rwkv": {"attention_hidden_size": 32},
    "xlstm": {"hidden_size": 128, "embedding_dim": 128, "num_heads": 2},  # it rounds its widths to multiples of 64
    "xmod": {"default_language": "en_XX"},
    "zamba": {"layers_block_type": ["linear_attention", "hybrid"] * 2, "num_hidden_layers": 4},
    "zaya": {"num_experts_per_tok": 1},
}
"""What is set besides, where sizes depend on each other or have no default."""


def shrink(values: dict[str, Any]) -> dict[str, Any]:
    """Return a configuration's values with small sizes; lists with an entry for each layer keep a few of them."""
    values = {name: value for name, value in copy.deepcopy(values).items() if not name.startswith("_")}
    layers = next((values[name] for name in _LAYERS.split() if isinstance(values.get(name), int)), 2)
    chosen = _layers_of_every_kind(values, layers)
    small = {name: _small(name, value, values, chosen, layers) for name, value in values.items()}
    if "head_dim" in values:  # in DeepSeek's latent attention it is the part that is rotated
        rotated = values["head_dim"] and values["head_dim"] == values.get("qk_rope_head_dim")
        small["head_dim"] = SIZES["qk_rope_head_dim" if rotated else "head_dim"]
    if "kv_lora_rank" in values and "num_key_value_heads" in values:  # latent attention has as many keys as queries
        small["num_key_value_heads"] = SIZES["num_attention_heads"]
    return small | EXCEPTIONS.get(values.get("model_type", ""), {})


def _small(name: str, value: Any, values: dict[str, Any], chosen: list[int], layers: int) -> Any:
    """Return the small counterpart of one value; most that are no sizes stay as they are."""
    if name == "per_layer_config":
        return _of_chosen_layers(value, chosen)
    if isinstance(value, dict):
        return shrink(value) if "model_type" in value else value
    if isinstance(value, list):
        return _small_list(name, value, chosen, layers)
    if name.endswith(("_token_id", "_token_index")):
        return TOKEN_IDS.get(name, VOCABULARY - 1 - list(values).index(name) % 8)
    if name == "is_decoder":
        return True
    if not value or isinstance(value, (bool, str)):
        return value
    if name in _LAYERS.split():
        return len(chosen)
    if isinstance(value, float) and re.search("drop|jitter", name):
        return 0.0
    return (SIZES | LOGIT_SETTINGS).get(name, value)


def _small_list(name: str, value: list[Any], chosen: list[int], layers: int) -> list[Any]:
    if _lists_layers(name, value):
        return [new for new, old in enumerate(chosen) if old in value]
    return [SIZES.get(name, value[layer]) for layer in chosen] if len(value) == layers else value


def _lists_layers(name: str, value: list[Any]) -> bool:
    """Whether a list holds the numbers of layers, in order, not an entry for each."""
    named = name.endswith(("_layers", "_layer_ids", "_idxs", "_layer_indices"))
    return named and all(isinstance(each, int) for each in value) and value == sorted(set(value))


def _layers_of_every_kind(values: dict[str, Any], layers: int) -> list[int]:
    """Return the indices of layers, at least two, that are all different in the lists with an entry for each layer."""
    lists = [
        value
        for name, value in values.items()
        if isinstance(value, list) and len(value) == layers and not _lists_layers(name, value)
    ]
    seen: dict[str, int] = {}
    for layer in range(layers):
        seen.setdefault(repr([each[layer] for each in lists]), layer)
    chosen = sorted(seen.values())
    return chosen if len(chosen) > 1 else [0, 1]


def _of_chosen_layers(by_layer: Any, chosen: list[int]) -> Any:
    """Return what is set for single layers, numbered as the layers that are kept."""
    if not by_layer:
        return by_layer
    values = {
        int(layer): {name: SIZES.get(name, value) for name, value in its.items()} for layer, its in by_layer.items()
    }
    for its in values.values():
        if "num_key_value_heads" in its:  # of layers whose heads are all alike
            its["num_key_value_heads"] = its.get("num_attention_heads", SIZES["num_key_value_heads"])
    return {new: values[old] for new, old in enumerate(chosen) if old in values}
