"""Evaluation of one model on one suite by lm-eval, with answers kept on disk, written as one result file."""

from __future__ import annotations

import hashlib
import logging
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import Any, Literal

import lm_eval.evaluator

from fusion.grading import sandbox
from fusion.models.loading import ModelRef, load_tokenizer, model_fingerprint
from fusion_eval.results import Result, Sample
from fusion_eval.runners import Progress
from fusion_eval.runners.answer_cache import AnswerCache, AnswerCachingLM
from fusion_eval.runners.backends import BackendName, load_backend
from fusion_eval.statistics.comparison import summarise
from fusion_eval.suites import local_data, sentences
from fusion_eval.suites.lm_eval_logging import lm_eval_log_level
from fusion_eval.suites.samples import from_lm_eval
from fusion_eval.suites.suite import Scoring, Suite, catalogue
from fusion_eval.suites.tasks import (
    Subtask,
    doc_indices,
    has_scoring,
    load_subtasks,
    request_version,
    runs_code,
    version,
)

NO_CODE = "its answers are programs, which are run with --allow-code-execution alone"
NO_FILTER = "lm-eval has no filter for written answers to it; take the scoring fusion"


@dataclass(frozen=True)
class BenchmarkSettings:
    """How models are evaluated on a suite."""

    data: Path | None = None
    """Folder with the benchmarks' files; None reads from the hub."""
    limit: int | None = None
    """Questions of each task; None takes what the suite says."""
    max_new_tokens: int | None = None
    """Longest answer in tokens; None takes what each task says."""
    template: Literal["auto", "chat", "plain"] | None = None
    """How prompts are written; None takes what the suite says."""
    allow_code_execution: bool = False
    """Whether programs that a model writes are run, in the sandbox."""
    backend: BackendName = "transformers"
    dtype: str = "float32"
    device: str = "cpu"
    batch_tokens: int = 4096
    """Tokens of a batch of likelihoods."""
    batch_size: int = 16
    """Answers generated at once."""
    scoring: Scoring | None = None
    """Who scores answers to tasks of ours, we or lm-eval; None takes what the suite says."""


def evaluate(
    ref: ModelRef, suite: Suite, settings: BenchmarkSettings, *, name: str, out: Path,
    progress: Callable[[int], Progress],
) -> Result:  # fmt: skip
    """Evaluate a model on a suite and write `out`/<name>/<suite>.json; read it where it has the same key already.

    With lm-eval's scoring the result is called <suite>-lm_eval, so that it stands beside ours.

    Answers are kept in `out`/answers, by model, settings and version of each task, so that whatever was stopped goes on
    and no request is answered twice. `progress` is called with the number of requests and returns what is called as they
    are answered.

    Raises ValueError where nothing of the suite can be measured, and what loading models and data raises.
    """
    key = _key(ref, suite, settings)
    title = suite.name if key["scoring"] == "fusion" else f"{suite.name}-lm_eval"
    file = out / name / f"{title}.json"
    if file.exists() and (existing := Result.load(file)).provenance.get("key") == key:
        return existing
    skipped = {task: reason for task in suite.tasks if (reason := why_skipped(task, suite, settings))}
    tasks = [task for task in suite.tasks if task not in skipped]
    if not tasks:
        raise ValueError(f"Nothing of {suite.name} can be measured: {'; '.join(dict.fromkeys(skipped.values()))}.")
    with sentences.nltk_tokenizer():
        samples = _measure(ref, suite, settings, tasks, key=key, out=out, progress=progress)
    provenance = {"key": key, "skipped": skipped, **_provenance(settings)}
    result = Result(model=name, suite=title, path=ref.path, provenance=provenance, samples=samples)
    result = result.model_copy(update={"provenance": provenance | {"scores": _scores(result)}})
    result.save(file)
    return result


def doc_limit(suite: Suite, settings: BenchmarkSettings, task: str) -> int | None:
    """Number of questions of a task; None for all."""
    return suite.limit.get(task) if settings.limit is None else settings.limit


def scoring_of(suite: Suite, settings: BenchmarkSettings) -> Scoring:
    """Who scores answers to tasks of ours."""
    return settings.scoring or suite.scoring


def why_skipped(task: str, suite: Suite, settings: BenchmarkSettings) -> str | None:
    """Why a task is left out of the suite, None where it is measured."""
    if runs_code(task) and not settings.allow_code_execution:
        return NO_CODE
    return None if has_scoring(task, scoring_of(suite, settings)) else NO_FILTER


def _measure(
    ref: ModelRef, suite: Suite, settings: BenchmarkSettings, tasks: Sequence[str], *, key: Mapping[str, Any], out: Path,
    progress: Callable[[int], Progress],
) -> list[Sample]:  # fmt: skip
    subtasks: list[Subtask] = []
    for task in tasks:
        limit = doc_limit(suite, settings, task)
        subtasks += _load_subtasks(task, settings, limit, key["scoring"])
    folder = out / "answers" / _short_hash(key["model"], key["requests"])
    by_task = {task: _answer_cache(folder, task, key["scoring"]) for task in tasks}
    caches = {subtask.task.task_name: by_task[subtask.name] for subtask in subtasks}
    requests = sum(len(subtask.doc_indices) * _requests_per_doc(subtask) for subtask in subtasks)
    lm = AnswerCachingLM(lambda: _load(ref, settings), caches, progress(requests))
    with lm_eval_log_level(logging.WARNING):
        evaluated: Any = lm_eval.evaluator.evaluate(
            lm, {"tasks": {subtask.task.task_name: subtask.task for subtask in subtasks}}, samples=doc_indices(subtasks),
            bootstrap_iters=0, apply_chat_template=key["requests"]["chat"], confirm_run_unsafe_code=True,
        )  # fmt: skip
    return _samples(subtasks, evaluated["samples"], lm.tokens_cut)


def _load_subtasks(task: str, settings: BenchmarkSettings, limit: int | None, scoring: Scoring) -> list[Subtask]:
    max_new_tokens = settings.max_new_tokens
    try:
        return load_subtasks(task, settings.data, limit=limit, max_new_tokens=max_new_tokens, scoring=scoring)
    except ConnectionError as error:
        raise ValueError(
            f"The questions of {task} are not in the cache of datasets here, and the hub cannot be reached ({error}). Give a "
            "folder with the benchmarks' files (--data), or run once with a connection."
        ) from error


def _answer_cache(folder: Path, task: str, scoring: Scoring) -> AnswerCache:
    """Answers kept under the task's version; those that were asked for the same under another scoring are taken over."""
    path = folder / f"{version(task, scoring)}.jsonl"
    others = sorted(folder.glob(f"{task}@{request_version(task)}+*.jsonl"))
    return AnswerCache(path, [other for other in others if other != path])


def _load(ref: ModelRef, settings: BenchmarkSettings) -> Any:
    return load_backend(
        settings.backend, ref, dtype=settings.dtype, device=settings.device, batch_tokens=settings.batch_tokens,
        batch_size=settings.batch_size,
    )  # fmt: skip


def _samples(
    subtasks: Sequence[Subtask],
    logged: Mapping[str, Sequence[Mapping[str, Any]]],
    tokens_cut: Mapping[tuple[str, int], int],
) -> list[Sample]:
    samples: list[Sample] = []
    for subtask in subtasks:
        spec, entries = catalogue()[subtask.name], logged[subtask.task.task_name]
        weight = _weight(subtask, subtasks) if spec.mean_over == "subsets" else 1.0
        seen: Counter[str] = Counter()
        filter_name = subtask.filter or entries[0]["filter"]
        for entry in entries:
            if entry["filter"] != filter_name:
                continue
            seen[entry["doc_hash"]] += 1  # some benchmarks hold a question twice
            sample = from_lm_eval(subtask, entry, weight=weight, occurrence=seen[entry["doc_hash"]])
            cut = tokens_cut.get((subtask.task.task_name, entry["doc_id"]), 0)
            samples.append(sample.model_copy(update={"prompt_tokens_cut": cut}))
    return samples


def _weight(subtask: Subtask, subtasks: Sequence[Subtask]) -> float:
    """Weight by which each subset counts the same: 1 on average over the task's questions."""
    sizes = [len(other.doc_indices) for other in subtasks if other.name == subtask.name]
    return sum(sizes) / len(sizes) / len(subtask.doc_indices)


def _requests_per_doc(subtask: Subtask) -> int:
    """Requests for each question, judged by the first; only the progress bar needs it."""
    task = subtask.task
    if task.OUTPUT_TYPE != "multiple_choice":
        return 1
    return len(task.doc_to_choice(task.eval_docs[subtask.doc_indices[0]]))


def _key(ref: ModelRef, suite: Suite, settings: BenchmarkSettings) -> dict[str, Any]:
    """All that the numbers depend on. `requests` is the part that decides what the model answers to a given request."""
    template = settings.template or suite.template
    chat = template == "chat" or (template == "auto" and bool(load_tokenizer(ref).chat_template))
    return {
        "model": model_fingerprint(ref),
        "requests": {"backend": settings.backend, "dtype": settings.dtype, "chat": chat, "tokens_cut": "kept"},
        "scoring": scoring_of(suite, settings),
        "tasks": {task: version(task, scoring_of(suite, settings)) for task in suite.tasks},
        "limit": {task: doc_limit(suite, settings, task) for task in suite.tasks},
        "max_new_tokens": settings.max_new_tokens,
        "allow_code_execution": settings.allow_code_execution,
        "data": {task: _data_fingerprint(task, settings.data) for task in suite.tasks},
    }


def _data_fingerprint(task: str, folder: Path | None) -> str:
    return "hub" if folder is None else local_data.fingerprint(catalogue()[task].data, folder)


def _provenance(settings: BenchmarkSettings) -> dict[str, Any]:
    names = ("lm_eval", "torch", "transformers", "datasets")
    values = {name: str(value) if isinstance(value, Path) else value for name, value in asdict(settings).items()}
    provenance: dict[str, Any] = {
        "versions": {name: installed_version(name) for name in names},
        "settings": values,
        "sentence_tokenizer": "punkt_tab" if sentences.punkt_is_installed() else "fallback",
    }
    return provenance | ({"containment": sandbox.containment()} if settings.allow_code_execution else {})


def _scores(result: Result) -> dict[str, dict[str, dict[str, float | None]]]:
    """Each score with its 95% interval and n, for readers of the file; None for the ends of a single question."""
    scores: dict[str, dict[str, dict[str, float | None]]] = {}
    for domain, metrics in summarise(result).items():
        scores[domain] = {metric: _finite(asdict(interval)) for metric, interval in metrics.items()}
    return scores


def _finite(values: Mapping[str, float]) -> dict[str, float | None]:
    return {name: value if math.isfinite(value) else None for name, value in values.items()}


def _short_hash(model: str, settings: Mapping[str, Any]) -> str:
    return hashlib.sha256(f"{model} {sorted(settings.items())}".encode()).hexdigest()[:16]
