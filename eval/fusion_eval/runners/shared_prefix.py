"""Log-likelihood of continuations, with what they share read once.

The choices of a question share its text, and questions of one task often share worked examples. So a text is read in
three steps, each with the keys and values of the one before: header, rest of the context, continuation. Logits exist
only where a continuation is predicted; everywhere else a model's head would be most of the work for nothing.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from fusion.data.batching import batches
from fusion.models.head import Head

Tokens = tuple[int, ...]

AT_ONCE = 2**25  # logits held at a time: 128 MiB of float32
LEAST_HEADER = 32
"""Tokens that several contexts must share at their beginning to be worth a step of their own."""


class Asked(NamedTuple):
    """Whose likelihood is wanted, given what."""

    context: Tokens
    continuation: Tokens


class Likelihood(NamedTuple):
    """Log-probability in nats of a continuation, and whether each of its tokens was the likeliest."""

    nats: float
    greedy: bool


@dataclass(frozen=True)
class Read:
    """What a model has read of a batch of texts, and can go on from."""

    cache: Any
    mask: Int[Tensor, "B S"]
    """1 for a token, 0 for padding."""
    last: Float[Tensor, "B D"]
    """The hidden state that predicts the next token."""

    def take(self, rows: Tensor) -> Read:
        """These rows, in this order, any of them several times; what is here stays as it is."""
        cache = copy.copy(self.cache)
        cache.layers = [copy.copy(layer) for layer in cache.layers]
        cache.batch_select_indices(rows)
        return Read(cache, self.mask[rows], self.last[rows])


@dataclass(frozen=True)
class Scorer:
    """Scores continuations under one causal language model. Batch sizes change nothing but speed (and rounding)."""

    model: Any
    head: Head
    shares: bool
    """Whether what texts share is read once; if not, each is read whole, still with logits where needed only."""
    window: int | None
    """Tokens that a layer with a sliding window looks back; padding inside a longer text would count among them."""
    batch_tokens: int = 4096
    """Tokens of a batch, padding and shared context included; one longer text makes a batch of its own."""

    @classmethod
    def of(cls, model: Any, batch_tokens: int = 4096) -> Scorer:
        """The scorer of a loaded model, all ids of its head included, as the model itself normalises over them.

        Models whose memory is no list of keys and values (state-space layers), or that take no positions, read each
        text whole. Raises ValueError for a head that is not understood; see `Head.check`.
        """
        head = Head.of(model, model.get_output_embeddings().weight.shape[0])
        head.check(model)
        takes_positions = "position_ids" in _takes(model)
        window = getattr(model.config.get_text_config(), "sliding_window", None)
        return cls(model, head, takes_positions and not model._is_stateful, window, batch_tokens)

    @torch.inference_mode()
    def score(self, asked: Sequence[Asked]) -> Iterator[tuple[int, Likelihood]]:
        """Index and likelihood of everything asked, each as soon as it is known, in no particular order."""
        if not self.shares:
            yield from self._whole(asked)
            return
        by_context: dict[Tokens, list[int]] = {}
        for i, (context, _) in enumerate(asked):
            by_context.setdefault(context, []).append(i)
        for header, contexts in headers(by_context):
            start = self._read(None, [header])[0] if header else None
            rests = [context[len(header) :] for context in contexts]
            for batch in self._batches([len(rest) for rest in rests], len(header)):
                state = start and start.take(torch.zeros(len(batch), dtype=torch.long, device=start.last.device))
                state = self._read(state, [rests[b] for b in batch])[0]
                owners = [(row, i) for row, b in enumerate(batch) for i in by_context[contexts[b]]]
                yield from self._continuations(state, owners, asked)

    def _continuations(
        self, state: Read, owners: Sequence[tuple[int, int]], asked: Sequence[Asked]
    ) -> Iterator[tuple[int, Likelihood]]:
        """Continuations of one batch of contexts; `owners` are pairs of a row of `state` and an index in `asked`."""
        texts = [asked[i].continuation[:-1] for _, i in owners]  # the last token is predicted, never read
        single = [n for n, text in enumerate(texts) if not text]
        longer = [n for n, text in enumerate(texts) if text]
        rows = torch.tensor([row for row, _ in owners], device=state.last.device)
        if single:
            yield from self._likelihoods(state.last[rows[single], None], [owners[n][1] for n in single], asked)
        for batch in self._batches([len(texts[n]) for n in longer], state.mask.shape[1]):
            chosen = [longer[b] for b in batch]
            before = state.take(rows[chosen])
            hidden = self._read(before, [texts[n] for n in chosen])[1]
            hidden = torch.cat([before.last[:, None].to(hidden.dtype), hidden], 1)
            yield from self._likelihoods(hidden, [owners[n][1] for n in chosen], asked)

    def _whole(self, asked: Sequence[Asked]) -> Iterator[tuple[int, Likelihood]]:
        texts = [context + continuation[:-1] for context, continuation in asked]
        for batch in batches([len(text) for text in texts], self.batch_tokens):
            hidden = self._read(None, [texts[i] for i in batch])[1]
            starts = [len(asked[i].context) - 1 for i in batch]
            longest = max(len(asked[i].continuation) for i in batch)
            at = torch.tensor(starts, device=hidden.device)[:, None] + torch.arange(longest, device=hidden.device)
            at = at.clamp(max=hidden.shape[1] - 1)  # rows with a shorter continuation take what no one looks at
            yield from self._likelihoods(hidden.gather(1, at[..., None].expand(-1, -1, hidden.shape[-1])), batch, asked)

    def _batches(self, lengths: Sequence[int], before: int) -> Iterator[list[int]]:
        """Indices of texts that follow `before` tokens each; of one length only, where padding could change a result."""
        padded = self.window is None or before + max(lengths, default=0) <= self.window
        groups: dict[int, list[int]] = {}
        for i, length in enumerate(lengths):
            groups.setdefault(0 if padded else length, []).append(i)
        for group in groups.values():
            for batch in batches([before + lengths[i] for i in group], self.batch_tokens):
                yield [group[b] for b in batch]

    def _read(self, state: Read | None, texts: Sequence[Tokens]) -> tuple[Read, Float[Tensor, "B T D"]]:
        """Read one more text in each row, padded on the right; all hidden states of what was read now.

        On the right every padding has something to look back at, and nothing looks back at it.
        """
        sizes, device = torch.tensor([len(text) for text in texts]), self.model.device
        longest = int(sizes.max())
        ids = torch.tensor([[*text] + [0] * (longest - len(text)) for text in texts], device=device)
        new = (torch.arange(longest) < sizes[:, None]).long().to(device)
        mask = new if state is None else torch.cat([state.mask, new], 1)
        inputs: dict[str, Any] = {"input_ids": ids, "attention_mask": mask}
        if self.shares:
            inputs |= {"position_ids": (mask.cumsum(1) - 1)[:, -longest:], "use_cache": True}
            inputs["cache" if "cache" in _takes(self.model) else "past_key_values"] = state and state.cache
        out = self.model.base_model(**inputs)
        hidden = out[0]
        last = hidden[torch.arange(len(texts), device=device), sizes.to(device) - 1]
        return Read(getattr(out, "past_key_values", None), mask, last), hidden

    def _likelihoods(
        self, hidden: Float[Tensor, "B T D"], which: Sequence[int], asked: Sequence[Asked]
    ) -> Iterator[tuple[int, Likelihood]]:
        """Row b of `hidden` begins with the states that predict the continuation of `asked[which[b]]`."""
        continuations = [asked[i].continuation for i in which]
        states = torch.cat([hidden[b, : len(tokens)] for b, tokens in enumerate(continuations)])
        tokens = torch.tensor([token for tokens in continuations for token in tokens], device=states.device)
        step = max(16, AT_ONCE // self.head.vocabulary)
        parts = [self._tokens(states[n : n + step], tokens[n : n + step]) for n in range(0, len(tokens), step)]
        nats, greedy = (torch.cat(part).cpu() for part in zip(*parts, strict=True))
        sizes = [len(tokens) for tokens in continuations]
        for i, mine, best in zip(which, nats.split(sizes), greedy.split(sizes), strict=True):
            yield i, Likelihood(mine.sum(dtype=torch.float64).item(), bool(best.all()))

    def _tokens(self, states: Float[Tensor, "N D"], tokens: Int[Tensor, " N"]) -> tuple[Tensor, Tensor]:
        logits = self.head.logits(states)
        chosen = logits.gather(1, tokens[:, None])[:, 0]
        return chosen - logits.logsumexp(-1), logits.argmax(-1) == tokens


def _takes(model: Any) -> Mapping[str, Any]:
    """Parameters of the model below the head."""
    return inspect.signature(model.base_model.forward).parameters


def headers(contexts: Sequence[Tokens] | dict[Tokens, Any]) -> Iterator[tuple[Tokens, list[Tokens]]]:
    """The contexts in groups with the beginning that each group shares; those that share none come last, as one group.

    A group's header leaves at least one token of each context, and takes no context that would shorten it by a fifth.
    """
    ordered, alone = sorted(contexts), []
    while ordered:
        length, count = _header(ordered)
        if length < LEAST_HEADER:
            alone.append(ordered.pop(0))
        else:
            yield ordered[0][:length], ordered[:count]
            ordered = ordered[count:]
    if alone:
        yield (), alone


def _header(ordered: Sequence[Tokens]) -> tuple[int, int]:
    """Length of what the first of sorted contexts shares with the next ones, and how many, itself included."""
    common = [shared(ordered[0], other) for other in ordered[1:2]]
    if not common:
        return 0, 1
    for other in ordered[2:]:
        if (length := shared(ordered[0], other)) < 0.8 * common[0]:
            break
        common.append(length)  # sorted, so never more than the one before
    count = len(common) + 1
    return min(common[-1], min(map(len, ordered[:count])) - 1), count


def shared(a: Tokens, b: Tokens) -> int:
    """Number of tokens with which both begin."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(a, b, strict=False)))
