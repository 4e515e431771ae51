"""An `LM` of lm-eval whose answers are kept on disk, one line each, so that no request is answered twice."""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from lm_eval.api.instance import Instance
from lm_eval.api.model import LM
from typing_extensions import override

from fusion_eval.runners import Progress
from fusion_eval.runners.truncation import prompt_tokens_cut

Answer = Any
"""lm-eval's response to a request: (log-likelihood, whether greedy), a log-likelihood, or a text."""


def request_key(method: str, arguments: Iterable[Any]) -> str:
    """Hash a request: 32 hex digits of lm-eval's method, its texts and its settings."""
    text = json.dumps([method, *arguments], ensure_ascii=False, sort_keys=True)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]


class AnswerCache:
    """Answers of one model to one version of one task by request key: a file of JSON lines that only grows.

    A line is [key, answer, tokens cut off the prompt]. `others` are files of the same model and requests under another
    scoring, whose answers hold here too and are only read. The process may be killed at any time. Raises ValueError where a
    line other than the last is damaged.
    """

    def __init__(self, path: Path, others: Sequence[Path] = ()) -> None:
        self.path = path
        self.answers: dict[str, Answer] = {}
        self.tokens_cut: dict[str, int] = {}
        """By request key: the tokens that were cut off the prompt's beginning, which did not fit the model's context."""
        for file in [*others, path]:
            for key, answer, cut in self._read(file):
                self.answers[key], self.tokens_cut[key] = answer, cut

    def _read(self, path: Path) -> Iterable[tuple[str, Answer, int]]:
        if not path.exists():
            return
        lines = path.read_bytes().split(b"\n")
        if lines.pop() and path == self.path:  # cut off while it was written
            with path.open("r+b") as stream:
                stream.truncate(sum(len(line) + 1 for line in lines))
        for number, line in enumerate(lines, 1):
            try:
                key, answer, cut = json.loads(line)
                self._refuse_nan(answer)
                yield key, answer, cut
            except ValueError as error:
                raise ValueError(
                    f"{path}, line {number}, is damaged ({str(error).rstrip('.')}). Delete the line, or the file to ask again."
                ) from error

    def _refuse_nan(self, answer: Answer) -> None:
        """A choice among options whose likelihoods are NaN would be the first, and no score."""
        numbers = answer if isinstance(answer, list | tuple) else [answer]
        if any(isinstance(number, float) and math.isnan(number) for number in numbers):
            raise ValueError(
                f"{self.path.parent.name}: the model gives a likelihood of NaN to a text of {self.path.stem}, which is no "
                "score. Choose --dtype float32; if it stays so, the model is damaged: leave it out."
            )

    def add(self, key: str, answer: Answer, tokens_cut: int = 0) -> None:
        """Add an answer, here and on disk; `tokens_cut` of its prompt did not fit. Raises ValueError for NaN."""
        self._refuse_nan(answer)
        self.answers[key], self.tokens_cut[key] = answer, tokens_cut
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps([key, answer, tokens_cut], ensure_ascii=False) + "\n")


class AnswerCachingLM(LM):
    """Answers requests from caches, and those that are missing by the model that `load` returns.

    The model is not loaded where nothing is missing. `caches` are by task name; `progress` is called for each answer, cached
    or new.
    """

    def __init__(self, load: Callable[[], LM], caches: Mapping[str, AnswerCache], progress: Progress) -> None:
        super().__init__()
        self._load, self._caches, self._progress = load, caches, progress
        self.forwarded = 0
        """Number of requests that the model itself answered."""
        self.tokens_cut: dict[tuple[str, int], int] = {}
        """(Task, document) -> the most tokens that were cut off a prompt of it; documents whose prompts fit are not in it."""

    @cached_property
    def lm(self) -> LM:
        """The model, loaded when it is first needed."""
        return self._load()

    @override
    def loglikelihood(self, requests: list[Instance]) -> list[tuple[float, bool]]:
        return [tuple(answer) for answer in self._answers("loglikelihood", requests)]

    @override
    def loglikelihood_rolling(self, requests: list[Instance]) -> list[float]:
        return self._answers("loglikelihood_rolling", requests, batch_size=8)  # reported when all of a call are done

    @override
    def generate_until(self, requests: list[Instance]) -> list[str]:
        return self._answers("generate_until", requests)

    @override
    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        return self.lm.apply_chat_template(chat_history, add_generation_prompt)

    @property
    @override
    def tokenizer_name(self) -> str:
        return self.lm.tokenizer_name

    def _answers(self, method: str, requests: Sequence[Instance], batch_size: int | None = None) -> list[Any]:
        keys = [request_key(method, request.args) for request in requests]
        caches = {key: self._caches[str(request.task_name)] for key, request in zip(keys, requests, strict=True)}
        missing = {k: r for k, r in zip(keys, requests, strict=True) if k not in caches[k].answers}
        self._counts = Counter(keys)
        self._progress(sum(count for key, count in self._counts.items() if key not in missing))
        pending, step = list(missing.items()), batch_size or max(1, len(missing))
        if pending:
            self.lm.set_cache_hook(self._hook(caches))
        for start in range(0, len(pending), step):
            batch = pending[start : start + step]
            self.forwarded += len(batch)
            answers = getattr(self.lm, method)([request for _, request in batch], disable_tqdm=True)
            for (key, request), answer in zip(batch, answers, strict=True):
                if key not in caches[key].answers:
                    self._add(caches[key], key, answer, prompt_tokens_cut(self.lm, method, request.args))
        for key, request in zip(keys, requests, strict=True):
            if cut := caches[key].tokens_cut[key]:
                place = str(request.task_name), int(request.doc_id or 0)
                self.tokens_cut[place] = max(cut, self.tokens_cut.get(place, 0))
        return [caches[key].answers[key] for key in keys]

    def _hook(self, caches: Mapping[str, AnswerCache]) -> Any:
        add, lm = self._add, self.lm

        class CacheHook:
            """lm-eval's models report each answer to this as soon as they have it."""

            def add_partial(self, method: str, arguments: Iterable[Any], answer: Answer) -> None:
                key = request_key(method, arguments)
                if key in caches and key not in caches[key].answers:
                    add(caches[key], key, answer, prompt_tokens_cut(lm, method, list(arguments)))

        return CacheHook()

    def _add(self, cache: AnswerCache, key: str, answer: Answer, tokens_cut: int) -> None:
        cache.add(key, answer, tokens_cut)
        self._progress(self._counts[key])
