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


ELSEWHERE: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(["student", "model", "model_name_or_path", "base_model"], ("pivot",)),
    **dict.fromkeys(["teacher", "teachers", "teacher_model", "teacher_model_name_or_path", "models"], ("sources",)),
    **dict.fromkeys(["lr"], ("learning_rate", "training.learning_rate")),
    "learning_rate": ("training.learning_rate",),
    **dict.fromkeys(
        ["batch_size", "train_batch_size", "micro_batch_size", "per_device_batch_size"],
        ("per_device_train_batch_size", "training.per_device_train_batch_size"),
    ),
    **dict.fromkeys(["epochs", "num_epochs", "n_epochs"], ("num_train_epochs", "training.num_train_epochs")),
    "max_steps": ("training.max_steps",),
    "num_train_epochs": ("training.num_train_epochs",),
    "per_device_train_batch_size": ("training.per_device_train_batch_size",),
    "gradient_accumulation_steps": ("training.gradient_accumulation_steps",),
    **dict.fromkeys(
        ["max_length", "max_seq_length", "max_seq_len", "sequence_len", "cutoff_len"], ("max_length", "data.max_length")
    ),
    "output_dir": ("runs",),
    **dict.fromkeys(["lora", "peft", "peft_config", "lora_config"], ("adapter",)),
    "merge_method": ("merge.kind",),
    **dict.fromkeys(["dataset", "datasets", "train_dataset"], ("data.train",)),
    **dict.fromkeys(["eval_dataset", "test_dataset"], ("data.heldout",)),
    **dict.fromkeys(["loss", "losses", "loss_type"], ("objectives",)),
    "torch_dtype": ("dtype",),
    "do_sample": ("temperature",),
    **dict.fromkeys(["n", "num_generations"], ("samples",)),
    **dict.fromkeys(["kl", "kld", "fkl", "kl_divergence"], ("forward_kl",)),
    **dict.fromkeys(["rkl", "reverse_kld"], ("reverse_kl",)),
    **dict.fromkeys(["jsd", "js", "generalized_jsd"], ("jensen_shannon",)),
    **dict.fromkeys(["ce", "sft", "nll", "crossentropy"], ("cross_entropy",)),
    "grpo": ("group_reward",),
}
"""What transformers, TRL, axolotl or mergekit call something -> its place here; of several the first that there is."""


def name_here(key: str, allowed: Collection[str]) -> str | None:
    """What others call `key` where the keys `allowed` are known; None where it is no word of theirs for one of these."""
    return next((name for name in ELSEWHERE.get(key, ()) if name.partition(".")[0] in allowed), None)


def new_name(key: str, allowed: Collection[str]) -> str | None:
    """What `key` is called now in a place where the keys `allowed` are known; None where it never had another name there."""
    return next((name for name in RENAMED.get(key, ()) if name in allowed), None)
