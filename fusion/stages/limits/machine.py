"""What this machine lacks for a run: packages, devices, processes, folders that can be written, whole weight files."""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from fusion.config import Baseline, baseline_training
from fusion.config.training_rules import LOGGERS
from fusion.models.loading import check_checkpoint
from fusion.models.quantized_checkpoints import (
    GPU_ALONE,
    is_installed,
    quantization_method,
)
from fusion.models.quantized_checkpoints import (
    missing_packages as packages_of,
)
from fusion.stages.context import RunContext
from fusion.stages.limits.models import label, read_configs
from fusion.training.adapter import AnyAdapter, QLoRA, check_pivot
from fusion.training.engine_checks import device_problems, process_problems

OPTIMIZERS = {
    "adamw_torch_xla": "torch_xla",
    "adamw_torch_npu_fused": "torch_npu",
    "adamw_anyprecision": "torchdistx",
    "adamw_torch_4bit": "torchao",
    "adamw_torch_8bit": "torchao",
    "galore": "galore-torch",
    "lomo": "lomo-optim",
    "adalomo": "lomo-optim",
    "grokadamw": "grokadamw",
    "schedule_free": "schedulefree",
    "apollo": "apollo-torch",
    "stable_adamw": "torch-optimi",
    **dict.fromkeys(["adamw_8bit", "adamw_bnb", "lion", "ademamix", "paged", "rmsprop_bnb"], "bitsandbytes"),
}
"""How the names begin of optimizers that another package holds, and the package as pip knows it."""
EXTRAS = {"gw": "ot"}
"""Extras of the package that objectives need, and the module that each brings."""


def missing_packages(context: RunContext) -> Iterator[str]:
    """A sentence for each package that the run will need and that is not installed."""
    for name, config in read_configs(context, local_only=True).items():
        method = quantization_method(config)
        if method is not None and context.backend(name).kind == "transformers":
            for package in packages_of(method):
                yield _needs(
                    f"{label(context, name)} is quantized ({method}), which", package, "take another checkpoint"
                )
    for source in context.config.sources:
        if source.backend.kind == "vllm" and not _is_importable("vllm"):
            yield _needs(f"source {source.name} has backend kind: vllm, which", "vllm", "use kind: transformers")
    for place, arguments in _trainings(context).items():
        yield from _of_arguments(place, arguments)
    for place, adapter in _adapters(context).items():
        if not _is_importable("peft"):
            yield _needs(f"{place}", "peft", "leave it out")
        if isinstance(adapter, QLoRA) and not _is_importable("bitsandbytes"):
            yield _needs(f"{place}.kind qlora", "bitsandbytes", "use lora")
    for number, objective in enumerate(context.config.objectives):
        for extra in sorted(objective.requirements.extras):
            if not _is_importable(EXTRAS[extra]):
                yield _needs(
                    f"objectives[{number}] ({objective.kind})", f"logit-fusion[{extra}]", "choose other settings of it"
                )
    if context.config.engine.stage and not _is_importable("deepspeed"):
        yield _needs(f"engine.kind {context.config.engine.kind}", "deepspeed", "use another engine")


def machine_limits(context: RunContext) -> Iterator[str]:
    """A sentence for each device and folder that the run will need and this machine does not have."""
    for place, arguments in _trainings(context).items():
        for problem in device_problems(arguments):
            yield problem.replace("training.", f"{place}.", 1)
        if arguments.get("torch_compile") and not _can_compile():
            yield f"{place}.torch_compile needs a C++ compiler such as g++, and there is none; install one, or leave it out."
    for number, data in enumerate(context.config.data.train):
        for file in data.check.files:
            if not file.is_file():
                yield (
                    f"data.train[{number}].check names {file}, which is not there. Check the path, which counts from where the "
                    "command is started."
                )
    if torch.cuda.is_available():
        return
    for place, adapter in _adapters(context).items():
        if isinstance(adapter, QLoRA):
            yield f"{place}.kind qlora needs a GPU, and there is none; use lora."
    for name, config in read_configs(context, local_only=True).items():
        if (method := quantization_method(config)) in GPU_ALONE:
            yield f"{label(context, name)} is quantized ({method}), which is read on a GPU alone, and there is none."


def run_limits(context: RunContext) -> Iterator[str]:
    """A sentence for each reason why this very process cannot do the run: its number, its folders, the files of weights."""
    yield from process_problems(context.config.engine)
    try:
        _ = context.training
    except ValueError as error:
        yield str(error)
    folders = {"runs": context.config.folder, "store": context.config.store}
    for place, folder in folders.items():
        if folder is not None and (why := _unwritable(Path(folder))):
            yield f"{place}: {folder} cannot be written ({why}). Choose another folder with --set {place}=..."
    yield from _sources_elsewhere(context)
    checks = [
        lambda ref=model.ref: check_checkpoint(ref)
        for name, model in context.models.items()
        if context.backend(name).has_weights
    ]
    adapter, quantizer = context.config.adapter, context.config.quantization_aware_training
    for check in [*checks, lambda: check_pivot(context.config.pivot.ref, adapter, quantizer)]:
        try:
            check()
        except (ValueError, FileNotFoundError) as error:
            yield str(error)


def _sources_elsewhere(context: RunContext) -> Iterator[str]:
    """Keys of servers that are not set, and caches that are not imported yet."""
    for source in context.config.sources:
        variable = getattr(source.backend, "api_key_env", None)
        if variable and not os.environ.get(variable, "").strip():
            yield (
                f"source {source.name}: backend.api_key_env names {variable}, which is not set. Export the key under it."
            )
        cache = context.config.folder / "cache" / source.name
        if source.backend.kind == "imported" and context.config.store is None and not cache.exists():
            yield (
                f"source {source.name} has backend kind: imported, and its cache is not there yet. Run `fusion cache import "
                f"FILE... --config CONFIG --source {source.name} --format FORMAT`, or give it another backend."
            )


def _of_arguments(place: str, arguments: Mapping[str, Any]) -> Iterator[str]:
    optimizer = str(arguments.get("optim", ""))
    package = next((package for start, package in OPTIMIZERS.items() if optimizer.startswith(start)), None)
    if package and not is_installed(package):
        yield _needs(f"{place}.optim {optimizer}", package, "choose another optimizer")
    loggers = arguments.get("report_to") or []
    for logger in [loggers] if isinstance(loggers, str) else loggers:
        if logger in LOGGERS and not is_installed(LOGGERS[logger]):
            yield _needs(f"{place}.report_to {logger}", LOGGERS[logger], "leave it out")
    if arguments.get("use_liger_kernel") and not is_installed("liger-kernel"):
        yield _needs(f"{place}.use_liger_kernel", "liger-kernel", "leave it out")


def _needs(what: str, package: str, instead: str) -> str:
    return f"{what} needs the package {package}, which is not installed: pip install {package}, or {instead}."


def _trainings(context: RunContext) -> dict[str, Mapping[str, Any]]:
    """TrainingArguments of the run and of the sources that are fine-tuned first, by their place in the configuration."""
    tuned = {
        f"sources.{source.name}.fine_tune.training": context.config.training | source.fine_tune.training
        for source in context.config.sources
        if source.fine_tune is not None and source.fine_tune.training
    }
    if isinstance(context.config.baseline, Baseline):
        tuned["baseline.training"] = baseline_training(context.config)
    return {"training": context.config.training, **tuned}


def _adapters(context: RunContext) -> dict[str, AnyAdapter]:
    tuned = {
        f"sources.{source.name}.fine_tune.adapter": source.fine_tune.adapter
        for source in context.config.sources
        if source.fine_tune is not None
    }
    every = {"adapter": context.config.adapter, **tuned}
    return {place: adapter for place, adapter in every.items() if adapter is not None}


def _is_importable(module: str) -> bool:
    return module in sys.modules or importlib.util.find_spec(module) is not None


def _can_compile() -> bool:
    if torch.cuda.is_available():
        return _is_importable("triton")
    return any(shutil.which(name) for name in (os.environ.get("CXX", "g++"), "g++", "clang++", "c++"))


def _unwritable(folder: Path) -> str | None:
    """Why nothing can be written into a folder, which need not be there yet; None where something can."""
    there = next(parent for parent in (folder, *folder.absolute().parents) if parent.exists())
    if not there.is_dir():
        return f"{there} is a file"
    try:
        with tempfile.TemporaryFile(dir=there):
            return None
    except OSError as error:
        return error.strerror or str(error)
