"""Importers of JSON lines: a format of your own programs, and vLLM's prompt log-probabilities of its server or engine.

`jsonl`, one sequence a line; row r predicts token `first + r`; the first three fields are required, `first` is 1 by default:

    {"input_ids": [5, 9, 2], "ids": [[9, 4], [2, 7]], "logprobs": [[-0.1, -3.0], [-0.2, -2.5]],
     "first": 1, "gold": [-0.1, -0.2], "mean": [-9.0, -8.5], "std": [2.1, 2.0]}

`vllm`, one prompt a line, as in a RequestOutput or a choice of the server's answer, which may also stand there whole; the
values are log-probabilities of the whole vocabulary (logprobs_mode: raw_logprobs, vLLM's default):

    {"prompt_token_ids": [5, 9, 2], "prompt_logprobs": [null, {"9": {"logprob": -0.1, "rank": 1}}, {"2": {...}}]}
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from fusion.sources.importers.sequence import ImportedSequence


def read_jsonl(files: Sequence[Path]) -> Iterator[ImportedSequence]:
    """Yield sequences in the order of the files. Raises ValueError, with file and line, for what is not as above."""
    for line in _lines(files, _sequence):
        yield from line


def read_vllm(files: Sequence[Path]) -> Iterator[ImportedSequence]:
    """Yield prompts in the order of the files. Raises ValueError, with file and line, for what is not as above."""
    for line in _lines(files, _vllm_sequences):
        yield from line


def _lines(
    files: Sequence[Path], parse: Callable[[Mapping[str, Any]], list[ImportedSequence]]
) -> Iterator[list[ImportedSequence]]:
    for file in files:
        with file.open() as lines:
            for number, line in enumerate(lines, start=1):
                try:
                    yield parse(json.loads(line)) if line.strip() else []
                except (KeyError, TypeError, AttributeError, ValueError) as error:
                    what = f"{error.args[0]!r} is missing" if isinstance(error, KeyError) else error
                    raise ValueError(
                        f"{file}, line {number}: {what}. docs/sources.md shows what a line holds."
                    ) from error


def _sequence(line: Mapping[str, Any]) -> list[ImportedSequence]:
    fields = {name: torch.tensor(line[name]).float() for name in ("gold", "mean", "std") if line.get(name) is not None}
    logprobs, ids = _padded(line["logprobs"], -torch.inf).float(), _padded(line["ids"], -1).long()
    if logprobs.shape != ids.shape or any(len(field) != len(ids) for field in fields.values()):
        sizes = {"ids": tuple(ids.shape), "logprobs": tuple(logprobs.shape)} | {n: len(f) for n, f in fields.items()}
        raise ValueError(f"there must be as many of each, and there are {sizes}")
    return [ImportedSequence(list(line["input_ids"]), logprobs, ids, int(line.get("first", 1)), **fields)]


def _vllm_sequences(line: Mapping[str, Any]) -> list[ImportedSequence]:
    return [_vllm_sequence(choice) for choice in line.get("choices", [line])]


def _vllm_sequence(choice: Mapping[str, Any]) -> ImportedSequence:
    tokens, entries_per_token = list(choice["prompt_token_ids"]), choice["prompt_logprobs"]
    if len(entries_per_token) != len(tokens):
        raise ValueError(f"{len(tokens)} tokens have {len(entries_per_token)} entries in prompt_logprobs")
    ids = [list(map(int, entries or {})) for entries in entries_per_token[1:]]
    values = [list(map(_logprob, (entries or {}).values())) for entries in entries_per_token[1:]]
    return ImportedSequence(tokens, _padded(values, -torch.inf).float(), _padded(ids, -1).long())


def _logprob(entry: Mapping[str, float] | float) -> float:
    return entry["logprob"] if isinstance(entry, Mapping) else entry


def _padded(rows: Sequence[Sequence[Any]], empty: float | int) -> torch.Tensor:
    """Return rows of different lengths as one tensor, the shorter ones padded with `empty`."""
    width = max((len(row) for row in rows), default=0)
    return torch.tensor([[*row, *[empty] * (width - len(row))] for row in rows]).reshape(len(rows), width)
