"""A model that is asked nothing twice: its answers are kept, one line each, as soon as they are known."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from lm_eval.api.instance import Instance
from lm_eval.api.model import LM

Answer = Any
"""A likelihood with whether it was greedy, a log-likelihood, or a text."""


def request_key(method: str, arguments: Iterable[Any]) -> str:
    """What was asked: 32 hex digits of the method and its whole text and settings."""
    text = json.dumps([method, *arguments], ensure_ascii=False, sort_keys=True)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]


class AnswerFile:
    """Answers of one model to one version of one task: JSON lines that only grow. Safe to kill at any time."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.answers: dict[str, Answer] = dict(self._read())

    def _read(self) -> Iterable[tuple[str, Answer]]:
        if not self.path.exists():
            return
        lines = self.path.read_bytes().split(b"\n")
        if lines.pop():  # cut off while it was written
            with self.path.open("r+b") as stream:
                stream.truncate(sum(len(line) + 1 for line in lines))
        for number, line in enumerate(lines, 1):
            try:
                yield tuple(json.loads(line))
            except ValueError as error:
                raise ValueError(
                    f"{self.path}, line {number}, is damaged ({error}). Delete the line, or the file to ask again."
                ) from error

    def add(self, key: str, answer: Answer) -> None:
        """Keep an answer, now and on disk."""
        self.answers[key] = answer
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps([key, answer], ensure_ascii=False) + "\n")


class RememberingLM(LM):
    """Asks `load()`'s model what its files do not hold; the model is not even loaded where they hold all.

    `files` are by task name; `progress` is told of each answer that is there, old or new.
    """

    def __init__(
        self, load: Callable[[], LM], files: Mapping[str, AnswerFile], progress: Callable[[int], None]
    ) -> None:
        super().__init__()
        self._load, self._files, self._progress = load, files, progress
        self.asked = 0
        """How many requests the model itself was given."""

    @cached_property
    def lm(self) -> LM:
        """The model, loaded when it is first needed."""
        return self._load()

    def loglikelihood(self, requests: list[Instance]) -> list[tuple[float, bool]]:
        """See `LM`."""
        return [tuple(answer) for answer in self._answers("loglikelihood", requests)]

    def loglikelihood_rolling(self, requests: list[Instance]) -> list[float]:
        """See `LM`."""
        return self._answers("loglikelihood_rolling", requests, at_once=8)  # reported when all of a call are done

    def generate_until(self, requests: list[Instance]) -> list[str]:
        """See `LM`."""
        return self._answers("generate_until", requests)

    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        """See `LM`."""
        return self.lm.apply_chat_template(chat_history, add_generation_prompt)

    @property
    def tokenizer_name(self) -> str:
        """See `LM`."""
        return self.lm.tokenizer_name

    def _answers(self, method: str, requests: Sequence[Instance], at_once: int | None = None) -> list[Any]:
        keys = [request_key(method, request.args) for request in requests]
        files = {key: self._files[str(request.task_name)] for key, request in zip(keys, requests, strict=True)}
        missing = {k: r for k, r in zip(keys, requests, strict=True) if k not in files[k].answers}
        self._counts = Counter(keys)
        self._progress(sum(count for key, count in self._counts.items() if key not in missing))
        asked, step = list(missing.items()), at_once or max(1, len(missing))
        if asked:
            self.lm.set_cache_hook(self._hook(files))
        for start in range(0, len(asked), step):
            part = asked[start : start + step]
            self.asked += len(part)
            found = getattr(self.lm, method)([request for _, request in part], disable_tqdm=True)
            for (key, _), answer in zip(part, found, strict=True):
                if key not in files[key].answers:
                    self._keep(files[key], key, answer)
        return [files[key].answers[key] for key in keys]

    def _hook(self, files: Mapping[str, AnswerFile]) -> Any:
        keep = self._keep

        class Hook:
            """lm-eval's models report each answer to this as soon as they have it."""

            def add_partial(self, method: str, arguments: Iterable[Any], answer: Answer) -> None:
                key = request_key(method, arguments)
                if key in files and key not in files[key].answers:
                    keep(files[key], key, answer)

        return Hook()

    def _keep(self, file: AnswerFile, key: str, answer: Answer) -> None:
        file.add(key, answer)
        self._progress(self._counts[key])
