"""One model on one suite: ask what is not yet answered, score, and keep everything in one result."""

from __future__ import annotations

import hashlib
import logging
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version as installed
from pathlib import Path
from typing import Any, Literal

import lm_eval.evaluator

from fusion.grading import sandbox
from fusion.models.loading import ModelRef, fingerprint, load_tokenizer
from fusion_eval.results import Item, Result
from fusion_eval.runners.answer_cache import AnswerFile, RememberingLM
from fusion_eval.runners.backends import Backend, load_backend
from fusion_eval.statistics.comparison import summarise
from fusion_eval.suites import local_data, sentences
from fusion_eval.suites.items import item
from fusion_eval.suites.quiet import quiet
from fusion_eval.suites.suite import Suite, catalogue
from fusion_eval.suites.tasks import Part, load_task, runs_code, samples, version

Progress = Callable[[int], None]
NO_CODE = "its answers are programs, which are run with --allow-code-execution alone"


@dataclass(frozen=True)
class Settings:
    """How to measure."""

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
    backend: Backend = "transformers"
    dtype: str = "float32"
    device: str = "cpu"
    batch_tokens: int = 4096
    """Tokens of a batch whose likelihood is asked."""
    batch_size: int = 16
    """Answers written at once."""


def evaluate(
    name: str, ref: ModelRef, suite: Suite, how: Settings, out: Path, progress: Callable[[int], Progress]
) -> Result:
    """The result of a model on a suite, in `out`/<name>/<suite>.json; measured now, unless it is there from the same key.

    Answers are kept in `out`/answers, by model, settings and version of each task, so that whatever was stopped goes on
    and whatever was asked is not asked again. `progress` is given the number of requests and gives what is told of each.

    Raises ValueError where nothing of the suite can be measured, and what loading models and data raises.
    """
    key = _key(ref, suite, how)
    file = out / name / f"{suite.name}.json"
    if file.exists() and (there := Result.load(file)).made.get("key") == key:
        return there
    allowed = {task: how.allow_code_execution or not runs_code(task) for task in suite.tasks}
    if not any(allowed.values()):
        raise ValueError(f"Nothing of {suite.name} can be measured: {NO_CODE}.")
    with sentences.tokenizer():
        items = _measure(ref, suite, how, [task for task in suite.tasks if allowed[task]], out, key, progress)
    made = {"key": key, "skipped": {task: NO_CODE for task, ok in allowed.items() if not ok}, **_provenance(how)}
    result = Result(model=name, suite=suite.name, path=ref.path, made=made, items=items)
    result = result.model_copy(update={"made": made | {"scores": _scores(result)}})
    result.save(file)
    return result


def _measure(
    ref: ModelRef, suite: Suite, how: Settings, tasks: Sequence[str], out: Path, key: Mapping[str, Any],
    progress: Callable[[int], Progress],
) -> list[Item]:  # fmt: skip
    parts = [part for task in tasks for part in load_task(task, how.data, _limit(suite, how, task), how.max_new_tokens)]
    folder = out / "answers" / _short(key["model"], key["asked"])
    kept = {task: AnswerFile(folder / f"{version(task)}.jsonl") for task in tasks}
    files = {part.task.task_name: kept[part.name] for part in parts}

    def load() -> Any:
        return load_backend(
            how.backend,
            ref,
            dtype=how.dtype,
            device=how.device,
            batch_tokens=how.batch_tokens,
            batch_size=how.batch_size,
        )

    requests = sum(len(part.indices) * _choices(part) for part in parts)
    lm = RememberingLM(load, files, progress(requests))
    with quiet(logging.WARNING):
        found: Any = lm_eval.evaluator.evaluate(
            lm, {"tasks": {part.task.task_name: part.task for part in parts}}, samples=samples(parts),
            bootstrap_iters=0, apply_chat_template=key["asked"]["chat"], confirm_run_unsafe_code=True,
        )  # fmt: skip
    return _items(parts, found["samples"])


def _items(parts: Sequence[Part], samples: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[Item]:
    items: list[Item] = []
    for part in parts:
        spec = catalogue()[part.name]
        weight = _weight(part, parts) if spec.mean == "subsets" else 1.0
        seen: Counter[str] = Counter()
        wanted = spec.filter or samples[part.task.task_name][0]["filter"]
        for sample in samples[part.task.task_name]:
            if sample["filter"] != wanted:
                continue
            seen[sample["doc_hash"]] += 1  # some benchmarks hold a question twice
            items.append(item(part.task, sample, part.name, part.subset, spec.score, weight, seen[sample["doc_hash"]]))
    return items


def _weight(part: Part, parts: Sequence[Part]) -> float:
    """What makes each subset count the same: 1 on average over the task's questions."""
    sizes = [len(other.indices) for other in parts if other.name == part.name]
    return sum(sizes) / len(sizes) / len(part.indices)


def _choices(part: Part) -> int:
    """Requests for each question, judged by the first; only the progress bar needs it."""
    task = part.task
    return len(task.doc_to_choice(task.eval_docs[part.indices[0]])) if task.OUTPUT_TYPE == "multiple_choice" else 1


def _key(ref: ModelRef, suite: Suite, how: Settings) -> dict[str, Any]:
    """All that makes the numbers. `asked` is the part that decides what the model answers to a given request."""
    template = how.template or suite.template
    chat = template == "chat" or (template == "auto" and bool(load_tokenizer(ref).chat_template))
    return {
        "model": fingerprint(ref),
        "asked": {"backend": how.backend, "dtype": how.dtype, "chat": chat},
        "tasks": {task: version(task) for task in suite.tasks},
        "limit": {task: _limit(suite, how, task) for task in suite.tasks},
        "max_new_tokens": how.max_new_tokens,
        "allow_code_execution": how.allow_code_execution,
        "data": {task: _data(task, how.data) for task in suite.tasks},
    }


def _data(task: str, folder: Path | None) -> str:
    return "hub" if folder is None else local_data.fingerprint(catalogue()[task].data, folder)


def _limit(suite: Suite, how: Settings, task: str) -> int | None:
    return suite.limit.get(task) if how.limit is None else how.limit


def _provenance(how: Settings) -> dict[str, Any]:
    names = ("lm_eval", "torch", "transformers", "datasets")
    made: dict[str, Any] = {"versions": {name: installed(name) for name in names}}
    made["settings"] = {name: str(value) if isinstance(value, Path) else value for name, value in asdict(how).items()}
    made["sentences"] = "punkt_tab" if sentences.installed() else "stand-in"
    return made | ({"containment": sandbox.containment()} if how.allow_code_execution else {})


def _scores(result: Result) -> dict[str, dict[str, dict[str, float | None]]]:
    """For readers of the file: each value with its 95% interval and n; no ends where there is but one question."""
    return {
        domain: {
            metric: {name: value if math.isfinite(value) else None for name, value in asdict(interval).items()}
            for metric, interval in metrics.items()
        }
        for domain, metrics in summarise(result).items()
    }


def _short(model: str, asked: Mapping[str, Any]) -> str:
    return hashlib.sha256(f"{model} {sorted(asked.items())}".encode()).hexdigest()[:16]
