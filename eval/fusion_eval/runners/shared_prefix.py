"""Log-likelihood of continuations, with prefixes that contexts share read once.

The choices of a question share its text, and questions of one task often share few-shot examples. So a text is read in
three steps, each with the keys and values of the one before: shared prefix, rest of the context, continuation. Logits are
computed only where a continuation is predicted; everywhere else a model's head would be most of the work for nothing.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from fusion.data.batching import length_grouped_batches
from fusion.models.head import Head, run_to_head, without_router_loss

Tokens = tuple[int, ...]

LOGITS_IN_MEMORY = 2**25  # held at a time: 128 MiB of float32
MIN_SHARED_TOKENS = 32
"""Tokens that several contexts must share at their beginning to be worth a step of their own."""


class ContinuationRequest(NamedTuple):
    """Token ids of a continuation whose likelihood is to be computed, and of the context it follows."""

    context: Tokens
    continuation: Tokens


class ContinuationScore(NamedTuple):
    """Log-probability in nats of a continuation, and whether each of its tokens was the likeliest."""

    logprob: float
    is_greedy: bool


@dataclass(frozen=True)
class PrefixState:
    """State of a model after a batch of texts, from which it can read on."""

    cache: Any
    """transformers' cache of keys and values."""
    mask: Int[Tensor, "B S"]
    """1 for a token, 0 for padding."""
    last: Float[Tensor, "B D"]
    """The hidden state that predicts the next token."""

    def select(self, rows: Tensor) -> PrefixState:
        """Copy these rows, in this order, any of them several times."""
        cache = copy.copy(self.cache)
        cache.layers = [copy.copy(layer) for layer in cache.layers]
        cache.batch_select_indices(rows)
        return PrefixState(cache, self.mask[rows], self.last[rows])


@dataclass(frozen=True)
class ContinuationScorer:
    """Scores continuations under one causal language model. Batch sizes change nothing but speed (and rounding)."""

    model: Any
    head: Head
    share_prefixes: bool
    """Whether shared prefixes are read once; if not, each text is read whole, still with logits where needed only."""
    window: int | None
    """Tokens that a layer with a sliding window looks back; padding inside a longer text would count among them."""
    batch_tokens: int = 4096
    """Tokens of a batch, padding and shared context included; one longer text makes a batch of its own."""

    @classmethod
    def from_model(cls, model: Any, batch_tokens: int = 4096) -> ContinuationScorer:
        """Build the scorer of a loaded model. All ids of its head count, as the model itself normalises over them.

        Models whose memory is no list of keys and values (state-space layers), or that take no positions, read each
        text whole. Raises ValueError for a head that is not understood; see `Head.check`.
        """
        head = Head.from_model(model, model.get_output_embeddings().weight.shape[0])
        head.check_against_model(model)
        takes_positions = "position_ids" in _parameters(model)
        window = getattr(model.config.get_text_config(), "sliding_window", None)
        return cls(model, head, takes_positions and not model._is_stateful, window, batch_tokens)

    @torch.inference_mode()
    def score(self, requests: Sequence[ContinuationRequest]) -> Iterator[tuple[int, ContinuationScore]]:
        """Yield the index and score of every request, each as soon as it is known, in no particular order."""
        if not self.share_prefixes:
            yield from self._whole(requests)
            return
        by_context: dict[Tokens, list[int]] = {}
        for i, (context, _) in enumerate(requests):
            by_context.setdefault(context, []).append(i)
        for prefix, contexts in group_by_prefix(by_context):
            start = self._read(None, [prefix])[0] if prefix else None
            rests = [context[len(prefix) :] for context in contexts]
            for batch in self._batches([len(rest) for rest in rests], len(prefix)):
                state = start and start.select(torch.zeros(len(batch), dtype=torch.long, device=start.last.device))
                state = self._read(state, [rests[b] for b in batch])[0]
                continued = [(row, i) for row, b in enumerate(batch) for i in by_context[contexts[b]]]
                yield from self._continuations(state, continued, requests)

    def _continuations(
        self, state: PrefixState, continued: Sequence[tuple[int, int]], requests: Sequence[ContinuationRequest]
    ) -> Iterator[tuple[int, ContinuationScore]]:
        """Score the continuations of one batch of contexts: pairs of a row of `state` and an index in `requests`."""
        texts = [requests[i].continuation[:-1] for _, i in continued]  # the last token is predicted, never read
        single = [n for n, text in enumerate(texts) if not text]
        longer = [n for n, text in enumerate(texts) if text]
        rows = torch.tensor([row for row, _ in continued], device=state.last.device)
        if single:
            yield from self._scores(state.last[rows[single], None], [continued[n][1] for n in single], requests)
        for batch in self._batches([len(texts[n]) for n in longer], state.mask.shape[1]):
            chosen = [longer[b] for b in batch]
            before = state.select(rows[chosen])
            hidden = self._read(before, [texts[n] for n in chosen])[1]
            hidden = torch.cat([before.last[:, None].to(hidden.dtype), hidden], 1)
            yield from self._scores(hidden, [continued[n][1] for n in chosen], requests)

    def _whole(self, requests: Sequence[ContinuationRequest]) -> Iterator[tuple[int, ContinuationScore]]:
        texts = [context + continuation[:-1] for context, continuation in requests]
        for batch in length_grouped_batches([len(text) for text in texts], self.batch_tokens):
            hidden = self._read(None, [texts[i] for i in batch])[1]
            starts = [len(requests[i].context) - 1 for i in batch]
            longest = max(len(requests[i].continuation) for i in batch)
            positions = torch.tensor(starts, device=hidden.device)[:, None] + torch.arange(
                longest, device=hidden.device
            )
            positions = positions.clamp(max=hidden.shape[1] - 1)  # beyond a shorter continuation, nothing is looked at
            states = hidden.gather(1, positions[..., None].expand(-1, -1, hidden.shape[-1]))
            yield from self._scores(states, batch, requests)

    def _batches(self, lengths: Sequence[int], before: int) -> Iterator[list[int]]:
        """Indices of texts in batches, each after `before` tokens; of one length, where padding could change a result."""
        padded = self.window is None or before + max(lengths, default=0) <= self.window
        groups: dict[int, list[int]] = {}
        for i, length in enumerate(lengths):
            groups.setdefault(0 if padded else length, []).append(i)
        for group in groups.values():
            for batch in length_grouped_batches([before + lengths[i] for i in group], self.batch_tokens):
                yield [group[b] for b in batch]

    def _read(self, state: PrefixState | None, texts: Sequence[Tokens]) -> tuple[PrefixState, Float[Tensor, "B T D"]]:
        """Read one more text in each row; returns the new state and the hidden states of these texts.

        Padding is on the right: there it has something to attend to, and nothing attends to it.
        """
        sizes, device = torch.tensor([len(text) for text in texts]), self.model.device
        longest = int(sizes.max())
        ids = torch.tensor([[*text] + [0] * (longest - len(text)) for text in texts], device=device)
        new = (torch.arange(longest) < sizes[:, None]).long().to(device)
        mask = new if state is None else torch.cat([state.mask, new], 1)
        inputs: dict[str, Any] = {"input_ids": ids, "attention_mask": mask}
        if self.share_prefixes:
            inputs |= {"position_ids": (mask.cumsum(1) - 1)[:, -longest:], "use_cache": True}
            inputs["cache" if "cache" in _parameters(self.model) else "past_key_values"] = state and state.cache
        hidden, *_, cache = run_to_head(self.model, **inputs, **without_router_loss(self.model))
        last = hidden[torch.arange(len(texts), device=device), sizes.to(device) - 1]
        return PrefixState(cache, mask, last), hidden

    def _scores(
        self, hidden: Float[Tensor, "B T D"], indices: Sequence[int], requests: Sequence[ContinuationRequest]
    ) -> Iterator[tuple[int, ContinuationScore]]:
        """Row b of `hidden` begins with the states that predict the continuation of `requests[indices[b]]`."""
        continuations = [requests[i].continuation for i in indices]
        states = torch.cat([hidden[b, : len(tokens)] for b, tokens in enumerate(continuations)])
        tokens = torch.tensor([token for tokens in continuations for token in tokens], device=states.device)
        step = max(16, LOGITS_IN_MEMORY // self.head.vocabulary)
        parts = [self._logprobs(states[n : n + step], tokens[n : n + step]) for n in range(0, len(tokens), step)]
        logprobs, greedy = (torch.cat(part).cpu() for part in zip(*parts, strict=True))
        sizes = [len(tokens) for tokens in continuations]
        for i, of_tokens, best in zip(indices, logprobs.split(sizes), greedy.split(sizes), strict=True):
            yield i, ContinuationScore(of_tokens.sum(dtype=torch.float64).item(), bool(best.all()))

    def _logprobs(self, states: Float[Tensor, "N D"], tokens: Int[Tensor, " N"]) -> tuple[Tensor, Tensor]:
        """Log-probability of each token, and whether it is the likeliest."""
        logits = self.head.logits(states)
        chosen = logits.gather(1, tokens[:, None])[:, 0]
        return chosen - logits.logsumexp(-1), logits.argmax(-1) == tokens


def _parameters(model: Any) -> Mapping[str, Any]:
    """Parameters of the model's forward pass."""
    return inspect.signature(model.forward).parameters


def group_by_prefix(contexts: Collection[Tokens]) -> Iterator[tuple[Tokens, list[Tokens]]]:
    """Group contexts by the prefix they share; yields prefix and contexts. Those that share none come last, as one group.

    A group's prefix leaves at least one token of each context, and no context joins that would shorten it by a fifth.
    """
    ordered, single = sorted(contexts), []
    while ordered:
        length, count = _shared_prefix(ordered)
        if length < MIN_SHARED_TOKENS:
            single.append(ordered.pop(0))
        else:
            yield ordered[0][:length], ordered[:count]
            ordered = ordered[count:]
    if single:
        yield (), single


def _shared_prefix(ordered: Sequence[Tokens]) -> tuple[int, int]:
    """Length of the prefix that the first of sorted contexts shares with the next ones, and their number, itself included."""
    common = [common_length(ordered[0], other) for other in ordered[1:2]]
    if not common:
        return 0, 1
    for other in ordered[2:]:
        if (length := common_length(ordered[0], other)) < 0.8 * common[0]:
            break
        common.append(length)  # sorted, so never more than the one before
    count = len(common) + 1
    return min(common[-1], min(map(len, ordered[:count])) - 1), count


def common_length(a: Tokens, b: Tokens) -> int:
    """Number of tokens with which both begin."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(a, b, strict=False)))
