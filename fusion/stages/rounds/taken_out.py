"""What a model said of the texts of a round, as plain values for other programs."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from typing import Any

from transformers import PreTrainedTokenizerBase

from fusion.cache import Cache
from fusion.core.rows import LogitRows
from fusion.data.encode import Encoded
from fusion.stages.rounds.context import RoundContext
from fusion.stages.rounds.read import readers
from fusion.tokenizers import vocabulary_bytes


def texts_with_reads(context: RoundContext, name: str) -> Iterator[dict[str, Any]]:
    """Yield every text of a round that a model read, with what it says of each of its tokens; see `Run.round_reads`.

    Nothing where it is a source that may teach none of them. Raises ValueError, naming the folder, where it has read nothing.
    """
    if name not in readers(context):
        raise ValueError(
            f"no objective of the rounds of {context.run.config.name} reads sources, so that {name} read nothing."
        )
    reader = context if name == "pivot" else dataclasses.replace(context, reader=name)
    if name != "pivot" and not any(context.may_teach(name)):
        return
    cache, tokenizer = Cache(context.config.folder / "cache" / name), context.tokenizers[name]
    for text, encoded in zip(reader.read, reader.encoded(name), strict=True):
        example = text.example
        yield {
            "id": example.id,
            "prompt_id": example.prompt_id,
            "domain": example.domain,
            "messages": [dict(message) for message in example.messages],
            "text": example.response,
            "ended": text.rollout.end is not None,
            "passed": text.passed,
            "reward": text.reward,
            "reader": name,
            "tokens": _tokens(tokenizer, encoded, cache.rows([example.id])),
        }


def _tokens(tokenizer: PreTrainedTokenizerBase, encoded: Encoded, rows: LogitRows) -> list[dict[str, Any]]:
    ids = encoded.input_ids[encoded.start :]
    logprobs, prefix = rows.gold.tolist(), rows.prefix.tolist()
    entries = zip(rows.ids.tolist(), rows.logprobs.tolist(), strict=True)
    return [
        {
            "token_id": id,
            "token": _spelled(tokenizer, id),
            "bytes_before": prefix[n],
            "logprob": _number(logprobs[n]),
            "top": [[k, _number(value)] for k, value in zip(*found, strict=True) if k >= 0],
        }
        for n, (id, found) in enumerate(zip(ids, entries, strict=True))
    ]


def _spelled(tokenizer: PreTrainedTokenizerBase, id: int) -> str:
    """A token as text; one that holds a part of a character has a replacement character there."""
    piece = vocabulary_bytes(tokenizer)[id]
    return str(tokenizer.convert_ids_to_tokens(id)) if piece is None else piece.decode(errors="replace")


def _number(value: float) -> float | None:
    """JSON has no NaN, which stands for what a server does not tell."""
    return value if math.isfinite(value) else None
