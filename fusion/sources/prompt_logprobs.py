"""Rows from prompt log-probabilities, the form in which vLLM and OpenAI-compatible servers return them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from fusion.core.rows import LogitRows
from fusion.data.encode import Encoded

ROUNDING = 0.01
"""How far values may be above 0, and mass above 1, by rounding."""
FAR_WORSE, ENOUGH = 10.0, 16
"""So many nats below chance, on average over so many tokens, is no model that reads the text."""
TokenLogprobs = Mapping[int, float]
"""Token id -> natural-log probability, of some of the tokens that could follow at one position."""


def rows_from_logprobs(
    text: Encoded, logprobs_per_token: Sequence[TokenLogprobs], k: int, vocabulary: int, example: int = 0
) -> LogitRows:
    """Return the rows of one text from the log-probabilities at each of its response positions.

    The K most likely become the entries; ids from `vocabulary` on belong to no token (padded heads) and are left out, so
    their probability counts as mass outside the entries. `gold` is NaN where the token that follows is not listed; mean
    and standard deviation are always NaN. Raises ValueError where there are not as many lists as rows, and for numbers that
    cannot be natural-log probabilities of a model that reads this text.
    """
    if len(logprobs_per_token) != text.num_rows:
        raise ValueError(
            f"The response has {text.num_rows} tokens, and {len(logprobs_per_token)} of them came back with log-probabilities."
        )
    logprobs = torch.full((text.num_rows, k), -torch.inf)
    ids = torch.full((text.num_rows, k), -1)
    token = text.input_ids[text.start :]
    for row, entries in enumerate(logprobs_per_token):
        best = sorted(((value, id) for id, value in entries.items() if id < vocabulary), key=lambda e: -e[0])[:k]
        if best:
            values, chosen = zip(*best, strict=True)
            logprobs[row, : len(best)] = torch.tensor(values)
            ids[row, : len(best)] = torch.tensor(chosen)
    gold = torch.tensor([entries.get(id, torch.nan) for entries, id in zip(logprobs_per_token, token, strict=True)])
    _check_plausible(logprobs, gold, vocabulary)
    unknown = torch.full_like(gold, torch.nan)
    prefix, number = torch.tensor(text.prefix), torch.full((text.num_rows,), example)
    return LogitRows(logprobs, ids, gold, unknown, unknown, prefix=prefix, example=number, token=torch.tensor(token))


def _check_plausible(logprobs: Tensor, gold: Tensor, vocabulary: int) -> None:
    """Raise ValueError for values above 0, more mass than 1, or true tokens far less likely than chance makes them."""
    known = gold[gold.isfinite()]
    highest = max([*known.tolist(), *logprobs.flatten().tolist()], default=0.0)
    mass = float(logprobs.exp().sum(-1).max()) if logprobs.numel() else 0.0
    lowest = -math.log(vocabulary) - FAR_WORSE
    if highest > ROUNDING or mass > 1 + ROUNDING:
        raise ValueError(
            f"its numbers are no natural-log probabilities: the highest is {highest:.3f}, where at most 0 can be, and the "
            f"listed tokens of one position have {mass:.3f} of the probability together. Logits or other logarithms? The "
            "server must return log-probabilities over the whole vocabulary (vLLM: --logprobs-mode raw_logprobs)."
        )
    if len(known) >= ENOUGH and float(known.mean()) < lowest:
        raise ValueError(
            f"the text's own tokens have {float(known.mean()):.2f} nats on average, and guessing among {vocabulary} tokens "
            f"gives {-math.log(vocabulary):.2f}: these numbers are not about this text, or no log-probabilities."
        )


def mismatch(returned: int, sent: int, *, returned_tokens: Sequence[Any], sent_tokens: Sequence[Any]) -> str:
    """Return the message for an answer about other tokens than were sent."""
    return (
        f"it answered for other tokens than were sent: {returned} for {sent}, {list(returned_tokens[:3])} where "
        f"{list(sent_tokens[:3])} stood. The tokenizer at the source's path must be the server's own, and the server must add "
        "nothing to the prompt. Where it takes token ids, prompt: ids leaves nothing to be cut otherwise; else leave the "
        "example out."
    )


def read_prompt_logprobs(answer: Mapping[str, Any], sent: Sequence[int]) -> Sequence[TokenLogprobs]:
    """Parse vLLM's extension: at each token of a prompt {"123": {"logprob": -0.1, "rank": 1}, ...}, null at the first.

    Raises ValueError where the server read other tokens than `sent`: every token of a prompt is among its own entries.
    """
    choice = answer["choices"][0]
    listed = choice.get("prompt_logprobs")
    if listed is None:
        raise ValueError(
            "the answer has no prompt_logprobs. Use logprobs_api: echo, or a server with this extension (vllm serve)."
        )
    returned = choice.get("prompt_token_ids")
    entries_per_token = [_logprobs(entries) for entries in listed]
    wrong = [n for n, entries in enumerate(entries_per_token) if n and n < len(sent) and sent[n] not in entries]
    if (returned is not None and list(returned) != list(sent)) or len(entries_per_token) != len(sent) or wrong:
        raise ValueError(
            mismatch(
                len(entries_per_token) if returned is None else len(returned),
                len(sent),
                returned_tokens=returned or [sorted(entries_per_token[n]) for n in wrong[:1]],
                sent_tokens=sent[wrong[0] :] if wrong and not returned else sent,
            )
        )
    return entries_per_token


def _logprobs(entries: Mapping[str, Any] | None) -> dict[int, float]:
    return {int(id): float(entry["logprob"]) for id, entry in (entries or {}).items()}
