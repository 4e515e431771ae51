"""Prompt log-probabilities from a server that echoes the prompt (`echo: true, logprobs: K`), as OpenAI's completions API does.

The lists of an answer have one item for each token of the prompt, and the token that was generated behind them. An item's
log-probabilities should be those of this token, given the ones before it. llama-cpp-python gives the distribution *behind* the
token instead, wherever the prompt does not begin with BOS. `measure_lag` finds out by asking, and `read_echo` puts them back.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from fusion.sources.prompt_logprobs import TokenLogprobs, as_number, mismatch
from fusion.sources.token_names import TokenNames

_SAME = (
    0.05  # nats: kernels round otherwise in another batch, and a distribution behind another token is much further away
)


def read_echo(answer: Mapping[str, Any], sent: Sequence[int], names: TokenNames, lag: int) -> Sequence[TokenLogprobs]:
    """Return the log-probabilities at each token that was sent: by id, empty where the server gives none.

    Names that several tokens could have are left out. `lag` is 0 where an item is about its own token, 1 where it is about
    the next one; then a token's own log-probability is known only if it is among the K likeliest. Raises ValueError where
    the server read other tokens than `sent`.
    """
    logprobs, places = _placed(answer, sent, names)
    own, top = logprobs["token_logprobs"], logprobs["top_logprobs"]
    entries_per_token: list[dict[int, float]] = []
    for number, (id, before) in enumerate(zip(sent, names.pending(sent), strict=True)):
        place = places[number - lag] if number >= lag else -1
        if place > 0 and top[place] is None:
            raise ValueError(
                f"nothing (null) is listed at token {number} of {len(sent)}, and only the first can have nothing"
            )
        named = {} if place < 0 else top[place] or {}
        entries = {names.id_of(name, before): as_number(value, repr(name)) for name, value in named.items()}
        if place >= 0 and not lag and own[place] is not None:
            entries[id] = as_number(own[place], f"token {number}")
        entries.pop(-1, None)
        entries_per_token.append(entries)
    return entries_per_token


def measure_lag(
    ask: Callable[[Sequence[int]], Mapping[str, Any]], names: TokenNames, prompts: tuple[Sequence[int], Sequence[int]]
) -> int:
    """Return 0 where items are about their own token, 1 where they are about the next one.

    The two prompts must differ in their last token alone: what is said *of* that token cannot depend on it. Raises
    ValueError where the numbers fit neither.
    """
    items = []
    for sent in prompts:
        logprobs, places = _placed(ask(sent), sent, names)
        items.append([{} if place < 0 else logprobs["top_logprobs"][place] or {} for place in places[-1:-3:-1]])
    for lag, (one, other) in enumerate(zip(*items, strict=True)):
        if _agree(one, other):
            return lag
    raise ValueError(
        "two prompts that differ in their last token alone have other log-probabilities before that token as well, so these "
        f"cannot be placed: {_shown(items[0][0])} and {_shown(items[1][0])}. Use another server, or kind: transformers."
    )


def _placed(answer: Mapping[str, Any], sent: Sequence[int], names: TokenNames) -> tuple[Mapping[str, Any], list[int]]:
    """Return the echoed lists, and the index in them of each token that was sent, -1 where the server leaves it out."""
    logprobs = answer["choices"][0].get("logprobs") or {}
    listed = logprobs.get("tokens") or []
    if not listed or not logprobs.get("top_logprobs") or not any(map(bool, logprobs["top_logprobs"][:-1])):
        raise ValueError(
            f"{len(sent)} tokens were sent, and {len(listed)} came back with log-probabilities. The server must support echo "
            "with logprobs for prompts; docs/sources.md lists servers. Try logprobs_api: prompt_logprobs, or another server."
        )
    places, read = names.places(listed, sent), (answer.get("usage") or {}).get("prompt_tokens", len(sent))
    if len(places) < len(sent) or read != len(sent):
        at = sum(place >= 0 for place in places)
        texts = names.tokenizer.batch_decode([[id] for id in sent[len(places) : len(places) + 3]])
        raise ValueError(mismatch(read, len(sent), returned_tokens=listed[at:], sent_tokens=texts))
    return logprobs, places


def _agree(one: Mapping[str, float], other: Mapping[str, float]) -> bool:
    shared = one.keys() & other.keys()
    likeliest = {max(each, key=lambda name: each[name], default=None) for each in (one, other)}
    return bool(shared) and len(likeliest) == 1 and all(abs(one[name] - other[name]) < _SAME for name in shared)


def _shown(entries: Mapping[str, float]) -> dict[str, float]:
    return {name: round(value, 2) for name, value in list(entries.items())[:3]}
