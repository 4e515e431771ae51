"""What may stand in `training`: transformers' TrainingArguments, less those that a run sets itself, checked as it is read."""

from __future__ import annotations

import enum
import math
import typing
from collections.abc import Iterator
from typing import Annotated, Any

from pydantic import AfterValidator, TypeAdapter, ValidationError

from fusion.config import training_rules
from fusion.config.training_arguments import training_arguments
from fusion.core.settings import suggest

OURS = {
    **dict.fromkeys(["remove_unused_columns", "use_cpu"], "is set by the run itself"),
    "output_dir": "is set by the run itself: runs and name, outside training, say where it goes",
    "seed": "is set by the run itself, from seed outside training",
    **dict.fromkeys(
        ["resume_from_checkpoint", "do_train", "do_eval", "ddp_backend", "ddp_timeout"], "is set by the run itself"
    ),
    **dict.fromkeys(["deepspeed", "fsdp", "fsdp_config", "parallelism_config"], "is chosen by engine, which see"),
    "local_rank": "is set by the launcher, such as torchrun",
}
"""TrainingArguments that are not the user's to give, and why."""

ELSEWHERE = {
    **dict.fromkeys(["max_length", "max_seq_length", "max_seq_len"], "is data.max_length here, outside training"),
    **dict.fromkeys(["packing", "dtype"], "stands outside training here, beside it"),
    "torch_dtype": "is dtype here, outside training",
    **dict.fromkeys(["lora", "peft_config"], "is adapter here, outside training"),
}
"""What other trainers have among their arguments, and where it stands here."""

_CHOOSES = (
    "chooses a model by validation examples, which only watch a training here; compare trainings with fusion study"
)
_READS = "is for transformers' own evaluation, and validation examples are read by ours (see data.validation)"
_NOTHING = "would do nothing here"
_UPLOADS = "would upload each training, not what is fused; upload the run's folder fused/ when it is done"
_LEAVE_OUT = "is no argument of transformers any more, and nothing here needs it; leave it out"
EARLIER = {
    **dict.fromkeys(["evaluation_strategy", "evaluate_during_training"], "is called eval_strategy now"),
    "per_gpu_train_batch_size": "is called per_device_train_batch_size now",
    "per_gpu_eval_batch_size": "is called per_device_eval_batch_size now",
    "warmup_ratio": "is warmup_steps now, which below 1 is a share of all steps",
    "adafactor": "is optim: adafactor now",
    "torchdynamo": "is called torch_compile_backend now",
    "include_tokens_per_second": "is gone; include_num_input_tokens_seen: all counts the tokens",
    "group_by_length": "is train_sampling_strategy now, which is random or sequential here: texts are not grouped by length",
    "logging_dir": "is gone: TensorBoard's files lie in the training's folder, or where the environment variable "
    "TENSORBOARD_LOGGING_DIR says",
    "overwrite_output_dir": "is gone: a training goes on from its newest checkpoint; to begin anew, give the run another name "
    "(--set name=...)",
    **dict.fromkeys(
        ["no_cuda", "use_mps_device"],
        "is gone: a run takes the GPU where it sees one; CUDA_VISIBLE_DEVICES= in the environment hides it",
    ),
    **dict.fromkeys(
        ["fp16_backend", "half_precision_backend", "fp16_opt_level"], "is gone; bf16 or fp16: true is enough"
    ),
    "save_safetensors": "is gone: weights are always saved as safetensors; leave it out",
    "xpu_backend": "is ddp_backend now, which is set by the run itself",
    **dict.fromkeys(
        ["sharded_ddp", "fsdp_min_num_params", "fsdp_transformer_layer_cls_to_wrap", "mp_parameters"],
        "is gone: how weights are spread is chosen by engine, which see",
    ),
    **dict.fromkeys(
        ["dispatch_batches", "split_batches"],
        "changes the batch of a step, which engine and the batch size say; leave it out",
    ),
    "include_inputs_for_metrics": f"is include_for_metrics now, which {_READS}; leave it out",
    **dict.fromkeys(["push_to_hub_model_id", "push_to_hub_organization", "push_to_hub_token"], _UPLOADS),
    **dict.fromkeys(
        ["tpu_num_cores", "tpu_metrics_debug", "use_ipex", "jit_mode_eval", "past_index", "ray_scope"], _LEAVE_OUT
    ),
    "use_legacy_prediction_loop": _LEAVE_OUT,
}
"""TrainingArguments of earlier versions of transformers, and what there is now."""

WITHOUT_EFFECT = {
    "label_smoothing_factor": "changes transformers' own loss, and the loss here is the objectives'",
    "save_only_model": "leaves checkpoints that a training cannot go on from",
    "ignore_data_skip": "makes a training that goes on see other batches than one that was not cut off",
    "auto_find_batch_size": "changes the batch size; set per_device_train_batch_size to what fits (fusion plan says)",
    "logging_nan_inf_filter": "has nothing to filter, for a loss that is not finite stops the training",
    **dict.fromkeys(
        [
            *("prediction_loss_only", "do_predict", "eval_do_concat_batches", "eval_use_gather_object"),
            *(
                "eval_accumulation_steps",
                "include_for_metrics",
                "batch_eval_metrics",
                "bf16_full_eval",
                "fp16_full_eval",
            ),
        ],
        _READS,
    ),
    **dict.fromkeys(["load_best_model_at_end", "metric_for_best_model", "greater_is_better"], _CHOOSES),
    **dict.fromkeys(
        [
            *("push_to_hub", "hub_token", "hub_private_repo", "hub_model_id", "hub_strategy", "hub_always_push"),
            "hub_revision",
        ],
        _UPLOADS,
    ),
    **dict.fromkeys(["label_names", "length_column_name", "use_cache", "average_tokens_across_devices"], _NOTHING),
}
"""TrainingArguments that a run has no use for, and why; giving one its default value is no mistake."""

AT_LEAST: dict[str, float] = {
    **dict.fromkeys(["torch_empty_cache_steps", "dataloader_prefetch_factor", "ddp_bucket_cap_mb"], 1),
    **dict.fromkeys(["neftune_noise_alpha", "data_seed"], 0),
    **dict.fromkeys(["per_device_train_batch_size", "gradient_accumulation_steps", "save_total_limit"], 1),
    **{"per_device_eval_batch_size": 1, "eval_delay": 0},
    **dict.fromkeys(["learning_rate", "weight_decay", "max_grad_norm", "warmup_steps", "adam_epsilon"], 0),
    **dict.fromkeys(["adam_beta1", "adam_beta2", "dataloader_num_workers"], 0),
    "max_steps": -1,
}
AT_MOST: dict[str, float] = {"data_seed": 2**63 - 1}
BELOW: dict[str, float] = {"adam_beta1": 1, "adam_beta2": 1}
ABOVE_ZERO = {"num_train_epochs", "logging_steps", "save_steps", "eval_steps"}


def _checked(given: dict[str, Any]) -> dict[str, Any]:
    """Known names with values of their types, choices and ranges; `save_strategy: no`, false in YAML, means what it says."""
    known = training_arguments() if given else {}
    values, mistakes = dict(given), []
    for key, value in given.items():
        if key not in known or key in OURS:
            unknown = f"is not a TrainingArgument{suggest(key, known.keys() - OURS.keys())}"
            mistakes.append(f"{key} {(OURS | ELSEWHERE | EARLIER).get(key, unknown)}")
            continue
        default = known[key].default
        if key in WITHOUT_EFFECT and value != default:
            mistakes.append(f"{key} {WITHOUT_EFFECT[key]}; leave it out")
            continue
        if key == "save_strategy" and value == "best":
            mistakes.append(f"save_strategy best {_CHOOSES}; allowed are epoch, no, steps")
            continue
        values[key] = "no" if value is False and key.endswith("_strategy") else value
        try:
            values[key] = _convert(known[key].kind, values[key])
            mistakes += [f"{key} {problem}" for problem in _range_problems(key, values[key])]
        except ValueError as error:
            mistakes.append(f"{key} {error}")
    if not mistakes:
        mistakes += training_rules.problems(values)
    if mistakes:
        raise ValueError("; ".join(mistakes))
    return values


def _convert(kind: Any, value: Any) -> Any:
    """Return the value as its type has it. Raises ValueError that says what is allowed."""
    kinds = typing.get_args(kind) or (kind,)
    choices = [each for each in kinds if isinstance(each, type) and issubclass(each, enum.Enum)]
    if choices and isinstance(value, str):
        allowed = {str(member.value) for member in choices[0]}
        if value not in allowed:
            raise ValueError(f"is {value!r}{suggest(value, allowed) or '; allowed are ' + ', '.join(sorted(allowed))}")
        return value
    if bool in kinds and not (str in kinds or isinstance(value, bool) or value is None):
        raise ValueError(f"must be true or false, got {value!r}")
    if isinstance(value, bool) and bool not in kinds and not choices:
        raise ValueError(f"must be {_name(kinds)}, got {str(value).lower()}")
    try:
        return TypeAdapter(kind).validate_python(value)
    except ValidationError as error:
        raise ValueError(f"must be {_name(kinds)}, got {value!r}") from error


def _name(kinds: tuple[Any, ...]) -> str:
    words = {int: "a whole number", float: "a number", str: "a text", bool: "true or false", dict: "keys and values"}
    return " or ".join(words.get(typing.get_origin(kind) or kind, "a list") for kind in kinds if kind is not type(None))


def _range_problems(key: str, value: Any) -> Iterator[str]:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return
    if not math.isfinite(value):
        yield f"must be a finite number, got {value}"
    elif key in ABOVE_ZERO and not value > 0:
        yield f"must be above 0, got {value}"
    elif (least := AT_LEAST.get(key)) is not None and (
        value < least or value > AT_MOST.get(key, math.inf) or value >= BELOW.get(key, math.inf)
    ):
        most = f" and at most {AT_MOST[key]}" if key in AT_MOST else f" and below {BELOW[key]}" if key in BELOW else ""
        yield f"must be at least {least}{most}, got {value}"


Arguments = Annotated[dict[str, Any], AfterValidator(_checked)]
"""Checked when a configuration is read."""
