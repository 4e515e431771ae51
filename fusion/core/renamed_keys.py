"""Keys that have another name now: of configurations, `--set`, studies, merge recipes, run.json and key.json.

One table, so that an old file is answered with the new name instead of a list of what is allowed: `unknown key extract.values;
it is called value_format now` (`core.settings.suggest`). The old key is refused and never read as the new one, for a value may
mean something else under it.
"""

from collections.abc import Collection

RENAMED: dict[str, tuple[str, ...]] = {
    "alpha": ("lora_alpha",),
    "at_least": ("min_logprob_per_byte",),
    "base": ("base_model",),
    "batch": ("global_batch_size", "batch_size"),
    "body": ("extra_body",),
    "by": ("margin", "per"),
    "clip": ("max_grad_norm",),
    "config": ("deepspeed_config",),
    "cut_off": ("truncated",),
    "double_quantization": ("bnb_4bit_use_double_quant",),
    "dropout": ("lora_dropout",),
    "easiest": ("easiest_fraction",),
    "exact": ("exact_match",),
    "expected": ("target",),
    "form": ("logprobs_api",),
    "head": ("lm_head",),
    "head_budget": ("logits_budget",),
    "head_chunk": ("logits_chunk",),
    "hidden": ("hidden_states",),
    "how": ("algorithm",),
    "items": ("samples",),
    "keep": ("modules_to_not_convert",),
    "length": ("max_new_tokens",),
    "licence": ("license",),
    "made": ("provenance",),
    "nats": ("nll",),
    "noise": ("label_noise",),
    "normalise": ("normalize",),
    "of": ("objective", "factors", "difference", "model", "compare"),
    "otherwise": ("fallback",),
    "over": ("grid",),
    "path": ("model",),
    "per": ("granularity",),
    "prediction": ("prediction_weight",),
    "rank": ("r",),
    "rank_stabilized": ("use_rslora",),
    "raw": ("as_raw_text",),
    "regression": ("regression_weight",),
    "rest": ("use_remaining_weight",),
    "retries": ("max_retries",),
    "samples": ("num_return_sequences",),
    "scale": ("lambda",),
    "shard": ("shard_size",),
    "sources": ("min_sources",),
    "spread": ("initial_step",),
    "steps": ("max_iter", "max_steps"),
    "student": ("quantization_aware_training",),
    "untouched": ("original_models",),
    "values": ("value_format", "bnb_4bit_quant_type"),
}
"""Old key -> what it is called now; several where it is called differently in different places."""


def new_name(key: str, allowed: Collection[str]) -> str | None:
    """What `key` is called now in a place where the keys `allowed` are known; None where it never had another name there."""
    return next((name for name in RENAMED.get(key, ()) if name in allowed), None)
