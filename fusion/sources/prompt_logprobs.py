"""Rows from prompt log-probabilities, the form in which vLLM and OpenAI-compatible servers return them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from fusion.core.rows import LogitRows
from fusion.data.encode import Encoded
from fusion.sources.listed import ListedRows, SourceCheck, check_numbers, padded_rows, top_entries

TokenLogprobs = Mapping[int, float]
"""Token id -> natural-log probability, of some of the tokens that could follow at one position."""


def rows_from_logprobs(
    text: Encoded,
    logprobs_per_token: Sequence[TokenLogprobs],
    k: int,
    vocabulary: int,
    example: int = 0,
    *,
    check: SourceCheck | None = None,
    likeliest: bool = True,
) -> LogitRows:
    """Return the rows of one text from the log-probabilities at each of its response positions.

    The K most likely become the entries; ids from `vocabulary` on belong to no token (padded heads) and are left out, so
    their probability counts as mass outside the entries. `gold` is NaN where the token that follows is not listed; mean
    and standard deviation are always NaN. `check` is told of the rows, whoever concludes it later; `likeliest` is false where
    likely tokens may have been left out. Raises ValueError where there are not as many lists as rows, and for numbers that
    cannot be natural-log probabilities.
    """
    if len(logprobs_per_token) != text.num_rows:
        raise ValueError(
            f"The response has {text.num_rows} tokens, and {len(logprobs_per_token)} of them came back with log-probabilities."
        )
    token = text.input_ids[text.start :]
    gold = torch.tensor([entries.get(id, torch.nan) for entries, id in zip(logprobs_per_token, token, strict=True)])
    values, ids = padded_rows([list(each.values()) for each in logprobs_per_token], list(map(list, logprobs_per_token)))
    listed = ListedRows(text.input_ids, values, ids, text.start, gold, likeliest=likeliest)
    check_numbers(listed)
    (check or SourceCheck(vocabulary)).add(listed)
    logprobs, ids = top_entries(values.float(), ids, k, vocabulary)
    unknown = torch.full_like(gold, torch.nan)
    prefix, number = torch.tensor(text.prefix), torch.full((text.num_rows,), example)
    return LogitRows(
        logprobs, ids, gold.clamp(max=0), unknown, unknown, prefix=prefix, example=number, token=torch.tensor(token)
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
    entries_per_token = [logprobs_by_id(entries) for entries in listed]
    if len(entries_per_token) != len(sent) or (returned is not None and list(returned) != list(sent)):
        count, tokens = len(entries_per_token), list(returned or [])
        raise ValueError(
            mismatch(count if returned is None else len(tokens), len(sent), returned_tokens=tokens, sent_tokens=sent)
        )
    check_own_tokens(sent, entries_per_token)
    return entries_per_token


def logprobs_by_id(entries: Mapping[str, Any] | None) -> dict[int, float]:
    """Return what is listed at one token: {"123": {"logprob": -0.1, ...}} or {"123": -0.1}; nothing for null.

    Raises ValueError for what is no number.
    """
    logprobs = {}
    for id, entry in (entries or {}).items():
        value = entry.get("logprob") if isinstance(entry, Mapping) else entry
        logprobs[int(id)] = as_number(value, f"id {id}")
    return logprobs


def as_number(value: Any, token: str) -> float:
    """Return a log-probability of a JSON answer. Raises ValueError, with the token, for what is no number."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"the log-probability of {token} is {value!r}, and must be a number")
    return float(value)


def check_own_tokens(tokens: Sequence[int], entries_per_token: Sequence[TokenLogprobs]) -> None:
    """Raise ValueError where nothing is listed at a token behind the first, or other tokens than the text's own.

    vLLM lists each token of a prompt among its own entries, whether it is likely or not, and null at the first alone.
    """
    for number, entries in enumerate(entries_per_token):
        if number and not entries:
            raise ValueError(
                f"nothing (null) is listed at token {number} of {len(tokens)}, and only the first has no log-probabilities"
            )
    wrong = [n for n in range(1, len(tokens)) if tokens[n] not in entries_per_token[n]]
    if not wrong:
        return
    for moved, direction in ((1, "earlier"), (-1, "later")):
        inside = [n for n in range(1, len(tokens)) if 0 < n + moved < len(tokens)]
        if len(inside) > 1 and all(tokens[n + moved] in entries_per_token[n] for n in inside):
            raise ValueError(
                f"the log-probabilities are shifted, one token {direction} than the tokens they are about: token {wrong[0]} is "
                "not among its own entries, and would be if they were moved by one"
            )
    raise ValueError(
        mismatch(
            len(tokens),
            len(tokens),
            returned_tokens=sorted(entries_per_token[wrong[0]]),
            sent_tokens=tokens[wrong[0] :],
        )
    )
