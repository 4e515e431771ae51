"""`LogitRows`, the one type that flows from stage to stage, and `Pairs`, which of them belong together.

Legend of shape letters, used in every signature of this package:

    N  rows (response positions)      K  kept entries of a row       V  vocabulary of the model a row comes from
    M  matched pairs of rows          E  examples in a batch         D  width of a hidden state
    B  sequences in a batch           T  tokens of a sequence        S  sources
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor


@dataclass(frozen=True)
class LogitRows:
    """What may be known of one model's next-token logits, one row for each response position.

    All log-probabilities are natural logarithms over the *whole* vocabulary (logit - logsumexp), in nats. So the constant
    that softmax leaves free is fixed, and the mass outside the kept entries is known: 1 - logprobs.exp().sum(-1).

    A row is described by its ids: the K largest entries in descending order as the extractor and the cache give them, or
    any chosen ids, in which case the order means nothing. An id of -1 with log-probability -inf is an empty entry.
    """

    logprobs: Float[Tensor, "N K"]
    """Natural-log probabilities of `ids`."""
    ids: Int[Tensor, "N K"]
    """Token ids in the vocabulary of the model the row comes from; -1 marks an empty entry."""
    gold: Float[Tensor, " N"]
    """Log-probability of the token that really follows, also where it is not among the kept entries."""
    mean: Float[Tensor, " N"]
    """Mean of the logits over the whole vocabulary, in the gauge logsumexp = 0; NaN where it cannot be known."""
    std: Float[Tensor, " N"]
    """Population standard deviation of the logits over the whole vocabulary; NaN where it cannot be known."""
    prefix: Int[Tensor, " N"]
    """Bytes of response text consumed before this position; -1 where a boundary splits a character beyond repair."""
    example: Int[Tensor, " N"]
    """Which example the row belongs to; rows of one example are neighbours, in the order of the text."""
    token: Int[Tensor, " N"] | None = None
    """Id of the token that really follows, where known; a cache leaves it out, for encoding again gives it."""
    hidden: Float[Tensor, "N D"] | None = None
    """Hidden state the row was computed from, where an objective asked for it."""
    sampled: Int[Tensor, "N K"] | None = None
    """How often each id was drawn, where the row was made by random sampling instead of by taking the largest."""

    def __len__(self) -> int:
        return self.gold.shape[0]

    @property
    def k(self) -> int:
        """How many entries each row keeps."""
        return self.ids.shape[1]

    def select(self, index: Tensor | slice) -> LogitRows:
        """The rows at `index` (integers, booleans or a slice), gradients kept."""
        return self._map(lambda field: field[index])

    def top(self, k: int) -> LogitRows:
        """The first `k` entries of every row. Raises ValueError when the rows keep fewer."""
        if k > self.k:
            raise ValueError(f"These rows keep {self.k} entries each, {k} were asked for; extract with top_k >= {k}.")
        sampled = None if self.sampled is None else self.sampled[:, :k]
        return dataclasses.replace(self, logprobs=self.logprobs[:, :k], ids=self.ids[:, :k], sampled=sampled)

    def pooled(self) -> LogitRows:
        """Entries of a row with the same id become one, at the place of the first, with the sum of their probabilities.

        The others and those without an id become empty (-1, -inf).
        """
        ids, order = self.ids.sort(dim=1, stable=True)  # so that the first of a group is the first of the row
        first = torch.ones_like(ids, dtype=torch.bool)
        first[:, 1:] = ids[:, 1:] != ids[:, :-1]
        group, first = first.cumsum(1) - 1, first & (ids >= 0)
        logprobs = _log_sums(self.logprobs.gather(1, order), group).masked_fill(~first, -torch.inf)
        sampled = self.sampled
        if sampled is not None:
            counts = torch.zeros_like(sampled).scatter_add(1, group, sampled.gather(1, order)).gather(1, group)
            sampled = torch.zeros_like(sampled).scatter(1, order, counts.masked_fill(~first, 0))
        return dataclasses.replace(
            self,
            logprobs=torch.zeros_like(logprobs).scatter(1, order, logprobs),
            ids=torch.zeros_like(ids).scatter(1, order, ids.masked_fill(~first, -1)),
            sampled=sampled,
        )

    def to(self, device: torch.device | str) -> LogitRows:
        """The same rows on another device."""
        return self._map(lambda field: field.to(device, non_blocking=True))

    def detach(self) -> LogitRows:
        """The same numbers without their history."""
        return self._map(Tensor.detach)

    def _map(self, change: Callable[[Tensor], Tensor]) -> LogitRows:
        fields: Any = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        changed: Any = {name: None if value is None else change(value) for name, value in fields.items()}
        return LogitRows(**changed)

    @staticmethod
    def cat(parts: Sequence[LogitRows]) -> LogitRows:
        """Rows of `parts` one after another; an optional field survives only where every part has it."""

        def join(name: str) -> Any:
            values = [getattr(part, name) for part in parts]
            return None if any(value is None for value in values) else torch.cat(values)

        return LogitRows(**{f.name: join(f.name) for f in dataclasses.fields(LogitRows)})


def _log_sums(logs: Float[Tensor, "N K"], group: Int[Tensor, "N K"]) -> Float[Tensor, "N K"]:
    """At each entry the logarithm of the sum over its group, of which `group` is the number in its row."""
    most = torch.full_like(logs, -torch.inf).scatter_reduce(1, group, logs.detach(), "amax").clamp(min=-1e30)
    sums = torch.zeros_like(logs).scatter_add(1, group, (logs - most.gather(1, group)).exp())
    return (sums.log() + most).gather(1, group)


@dataclass(frozen=True)
class Pairs:
    """Matched rows: row `pivot[m]` of the pivot and row `source[m]` of a source predict the same text."""

    pivot: Int[Tensor, " M"]
    source: Int[Tensor, " M"]

    def __len__(self) -> int:
        return self.pivot.shape[0]

    def to(self, device: torch.device | str) -> Pairs:
        """The same pairs on another device."""
        return Pairs(self.pivot.to(device, non_blocking=True), self.source.to(device, non_blocking=True))
