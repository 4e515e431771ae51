"""The types that flow from stage to stage: where a row stands in the text, and what a model says there.

The *pivot* is the model that is trained (the student), a *source* one that it learns from (a teacher).

    Positions                where rows stand: example, bytes of the response before them, the token that follows
      EntryRows              positions with K entries each: token ids and their log-probabilities
        LogitRows            what one model says, in its own vocabulary: caches hold them, the pivot's head makes them
        MappedRows           a source's rows said in the pivot's vocabulary
    Pairs                    which row of the pivot and which row of a source predict the same text

Legend of shape letters, used in every signature of this package:

    N  rows (response positions)      K  kept entries of a row       V  vocabulary of the model a row comes from
    M  matched pairs of rows          E  examples in a batch         D  width of a hidden state
    B  sequences in a batch           T  tokens of a sequence        S  sources
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

PositionsT = TypeVar("PositionsT", bound="Positions")
RowsT = TypeVar("RowsT", bound="EntryRows")


@dataclass(frozen=True, kw_only=True)
class Positions:
    """Where rows stand in the text, without what a model says there.

    Rows of one example are neighbours, in the order of the text.
    """

    prefix: Int[Tensor, " N"]
    """Bytes of response text consumed before this position: 0 for the first row of an example, the length of the response for
    the row that predicts the end of turn; -1 where a token boundary splits a character beyond repair."""
    example: Int[Tensor, " N"]
    """Number of the example that the row belongs to."""
    token: Int[Tensor, " N"] | None = None
    """Id of the token that really follows; a cache leaves it out, for encoding the text again gives it."""

    def __len__(self) -> int:
        return self.prefix.shape[0]

    def select(self: PositionsT, index: Tensor | slice) -> PositionsT:
        """Return the rows at `index` (integers, booleans or a slice), gradients kept."""
        return self._map(lambda values: values[index])

    def to(self: PositionsT, device: torch.device | str) -> PositionsT:
        """Return the same rows on another device."""
        return self._map(lambda values: values.to(device, non_blocking=True))

    @property
    def is_last(self) -> Bool[Tensor, " N"]:
        """Whether each row is the last of its example."""
        last = torch.ones(len(self), dtype=torch.bool, device=self.prefix.device)
        last[:-1] = self.example[1:] != self.example[:-1]
        return last

    def _map(self: PositionsT, change: Callable[[Tensor], Tensor]) -> PositionsT:
        changed: Any = {name: None if each is None else change(each) for name, each in vars(self).items()}
        return type(self)(**changed)


@dataclass(frozen=True)
class EntryRows(Positions):
    """Positions with K entries each: ids, and their log-probabilities under one model.

    All log-probabilities are natural logarithms over the *whole* vocabulary (logit - logsumexp), in nats. So the constant
    that softmax leaves free is fixed, and the mass outside the entries is known: 1 - logprobs.exp().sum(-1).

    The entries are the K largest in descending order as extractor and cache give them, or any chosen ids, in which case the
    order means nothing. An id of -1 with log-probability -inf is an empty entry.
    """

    logprobs: Float[Tensor, "N K"]
    """Natural-log probabilities of `ids`. Of entries that were drawn at random: logs of unbiased estimates of them."""
    ids: Int[Tensor, "N K"]
    """Token ids; -1 marks an empty entry."""
    hidden: Float[Tensor, "N D"] | None = field(default=None, kw_only=True)
    """Hidden state that the row was computed from, where an objective asks for it."""
    sample_counts: Int[Tensor, "N K"] | None = field(default=None, kw_only=True)
    """How often each id was drawn, where entries were drawn at random; None where they are the largest."""

    @property
    def k(self) -> int:
        """Number of entries of each row."""
        return self.ids.shape[1]

    def top(self: RowsT, k: int) -> RowsT:
        """Return the first `k` entries of every row. Raises ValueError when the rows keep fewer."""
        if k > self.k:
            raise ValueError(f"These rows keep {self.k} entries each, {k} were asked for; extract with top_k >= {k}.")
        counts = None if self.sample_counts is None else self.sample_counts[:, :k]
        return dataclasses.replace(self, logprobs=self.logprobs[:, :k], ids=self.ids[:, :k], sample_counts=counts)

    def pooled(self: RowsT) -> RowsT:
        """Merge entries of a row that have the same id into one, at the place of the first, with the sum of probabilities.

        The others and those without an id become empty (-1, -inf).
        """
        ids, order = self.ids.sort(dim=1, stable=True)  # so that the first of a group is the first of the row
        first = torch.ones_like(ids, dtype=torch.bool)
        first[:, 1:] = ids[:, 1:] != ids[:, :-1]
        group, first = first.cumsum(1) - 1, first & (ids >= 0)
        logprobs = _log_sums(self.logprobs.gather(1, order), group).masked_fill(~first, -torch.inf)
        counts = self.sample_counts
        if counts is not None:
            sums = torch.zeros_like(counts).scatter_add(1, group, counts.gather(1, order)).gather(1, group)
            counts = torch.zeros_like(counts).scatter(1, order, sums.masked_fill(~first, 0))
        return dataclasses.replace(
            self,
            logprobs=torch.zeros_like(logprobs).scatter(1, order, logprobs),
            ids=torch.zeros_like(ids).scatter(1, order, ids.masked_fill(~first, -1)),
            sample_counts=counts,
        )

    def detach(self: RowsT) -> RowsT:
        """Return the same numbers without their history."""
        return self._map(Tensor.detach)

    @classmethod
    def cat(cls: type[RowsT], parts: Sequence[RowsT]) -> RowsT:
        """Put the rows of `parts` one after another; an optional field survives only where every part has it."""

        def join(name: str) -> Any:
            values = [getattr(part, name) for part in parts]
            return None if any(value is None for value in values) else torch.cat(values)

        return cls(**{f.name: join(f.name) for f in dataclasses.fields(cls)})


@dataclass(frozen=True)
class LogitRows(EntryRows):
    """What one model says of its next token, one row for each response position, ids in its own vocabulary."""

    gold: Float[Tensor, " N"]
    """Log-probability that the model gives to the token that really follows *in its own tokens*, also where that is not among
    the entries; NaN where a backend does not know it."""
    mean: Float[Tensor, " N"]
    """Mean of the logits over the whole vocabulary, in the gauge logsumexp = 0; NaN where it cannot be known."""
    std: Float[Tensor, " N"]
    """Population standard deviation of the logits over the whole vocabulary; NaN where it cannot be known."""

    @classmethod
    def at(cls, positions: Positions, **numbers: Tensor | None) -> LogitRows:
        """Put a model's numbers (logprobs, ids, gold, mean, std ...) at `positions`."""
        where = {f.name: getattr(positions, f.name) for f in dataclasses.fields(Positions)}
        return cls(**where, **numbers)  # type: ignore[arg-type]


@dataclass(frozen=True)
class MappedRows(EntryRows):
    """What a source says at rows of the pivot, ids in the *pivot's* vocabulary; `token` is the pivot's next token."""

    pivot_token_logprob: Float[Tensor, " N"]
    """Log-probability that the source gives to the *pivot's* next token, NaN where that is not known, and at least this
    where its own next token only begins with the pivot's. (Its own next token is the matter of `LogitRows.gold`.)"""
    mean: Float[Tensor, " N"]
    """Mean of the source's logits over its own whole vocabulary, in the gauge logsumexp = 0; NaN where it cannot be known."""
    std: Float[Tensor, " N"]
    """Population standard deviation of the same logits."""


AnyRows = TypeVar("AnyRows", bound=EntryRows)
"""Rows of either kind, in signatures of functions that give back the kind that they are given."""


@dataclass(frozen=True)
class Pairs:
    """Matched rows: row `pivot[m]` of the pivot and row `source[m]` of a source predict the same text."""

    pivot: Int[Tensor, " M"]
    """Number of the pivot's row, from 0."""
    source: Int[Tensor, " M"]
    """Number of the source's row, from 0."""

    def __len__(self) -> int:
        return self.pivot.shape[0]

    def to(self, device: torch.device | str) -> Pairs:
        """Return the same pairs on another device."""
        return Pairs(self.pivot.to(device, non_blocking=True), self.source.to(device, non_blocking=True))


def _log_sums(logs: Float[Tensor, "N K"], group: Int[Tensor, "N K"]) -> Float[Tensor, "N K"]:
    """At each entry the logarithm of the sum over its group, of which `group` is the number in its row."""
    most = torch.full_like(logs, -torch.inf).scatter_reduce(1, group, logs.detach(), "amax").clamp(min=-1e30)
    sums = torch.zeros_like(logs).scatter_add(1, group, (logs - most.gather(1, group)).exp())
    return (sums.log() + most).gather(1, group)
