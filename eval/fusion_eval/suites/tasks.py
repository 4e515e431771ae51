"""Tasks of the catalogue as lm-eval runs them: its task files with our changes, documents from the hub or from local files."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import Any

import lm_eval.tasks
from lm_eval.api.task import ConfigurableTask
from lm_eval.tasks._yaml_loader import load_yaml

from fusion_eval.suites import code_eval, language_check, local_data, sentences
from fusion_eval.suites.lm_eval_logging import lm_eval_log_level
from fusion_eval.suites.scoring import SCORING_VERSION
from fusion_eval.suites.suite import HERE, LmEvalScoring, Scoring, TaskSpec, catalogue

STOCK = Path(lm_eval.tasks.__file__).parent
SCORING_KEYS = ("filter_list", "process_results", "metric_list", "doc_to_target", "repeats")
"""What of a task's configuration says how answers are scored."""


@dataclass(frozen=True)
class Subtask:
    """One task of lm-eval: a whole task of a suite, or one subset of it."""

    task: ConfigurableTask
    name: str
    """Name in the suite, such as `mmlu`."""
    subset: str | None
    """Name of the subset, such as `anatomy`; None where the task has none."""
    metric: str | None
    """Metric that is the score of a question; None where only likelihoods are measured."""
    filter: str | None
    """Name of the filter after which the metric is taken; None for the only or first one."""
    doc_indices: list[int]
    """Which of the task's documents are evaluated."""


def load_subtasks(
    name: str, data: Path | None = None, *, limit: int | None = None, max_new_tokens: int | None = None,
    scoring: Scoring = "fusion",
) -> list[Subtask]:  # fmt: skip
    """Load a task of the catalogue: one subtask for each of its subsets, without those that have no document.

    `data` is the folder of local files, None for the hub. `limit` is the number of documents in all, spread evenly over
    subsets and documents. `max_new_tokens` replaces the longest answer that the task allows. `scoring` says who scores
    answers to a task of ours. Raises what `local_data.load` raises.
    """
    spec = catalogue()[name]
    score = spec.lm_eval if scoring == "lm_eval" and spec.lm_eval else spec
    language_check.fix_seed()
    with lm_eval_log_level(logging.ERROR), code_eval.sandboxed(), sentences.nltk_tokenizer():
        configs = [_config(file, spec, data, max_new_tokens, scoring) for file in _files(spec)]
        names = [f"{name}/{subset}" if len(configs) > 1 else name for subset, _ in configs]
        tasks = [ConfigurableTask(config={**config, "task": n}) for n, (_, config) in zip(names, configs, strict=True)]
    subtasks: list[Subtask] = []
    for (subset, _), task, share in zip(configs, tasks, _split_limit(limit, len(tasks)), strict=True):
        task.set_fewshot_seed(seed=1234)  # lm-eval's own default
        if task.get_config("num_fewshot") is None:
            task.set_config("num_fewshot", 0)
        indices = _spread(len(task.eval_docs), share)
        subtasks.append(Subtask(task, name, subset if len(tasks) > 1 else None, score.metric, score.filter, indices))
    return [subtask for subtask in subtasks if subtask.doc_indices]


def version(name: str, scoring: Scoring = "fusion") -> str:
    """`name@version+scoring`, which changes whenever prompt, filter or metric of a task do, or whoever scores it."""
    return f"{name}@{request_version(name)}{_scoring_version(name, scoring)}"


def request_version(name: str) -> str:
    """The part of a version that stands for what is asked, whoever scores the answer."""
    spec = catalogue()[name]
    versions = [str(file.get("metadata", {}).get("version", 0)) for file in _unresolved(spec)]
    return "+".join(dict.fromkeys(versions)) if spec.stock else versions[-1]


def scored_by_lm_eval(name: str, scoring: Scoring) -> bool:
    """Whether lm-eval's own filters and metrics score a task: one of its tasks, or one of ours where that is wished."""
    return scoring == "lm_eval" or not any(
        "process_results" in load_yaml(f, resolve_func=False) for f in _task_files(catalogue()[name])
    )


def has_scoring(name: str, scoring: Scoring) -> bool:
    """Whether a task can be scored so; lm-eval has no filter for written answers to some."""
    return (
        not scored_by_lm_eval(name, scoring)
        or scored_by_lm_eval(name, "fusion")
        or catalogue()[name].lm_eval is not None
    )


def _scoring_version(name: str, scoring: Scoring) -> str:
    if catalogue()[name].metric is None:  # a likelihood
        return ""
    return (
        f"+lm_eval-{installed_version('lm_eval')}"
        if scored_by_lm_eval(name, scoring)
        else f"+scoring-{SCORING_VERSION}"
    )


def runs_code(name: str) -> bool:
    """Whether answers to this task are programs that are run."""
    return any(file.get("unsafe_code") for file in _unresolved(catalogue()[name]))


def _unresolved(spec: TaskSpec) -> list[dict[str, Any]]:
    """Contents of the task files, functions as their names."""
    return [load_yaml(file, resolve_func=False) for file in [*_files(spec)[:1], *_task_files(spec)]]


def _files(spec: TaskSpec) -> list[Path]:
    if spec.stock is None:
        return _task_files(spec)
    files = sorted(STOCK.glob(spec.stock))
    if not files:
        raise ValueError(f"lm-eval has no task file {spec.stock}; install the version that pyproject.toml asks for.")
    return files


def _task_files(spec: TaskSpec) -> list[Path]:
    return [HERE / "task_files" / spec.task_file] if spec.task_file else []


def _config(
    file: Path, spec: TaskSpec, data: Path | None, max_new_tokens: int | None, scoring: Scoring
) -> tuple[str, dict[str, Any]]:
    """Name of the subset, and the configuration of its task."""
    config = load_yaml(file)
    for changes in _task_files(spec) if spec.stock else []:
        config |= load_yaml(changes)
    if scoring == "lm_eval" and spec.lm_eval:
        config = _scored_by(spec.lm_eval, config)
    config = {
        key: value for key, value in config.items() if key not in ("tag", "group", "task_list") and value is not None
    }
    subset = config.get("task_alias") or config.get("dataset_name")
    if max_new_tokens is not None and "generation_kwargs" in config:
        config["generation_kwargs"] = {**config["generation_kwargs"], "max_gen_toks": max_new_tokens}
    if data is not None:
        splits = local_data.load(spec.data, data, config.get("dataset_name"))
        config |= {"custom_dataset": lambda **_: splits, "dataset_kwargs": None}
        # splits that are not read need not be on disk; few-shot examples without their own split would come from the test
        absent = [key for key in ("training_split", "validation_split") if config.get(key) not in splits]
        config = {key: value for key, value in config.items() if key not in absent}
    return str(subset), config


def _scored_by(scoring: LmEvalScoring, config: dict[str, Any]) -> dict[str, Any]:
    """The configuration with what it says of scoring replaced by what lm-eval's own file says."""
    theirs = load_yaml(STOCK / scoring.file)
    return {key: value for key, value in config.items() if key not in SCORING_KEYS} | {
        key: theirs[key] for key in SCORING_KEYS if key in theirs
    }


def _split_limit(limit: int | None, subtasks: int) -> list[int | None]:
    """Number of documents of each subtask; one more of the first ones, where it does not come out even."""
    if limit is None:
        return [None] * subtasks
    return [limit // subtasks + (number < limit % subtasks) for number in range(subtasks)]


def _spread(n: int, count: int | None) -> list[int]:
    """Indices of `count` of `n` documents, evenly spread; all of them where there are fewer."""
    if count is None or count >= n:
        return list(range(n))
    return [i * n // count for i in range(count)]


def doc_indices(subtasks: Sequence[Subtask]) -> dict[str, list[int]]:
    """Documents to evaluate, by the name of lm-eval's task: its argument `samples`."""
    return {subtask.task.task_name: subtask.doc_indices for subtask in subtasks}
