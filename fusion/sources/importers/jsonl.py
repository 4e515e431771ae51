"""Importers of JSON lines: a format of your own programs, and vLLM's prompt log-probabilities of its server or engine.

`jsonl`, one sequence a line; row r predicts token `first + r`; the first three fields are required, `first` is 1 by default:

    {"input_ids": [5, 9, 2], "ids": [[9, 4], [2, 7]], "logprobs": [[-0.1, -3.0], [-0.2, -2.5]],
     "first": 1, "gold": [-0.1, -0.2], "mean": [-9.0, -8.5], "std": [2.1, 2.0]}

`null` stands for what is not known: a gold, mean or std, and the whole row of token 0, which has none.

`vllm`, one prompt a line, as in a RequestOutput or a choice of the server's answer, which may also stand there whole; the
values are log-probabilities of the whole vocabulary (logprobs_mode: raw_logprobs, vLLM's default):

    {"prompt_token_ids": [5, 9, 2], "prompt_logprobs": [null, {"9": {"logprob": -0.1, "rank": 1}}, {"2": {...}}]}
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from fusion.sources.importers.sequence import ImportedSequence
from fusion.sources.listed import padded_rows
from fusion.sources.prompt_logprobs import check_own_tokens, logprobs_by_id

Parse = Callable[[Mapping[str, Any], str], list[ImportedSequence]]
"""From what a line holds, and its name, to its sequences."""

WRONG_LINE = (KeyError, TypeError, AttributeError, ValueError, OverflowError, RuntimeError)
"""What a line of another form raises; torch has RuntimeError for lists of several depths and numbers beyond its types."""


def read_jsonl(files: Sequence[Path]) -> Iterator[ImportedSequence]:
    """Yield sequences in the order of the files. Raises ValueError, with file and line, for what is not as above."""
    for line in _lines(files, _sequence):
        yield from line


def read_vllm(files: Sequence[Path]) -> Iterator[ImportedSequence]:
    """Yield prompts in the order of the files. Raises ValueError, with file and line, for what is not as above."""
    for line in _lines(files, _vllm_sequences):
        yield from line


def _lines(files: Sequence[Path], parse: Parse) -> Iterator[list[ImportedSequence]]:
    for file in files:
        with file.open("rb") as lines:  # json decodes: what is not UTF-8 is a mistake of its line
            for number, line in enumerate(lines, start=1):
                where = f"{file}, line {number}"
                try:
                    yield parse(_object(json.loads(line)), where) if line.strip() else []
                except WRONG_LINE as error:
                    what = f"{error.args[0]!r} is missing" if isinstance(error, KeyError) else error
                    raise ValueError(f"{where}: {what}. docs/sources.md shows what a line holds.") from error


def _object(line: Any) -> Mapping[str, Any]:
    if not isinstance(line, Mapping):
        raise ValueError(f"it holds a {type(line).__name__}, and must hold an object")
    return line


def _sequence(line: Mapping[str, Any], where: str) -> list[ImportedSequence]:
    values, ids, tokens = line["logprobs"], line["ids"], list(line["input_ids"])
    fields = {name: line[name] for name in ("gold", "mean", "std") if line.get(name) is not None}
    if any(len(field) != len(values) for field in (ids, *fields.values())):
        sizes = {"ids": len(ids), "logprobs": len(values)} | {name: len(field) for name, field in fields.items()}
        raise ValueError(f"there must be as many of each, and there are {sizes}")
    first = int(line.get("first", 1))
    if len(values) == len(tokens) and values and values[0] is None:
        values, ids, first, fields = values[1:], ids[1:], 1, {name: field[1:] for name, field in fields.items()}
    if first < 1:
        raise ValueError(f"first is {first}, and the first token that a row can be about is token 1")
    gold, mean, std = (_numbers(name, fields.get(name)) for name in ("gold", "mean", "std"))
    logprobs, ids = padded_rows(values, ids)
    return [ImportedSequence(tokens, logprobs, ids, first, gold, mean, std, where)]


def _numbers(name: str, values: Sequence[float | None] | None) -> torch.Tensor | None:
    """Return a field with NaN where it is null; None where there is none."""
    if values is None:
        return None
    for row, value in enumerate(values):
        if value is not None and math.isnan(value):
            raise ValueError(f"{name} of row {row} is NaN; write null where it is not known")
    return torch.tensor([math.nan if value is None else value for value in values], dtype=torch.float64)


def _vllm_sequences(line: Mapping[str, Any], where: str) -> list[ImportedSequence]:
    choices = line.get("choices")
    if choices is None:
        return [_vllm_sequence(line, where)]
    return [_vllm_sequence(choice, f"{where}, choice {number}") for number, choice in enumerate(choices)]


def _vllm_sequence(choice: Mapping[str, Any], where: str) -> ImportedSequence:
    tokens, entries_per_token = list(choice["prompt_token_ids"]), choice["prompt_logprobs"]
    if len(entries_per_token) != len(tokens):
        raise ValueError(f"{len(tokens)} tokens have {len(entries_per_token)} entries in prompt_logprobs")
    logprobs_per_token = [logprobs_by_id(entries) for entries in entries_per_token]
    check_own_tokens(tokens, logprobs_per_token)
    rows = logprobs_per_token[1:]
    values, ids = padded_rows([list(row.values()) for row in rows], [list(row) for row in rows])
    return ImportedSequence(tokens, values, ids, origin=where)
