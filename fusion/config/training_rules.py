"""TrainingArguments that do not go together, or that fail when a training begins though each is of its type.

A rule looks at all that were given and yields a sentence for each offence, which begins with the argument; `RULES` lists them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from fusion.core.settings import suggest
from fusion.training.validation import EVAL_ARGUMENTS

Given = Mapping[str, Any]

CHOICES: dict[str, set[str]] = {
    "train_sampling_strategy": {"random", "sequential"},
    "torch_compile_mode": {"default", "reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs"},
    "dataloader_multiprocessing_context": {"fork", "forkserver", "spawn"},
    "log_level": {"detail", "debug", "info", "warning", "error", "critical", "passive"},
    "log_level_replica": {"detail", "debug", "info", "warning", "error", "critical", "passive"},
    "debug": {"", "underflow_overflow"},
    "include_num_input_tokens_seen": {"all", "non_padding", "no"},
}
"""Values of arguments that transformers takes as any text, and uses in training alone."""
LOGGERS = {
    "azure_ml": "azureml-core",
    "clearml": "clearml",
    "codecarbon": "codecarbon",
    "comet_ml": "comet-ml",
    "dagshub": "dagshub",
    "dvclive": "dvclive",
    "flyte": "flytekit",
    "kubeflow": "kubeflow",
    "mlflow": "mlflow",
    "neptune": "neptune",
    "swanlab": "swanlab",
    "tensorboard": "tensorboard",
    "trackio": "trackio",
    "wandb": "wandb",
}
"""What report_to may name, and the package that it needs, as pip knows it."""
PLAIN_SCHEDULES = {
    *("linear", "cosine", "cosine_with_restarts", "polynomial", "constant", "constant_with_warmup", "inverse_sqrt")
}
"""Schedules that need no arguments."""
OPTIM_ARGS: dict[str, set[str]] = {
    "sgd": {"momentum", "dampening", "weight_decay", "nesterov"},
    "adagrad": {"lr_decay", "weight_decay", "eps"},
    "rmsprop": {"momentum", "alpha", "eps", "weight_decay", "centered"},
    "adafactor": set(),
    "adamw_torch": set(),
    "adamw_torch_fused": set(),
}
"""What optimizers of torch and transformers read of optim_args; those of other packages are not looked at."""
SWITCHES = {"nesterov", "centered"}
WITH: dict[str, tuple[str, tuple[Any, ...]]] = {
    "dataloader_prefetch_factor": ("dataloader_num_workers", (0, None)),
    "dataloader_persistent_workers": ("dataloader_num_workers", (0, None)),
    "dataloader_multiprocessing_context": ("dataloader_num_workers", (0, None)),
    "liger_kernel_config": ("use_liger_kernel", (False, None)),
}
"""Arguments that need another one, and the values with which that one is off."""
CHECKPOINTING = {"use_reentrant", "preserve_rng_state", "determinism_check", "debug", "early_stop"}
"""Arguments of torch.utils.checkpoint that YAML can give."""
CHECKPOINTING_KEYS = ("gradient_checkpointing", "activation_checkpointing")


def problems(given: Given) -> Iterator[str]:
    """Yield a sentence for each argument that does not go with the others."""
    for rule in RULES:
        yield from rule(given)


def choices(given: Given) -> Iterator[str]:
    """Texts of which a training takes a few only."""
    known = CHOICES | (
        {"torch_compile_backend": _compile_backends()} if given.get("torch_compile_backend") is not None else {}
    )
    for name, allowed in known.items():
        value = given.get(name)
        if isinstance(value, str) and value not in allowed:
            yield f"{name} is {value!r}{suggest(value, allowed) or '; allowed are ' + ', '.join(sorted(allowed))}"


def loggers(given: Given) -> Iterator[str]:
    """Names of loggers, which transformers looks up when a training begins."""
    if "report_to" not in given:
        return
    value, allowed = given["report_to"], {*LOGGERS, "none", "all"}
    for name in value if isinstance(value, list) else [value]:
        if name is None:
            yield "report_to is null; for no logger write none"
        elif name not in allowed:
            yield f"report_to is {name!r}{suggest(name, allowed) or '; allowed are ' + ', '.join(sorted(allowed))}"
        elif isinstance(value, list) and name in ("none", "all") and len(value) > 1:
            yield f"report_to has {name} beside {len(value) - 1} more; write it alone"


def whole_steps(given: Given) -> Iterator[str]:
    """Numbers of steps: shares of the training below 1, whole numbers from 1 on."""
    for name in ("logging_steps", "save_steps", "warmup_steps", "eval_steps"):
        value = given.get(name) or 0
        if value > 1 and value != int(value):
            yield f"{name} must be a whole number, or a share of all steps below 1, got {value}"
    if given.get("max_steps") == 0:
        yield "max_steps is 0, which transformers takes for no limit; give 1 or more, or leave it out"


def one_precision(given: Given) -> Iterator[str]:
    """bfloat16 and float16 exclude each other."""
    if given.get("bf16") and given.get("fp16"):
        yield "bf16 and fp16 are both true; set one of them"


def one_checkpointing(given: Given) -> Iterator[str]:
    """Two names of one switch, and arguments that torch would refuse in the first step."""
    old, new = (given.get(name) for name in CHECKPOINTING_KEYS)
    if old is not None and new is not None and old != new:
        yield "gradient_checkpointing and activation_checkpointing are one thing under two names; give one of them"
    for name in (f"{key}_kwargs" for key in CHECKPOINTING_KEYS):
        if (value := given.get(name)) is None:
            continue
        if not (old or new):
            yield f"{name} is for gradient_checkpointing: true, which is not set"
        elif (read := _mapping(value)) is None:
            yield f"{name} must be keys and values, got {value!r}"
        else:
            for key in sorted(read.keys() - CHECKPOINTING):
                yield f"{name} has no {key}{suggest(key, CHECKPOINTING)}"


def needed_beside(given: Given) -> Iterator[str]:
    """Arguments that do nothing, or fail, without another one."""
    for name, (other, off) in WITH.items():
        if given.get(name) and given.get(other) in off:
            yield f"{name} is for {other}, which is not set"


def validation(given: Given) -> Iterator[str]:
    """When validation examples are read: what says nothing beside the strategy that is given."""
    strategy = given.get("eval_strategy", "steps")
    if strategy == "no":
        for name in EVAL_ARGUMENTS[1:]:
            if given.get(name) is None:
                continue
            yield f"{name} says how validation examples are read, and eval_strategy is no; leave out one of the two"
    elif strategy != "steps" and given.get("eval_steps") is not None:
        yield f"eval_steps is for eval_strategy: steps, and that is {strategy}; leave out one of the two"


def scheduler(given: Given) -> Iterator[str]:
    """A schedule that needs evaluation, or arguments that it does not take: found by making one."""
    kind, kwargs = str(given.get("lr_scheduler_type", "linear")), given.get("lr_scheduler_kwargs")
    if kind in ("reduce_lr_on_plateau", "greedy"):
        yield f"lr_scheduler_type {kind} follows validation examples, which only watch a training here; choose another"
    elif (read := {} if kwargs is None else _mapping(kwargs)) is None:
        yield f"lr_scheduler_kwargs must be keys and values, got {kwargs!r}"
    elif (read or kind not in PLAIN_SCHEDULES) and (
        why := _schedule_problem(kind, read, given.get("learning_rate", 5e-5))
    ):
        yield f"lr_scheduler_kwargs {read or '(none)'} cannot be for lr_scheduler_type {kind}: {why}"


def optimizer_arguments(given: Given) -> Iterator[str]:
    """What optim_args and optim_target_modules say, which transformers reads when a training begins."""
    optimizer, low_rank = str(given.get("optim", "adamw_torch_fused")), ("galore", "apollo")
    if optimizer.startswith(low_rank) and not given.get("optim_target_modules"):
        yield f"optim {optimizer} needs optim_target_modules, such as all-linear"
    if given.get("optim_target_modules") and not optimizer.startswith(low_rank):
        yield f"optim_target_modules is for the optimizers of galore and apollo, and optim is {optimizer}; leave it out"
    if optimizer.endswith("layerwise") and given.get("gradient_accumulation_steps", 1) != 1:
        yield f"optim {optimizer} takes no gradient_accumulation_steps; leave that out"
    text = given.get("optim_args")
    for part in text.replace(" ", "").split(",") if text else []:
        key, equals, value = part.partition("=")
        known = OPTIM_ARGS.get(optimizer)
        if not equals or not key or not value:
            yield f'optim_args must be written as "a=1,b=2", got {text!r}'
        elif known is not None and key not in known:
            yield f"optim_args has {key}, which optim {optimizer} does not read{suggest(key, known)}"
        elif known is not None and key not in SWITCHES and not _is_number(value):
            yield f"optim_args {key} must be a number, got {value!r}"


def accelerator(given: Given) -> Iterator[str]:
    """Keys of accelerate's configuration; those that change the batch are the engine's."""
    value = given.get("accelerator_config")
    if value is None:
        return
    from dataclasses import fields

    from transformers.trainer_pt_utils import AcceleratorConfig

    read, known = _mapping(value), {field.name for field in fields(AcceleratorConfig)}
    if read is None:
        yield f"accelerator_config must be keys and values or a JSON file that is there, got {value!r}"
        return
    for key in sorted(read.keys() - known):
        yield f"accelerator_config has no {key}{suggest(key, known)}"
    for key in ("split_batches", "dispatch_batches", "gradient_accumulation_kwargs"):
        if read.get(key):
            yield f"accelerator_config.{key} changes the batch of a step, which engine and the batch size say; leave it out"


RULES: tuple[Callable[[Given], Iterator[str]], ...] = (
    choices,
    loggers,
    whole_steps,
    one_precision,
    one_checkpointing,
    needed_beside,
    validation,
    scheduler,
    optimizer_arguments,
    accelerator,
)


def _mapping(value: Any) -> dict[str, Any] | None:
    """Keys and values, as they are, as JSON, or in a JSON file; None where there are none."""
    if isinstance(value, dict):
        return value
    try:
        read = json.loads(value if value.startswith("{") else Path(value).read_text())
    except (OSError, ValueError):
        return None
    return read if isinstance(read, dict) else None


def _schedule_problem(kind: str, kwargs: dict[str, Any], learning_rate: float) -> str | None:
    import torch
    from transformers.optimization import get_scheduler

    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=learning_rate)
    try:
        schedule = get_scheduler(kind, optimizer, 1, 10, dict(kwargs))
        for _ in range(10):
            optimizer.step()
            schedule.step()
    except (ArithmeticError, TypeError, ValueError) as error:
        return str(error).removeprefix("transformers.optimization.")
    return None


def _compile_backends() -> set[str]:
    from accelerate.utils import DynamoBackend

    return {backend.value.lower() for backend in DynamoBackend}


def _is_number(value: str) -> bool:
    try:
        float(value)
    except ValueError:
        return False
    return True
