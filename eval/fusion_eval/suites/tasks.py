"""Tasks as lm-eval runs them: its own files, ours over them, and documents from the hub or from local files."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lm_eval.tasks
from lm_eval.api.task import ConfigurableTask
from lm_eval.tasks._yaml_loader import load_yaml

from fusion_eval.suites import code_eval, local_data, sentences
from fusion_eval.suites.quiet import quiet
from fusion_eval.suites.suite import HERE, TaskSpec, catalogue

STOCK = Path(lm_eval.tasks.__file__).parent


@dataclass(frozen=True)
class Part:
    """One task of lm-eval: a whole task of a suite, or one subset of it."""

    task: ConfigurableTask
    name: str
    """Name in the suite, such as `mmlu`."""
    subset: str | None
    indices: list[int]
    """Which of the task's documents are asked."""


def load_task(name: str, data: Path | None, limit: int | None, max_new_tokens: int | None) -> list[Part]:
    """Parts of a task of the catalogue. `limit` questions in all, spread evenly over subsets and documents.

    Raises what `local_data.load` raises.
    """
    spec = catalogue()[name]
    parts: list[Part] = []
    with quiet(logging.ERROR), code_eval.sandboxed(), sentences.tokenizer():
        configs = [_config(file, spec, data, max_new_tokens) for file in _files(spec)]
        names = [f"{name}/{subset}" if len(configs) > 1 else name for subset, _ in configs]
        made = [
            (subset, ConfigurableTask(config={**config, "task": full}))
            for full, (subset, config) in zip(names, configs, strict=True)
        ]
    for (subset, task), share in zip(made, _shares(limit, len(made)), strict=True):
        task.set_fewshot_seed(seed=1234)  # lm-eval's own default
        if task.get_config("num_fewshot") is None:
            task.set_config("num_fewshot", 0)
        parts.append(Part(task, name, subset if len(made) > 1 else None, _spread(len(task.eval_docs), share)))
    return [part for part in parts if part.indices]


def version(name: str) -> str:
    """`name@version`: changes whenever prompt, parser or measure of a task do."""
    spec = catalogue()[name]
    files = [load_yaml(file, resolve_func=False) for file in [*_files(spec)[:1], *_ours(spec)] if file]
    versions = [str(file.get("metadata", {}).get("version", 0)) for file in files]
    return f"{name}@{'+'.join(dict.fromkeys(versions)) if spec.stock else versions[-1]}"


def runs_code(name: str) -> bool:
    """Whether answers to this task are programs that are run."""
    spec = catalogue()[name]
    return any(load_yaml(file, resolve_func=False).get("unsafe_code") for file in [*_files(spec)[:1], *_ours(spec)])


def _files(spec: TaskSpec) -> list[Path]:
    if spec.stock is None:
        return _ours(spec)
    found = sorted(STOCK.glob(spec.stock))
    if not found:
        raise ValueError(f"lm-eval has no task file {spec.stock}; install the version that pyproject.toml asks for.")
    return found


def _ours(spec: TaskSpec) -> list[Path]:
    return [HERE / "task_files" / spec.ours] if spec.ours else []


def _config(file: Path, spec: TaskSpec, data: Path | None, max_new_tokens: int | None) -> tuple[str, dict[str, Any]]:
    """Name of the subset, and the configuration of its task."""
    config = load_yaml(file)
    for over in _ours(spec) if spec.stock else []:
        config |= load_yaml(over)
    config = {
        key: value for key, value in config.items() if key not in ("tag", "group", "task_list") and value is not None
    }
    subset = config.get("task_alias") or config.get("dataset_name")
    if max_new_tokens is not None and "generation_kwargs" in config:
        config["generation_kwargs"] = {**config["generation_kwargs"], "max_gen_toks": max_new_tokens}
    if data is not None:
        found = local_data.load(spec.data, data, config.get("dataset_name"))
        config |= {"custom_dataset": lambda **_: found, "dataset_kwargs": None}
        # splits that no one asks for need not be on disk; worked examples without their own split would come from the test
        absent = [key for key in ("training_split", "validation_split") if config.get(key) not in found]
        config = {key: value for key, value in config.items() if key not in absent}
    return str(subset), config


def _shares(limit: int | None, parts: int) -> list[int | None]:
    """How many questions each part gives; the first ones one more, where it does not come out even."""
    if limit is None:
        return [None] * parts
    return [limit // parts + (part < limit % parts) for part in range(parts)]


def _spread(n: int, wanted: int | None) -> list[int]:
    """Indices of `wanted` of `n` documents, evenly spread; all of them where there are fewer."""
    if wanted is None or wanted >= n:
        return list(range(n))
    return [i * n // wanted for i in range(wanted)]


def samples(parts: Sequence[Part]) -> dict[str, list[int]]:
    """Documents asked, by the name of lm-eval's task."""
    return {part.task.task_name: part.indices for part in parts}
