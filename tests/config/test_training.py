"""TrainingArguments as they are read: names, types, choices, ranges, and what would do nothing."""

import re

import pytest
from pydantic import TypeAdapter, ValidationError

from fusion.config import training_rules
from fusion.config.training import EARLIER, ELSEWHERE, OURS, WITHOUT_EFFECT, Arguments
from fusion.config.training_arguments import training_arguments

READ = TypeAdapter(Arguments).validate_python
WRONG = [
    ({"lr_scheduler_type": "cosin"}, "lr_scheduler_type is 'cosin'; did you mean cosine?"),
    ({"optim": "nope"}, "optim is 'nope'; allowed are"),
    ({"save_strategy": "best"}, "save_strategy best chooses a model by validation examples"),
    ({"adam_beta1": 1.0}, "adam_beta1 must be at least 0 and below 1, got 1.0"),
    ({"torch_empty_cache_steps": 0}, "torch_empty_cache_steps must be at least 1, got 0"),
    ({"neftune_noise_alpha": -5}, "neftune_noise_alpha must be at least 0, got -5"),
    ({"data_seed": 2**70}, "data_seed must be at least 0 and at most"),
    ({"push_to_hub": True}, "push_to_hub would upload each training, not what is fused"),
    ({"hub_model_id": "me/mine"}, "hub_model_id would upload each training"),
    ({"local_rank": 3}, "local_rank is set by the launcher"),
    ({"bf16": True, "fp16": True}, "bf16 and fp16 are both true"),
    ({"logging_steps": 2.5}, "logging_steps must be a whole number, or a share of all steps below 1, got 2.5"),
    ({"save_steps": 2.5}, "save_steps must be a whole number"),
    ({"warmup_steps": 7.5}, "warmup_steps must be a whole number"),
    ({"max_steps": 0}, "max_steps is 0, which transformers takes for no limit"),
    ({"report_to": "wanb"}, "report_to is 'wanb'; did you mean wandb?"),
    ({"report_to": ["tensorboard", "x"]}, "report_to is 'x'; allowed are all, azure_ml"),
    ({"report_to": None}, "report_to is null; for no logger write none"),
    ({"log_level": "loud"}, "log_level is 'loud'; allowed are critical"),
    ({"debug": "nope"}, "debug is 'nope'"),
    (
        {"train_sampling_strategy": "group_by_length"},
        "train_sampling_strategy is 'group_by_length'; allowed are random",
    ),
    ({"torch_compile_backend": "inducter"}, "torch_compile_backend is 'inducter'; did you mean inductor?"),
    ({"torch_compile_mode": "fast"}, "torch_compile_mode is 'fast'; allowed are default"),
    ({"gradient_checkpointing": True, "activation_checkpointing": False}, "are one thing under two names"),
    (
        {"gradient_checkpointing": True, "gradient_checkpointing_kwargs": {"use_reentrent": False}},
        "gradient_checkpointing_kwargs has no use_reentrent; did you mean use_reentrant?",
    ),
    (
        {"gradient_checkpointing_kwargs": {"use_reentrant": False}},
        "gradient_checkpointing_kwargs is for gradient_checkpointing: true, which is not set",
    ),
    ({"dataloader_prefetch_factor": 2}, "dataloader_prefetch_factor is for dataloader_num_workers, which is not set"),
    ({"dataloader_persistent_workers": True}, "dataloader_persistent_workers is for dataloader_num_workers"),
    (
        {"dataloader_multiprocessing_context": "thread", "dataloader_num_workers": 1},
        "allowed are fork, forkserver, spawn",
    ),
    (
        {"lr_scheduler_type": "reduce_lr_on_plateau"},
        "lr_scheduler_type reduce_lr_on_plateau follows validation examples",
    ),
    (
        {"lr_scheduler_kwargs": {"nope": 1}},
        "cannot be for lr_scheduler_type linear: get_linear_schedule_with_warmup() got",
    ),
    (
        {"lr_scheduler_type": "cosine", "lr_scheduler_kwargs": {"num_cycles": "x"}},
        "cannot be for lr_scheduler_type cosine",
    ),
    ({"lr_scheduler_type": "cosine_with_min_lr"}, "(none) cannot be for lr_scheduler_type cosine_with_min_lr"),
    ({"lr_scheduler_type": "polynomial", "lr_scheduler_kwargs": {"lr_end": 5.0}}, "lr_scheduler_type polynomial"),
    ({"lr_scheduler_kwargs": "fast"}, "lr_scheduler_kwargs must be keys and values, got 'fast'"),
    ({"optim_args": "momentum"}, "optim_args must be written as \"a=1,b=2\", got 'momentum'"),
    ({"optim_args": "momentum=0.9"}, "optim_args has momentum, which optim adamw_torch_fused does not read"),
    ({"optim": "sgd", "optim_args": "momentun=0.9"}, "does not read; did you mean momentum?"),
    ({"optim": "sgd", "optim_args": "momentum=high"}, "optim_args momentum must be a number, got 'high'"),
    ({"optim": "galore_adamw"}, "optim galore_adamw needs optim_target_modules"),
    ({"optim_target_modules": "all-linear"}, "optim_target_modules is for the optimizers of galore and apollo"),
    (
        {"optim": "galore_adamw_layerwise", "optim_target_modules": "all-linear", "gradient_accumulation_steps": 2},
        "takes no gradient_accumulation_steps",
    ),
    (
        {"accelerator_config": {"split_batch": True}},
        "accelerator_config has no split_batch; did you mean split_batches?",
    ),
    ({"accelerator_config": {"split_batches": True}}, "accelerator_config.split_batches changes the batch of a step"),
    ({"accelerator_config": "no.json"}, "accelerator_config must be keys and values or a JSON file that is there"),
    ({"save_strategy": "sometimes"}, "save_strategy is 'sometimes'; allowed are best, epoch, no, steps"),
    ({"learning_rate": "abc"}, "learning_rate must be a number, got 'abc'"),
    ({"learning_rate": -1e-4}, "learning_rate must be at least 0, got -0.0001"),
    ({"learning_rate": float("nan")}, "learning_rate must be a finite number, got nan"),
    ({"learning_rate": True}, "learning_rate must be a number, got true"),
    ({"bf16": "false"}, "bf16 must be true or false, got 'false'"),
    ({"bf16": 1}, "bf16 must be true or false, got 1"),
    ({"gradient_checkpointing": "yes"}, "gradient_checkpointing must be true or false, got 'yes'"),
    ({"per_device_train_batch_size": 0}, "per_device_train_batch_size must be at least 1, got 0"),
    ({"per_device_train_batch_size": 2.5}, "per_device_train_batch_size must be a whole number, got 2.5"),
    ({"num_train_epochs": 0}, "num_train_epochs must be above 0, got 0"),
    ({"adam_beta2": 1.5}, "adam_beta2 must be at least 0 and below 1, got 1.5"),
    ({"max_steps": -5}, "max_steps must be at least -1, got -5"),
    ({"report_to": 3}, "report_to must be a text or a list, got 3"),
    ({"label_smoothing_factor": 0.1}, "label_smoothing_factor changes transformers' own loss"),
    ({"save_only_model": True}, "save_only_model leaves checkpoints that a training cannot go on from"),
    ({"eval_strategy": "sometimes"}, "eval_strategy is 'sometimes'; allowed are epoch, no, steps"),
    ({"eval_steps": 0}, "eval_steps must be above 0, got 0"),
    ({"eval_steps": 2.5}, "eval_steps must be a whole number, or a share of all steps below 1, got 2.5"),
    ({"eval_delay": -1}, "eval_delay must be at least 0, got -1"),
    ({"per_device_eval_batch_size": 0}, "per_device_eval_batch_size must be at least 1, got 0"),
    ({"eval_strategy": "epoch", "eval_steps": 5}, "eval_steps is for eval_strategy: steps, and that is epoch"),
    ({"eval_strategy": False, "eval_on_start": True}, "eval_on_start says how validation examples are read, and eval"),
    (
        {"load_best_model_at_end": True},
        "load_best_model_at_end chooses a model by validation examples, which only watch",
    ),
    ({"eval_accumulation_steps": 2}, "eval_accumulation_steps is for transformers' own evaluation"),
    (
        {"logging_dir": "x"},
        "logging_dir is gone: TensorBoard's files lie in the training's folder, or where the environment",
    ),
    ({"group_by_length": True}, "group_by_length is train_sampling_strategy now, which is random or sequential here"),
    ({"no_cuda": True}, "no_cuda is gone: a run takes the GPU where it sees one; CUDA_VISIBLE_DEVICES="),
    ({"overwrite_output_dir": True}, "overwrite_output_dir is gone: a training goes on from its newest checkpoint"),
    ({"evaluation_strategy": "no"}, "evaluation_strategy is called eval_strategy now"),
    ({"warmup_ratio": 0.1}, "warmup_ratio is warmup_steps now, which below 1 is a share of all steps"),
    ({"per_gpu_train_batch_size": 2}, "per_gpu_train_batch_size is called per_device_train_batch_size now"),
    ({"learning_rat": 1e-4}, "learning_rat is not a TrainingArgument; did you mean learning_rate?"),
    ({"deepspeed": "x.json"}, "deepspeed is chosen by engine"),
]


@pytest.mark.parametrize(("given", "said"), WRONG, ids=lambda each: str(each)[:40])
def test_what_cannot_be_is_said_with_what_can(given, said):
    with pytest.raises(ValidationError) as error:
        READ(given)
    assert said in str(error.value)


def test_all_mistakes_are_said_at_once():
    with pytest.raises(ValidationError) as error:
        READ({"learning_rat": 1, "optim": "nope", "bf16": "no"})
    for key in ("learning_rat ", "optim ", "bf16 "):
        assert key in str(error.value)


def test_values_are_read_as_their_types():
    given = {
        "learning_rate": "1e-4",
        "save_strategy": False,
        "report_to": [],
        "warmup_steps": 5,
        "lr_scheduler_type": "cosine",
    }
    found = READ(given)
    assert found == given | {"learning_rate": 1e-4, "save_strategy": "no"}
    assert READ({"label_smoothing_factor": 0.0, "include_for_metrics": []})  # what is the default anyway


@pytest.mark.parametrize(
    "given",
    [
        {"lr_scheduler_type": "cosine_with_min_lr", "lr_scheduler_kwargs": {"min_lr": 1e-6}},
        {"lr_scheduler_type": "warmup_stable_decay", "lr_scheduler_kwargs": {"num_decay_steps": 2}},
        {"lr_scheduler_type": "cosine", "lr_scheduler_kwargs": '{"num_cycles": 2}'},
        {"optim": "sgd", "optim_args": "momentum=0.9, nesterov=true"},
        {"optim": "galore_adamw", "optim_target_modules": ["attn", "mlp"], "optim_args": "rank=64"},
        {"gradient_checkpointing": True, "gradient_checkpointing_kwargs": {"use_reentrant": False}},
        {"dataloader_num_workers": 2, "dataloader_prefetch_factor": 4, "dataloader_persistent_workers": True},
        {"report_to": "none"},
        {"report_to": ["wandb", "tensorboard"]},
        {"warmup_steps": 0.1, "logging_steps": 0.5, "save_steps": 100},
        {"torch_compile": True, "torch_compile_backend": "inductor", "torch_compile_mode": "max-autotune"},
        {"accelerator_config": {"even_batches": False, "non_blocking": True}},
        {"max_steps": -1},
        {"train_sampling_strategy": "sequential"},
        {"neftune_noise_alpha": 5, "max_grad_norm": 0, "adam_epsilon": 0},
    ],
    ids=str,
)
def test_what_transformers_takes_is_taken(given):
    assert READ(given).keys() == given.keys()


def test_every_name_that_is_refused_is_one_of_transformers():
    from dataclasses import fields

    from transformers import TrainingArguments

    assert {*OURS, *WITHOUT_EFFECT} <= {field.name for field in fields(TrainingArguments)}


def test_every_logger_of_transformers_is_known():
    from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK

    assert len(INTEGRATION_TO_CALLBACK) > 10
    assert INTEGRATION_TO_CALLBACK.keys() <= training_rules.LOGGERS.keys()


def test_schedules_that_need_no_arguments_are_made_without_any():
    for kind in training_rules.PLAIN_SCHEDULES:
        assert training_rules._schedule_problem(kind, {}, 1e-4) is None


def test_arguments_of_earlier_versions_are_none_now_and_what_is_named_in_their_place_is_one():
    known = training_arguments().keys()
    assert len(EARLIER) > 30
    assert not EARLIER.keys() & (known | ELSEWHERE.keys())
    named = [re.match(r"is (?:called )?(\w+)(?:: adafactor)? now", why) for why in EARLIER.values()]
    assert {found[1] for found in named if found} == {
        "eval_strategy", "per_device_train_batch_size", "per_device_eval_batch_size", "warmup_steps", "optim",
        "torch_compile_backend", "train_sampling_strategy", "ddp_backend", "include_for_metrics",
    }  # fmt: skip
    assert {found[1] for found in named if found} <= known
    assert READ({"warmup_steps": 0.1, "optim": "adafactor"})
