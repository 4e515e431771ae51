"""Rows as another program listed them: values in any order, ids that may belong to no token."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from fusion.sources.listed.precision import inferred_errors

ListedT = TypeVar("ListedT", bound="ListedRows")
ROW_FIELDS = ("logprobs", "ids", "gold", "mean", "std", "errors")
LOWEST = -999.0
"""Programs that cut entries off put -1e3, -1e4 or -9999 in their place; a value below this one is an empty entry."""


@dataclass(frozen=True, eq=False)
class ListedRows:
    """What a program listed at some tokens of one text. Nothing is checked, sorted or left out yet."""

    tokens: list[int]
    """Token ids of the whole text."""
    logprobs: Float[Tensor, "N K"]
    """Natural-log probabilities over the whole vocabulary, if they are what they should be, in any order. Below `LOWEST` or
    -inf marks an empty entry."""
    ids: Int[Tensor, "N K"]
    """Token ids; -1 marks an empty entry."""
    first_position: int = 1
    """Index in `tokens` of the token that row 0 is about."""
    gold: Float[Tensor, " N"] | None = None
    """Log-probability of the token itself where the program says it, NaN where it does not know; None takes it from the
    entries."""
    mean: Float[Tensor, " N"] | None = None
    """Mean of the logits over the vocabulary in the gauge logsumexp = 0; NaN where it is unknown."""
    std: Float[Tensor, " N"] | None = None
    """Population standard deviation of the same logits; NaN where it is unknown."""
    origin: str = ""
    """Where they stand, for messages: `FILE, line N`. Empty where whoever calls says it."""
    errors: Float[Tensor, "N K"] | None = None
    """Largest error of each value in nats, as `precision` gives it; None infers it from the numbers."""
    head_size: int | None = None
    """Number of ids that the probabilities are over, where the program says it."""
    likeliest: bool = True
    """Whether the entries are the likeliest tokens, all of them, and besides at most the text's own token."""

    def __len__(self) -> int:
        return self.logprobs.shape[0]

    @property
    def valid(self) -> Bool[Tensor, "N K"]:
        """Whether each entry is one; NaN and +inf are not, and `check_numbers` refuses them."""
        return self.logprobs.isfinite() & (self.logprobs > LOWEST) & (self.ids >= 0)

    @property
    def precision(self) -> Float[Tensor, "N K"]:
        """Return the largest error of each value."""
        return (
            inferred_errors(self.logprobs.masked_fill(~self.valid, torch.nan)) if self.errors is None else self.errors
        )

    def span(self: ListedT, start: int, end: int) -> ListedT:
        """Return the rows from `start` to `end`."""
        rows: dict[str, Any] = {
            name: None if (field := getattr(self, name)) is None else field[start:end] for name in ROW_FIELDS
        }
        return dataclasses.replace(self, first_position=self.first_position + start, **rows)

    def about_tokens(self: ListedT) -> ListedT:
        """Return the rows that are about tokens of the text; behind it there may be padding."""
        return self.span(0, max(0, len(self.tokens) - self.first_position))

    @property
    def file(self) -> str:
        """Return the file of `origin`."""
        return self.origin.partition(", ")[0]

    def name(self, row: int) -> str:
        """Return what a message calls a row, with a colon behind it."""
        place = f"row {row} (about token {self.first_position + row} of the sequence)"
        return f"{self.origin}, {place}: " if self.origin else f"{place}: "

    def next_tokens(self, moved: int = 0) -> Int[Tensor, " N"]:
        """Return the token that each row is about; with `moved`, so many tokens later. -1 beyond the text."""
        begin, size = self.first_position + moved, len(self.tokens)
        return torch.tensor([self.tokens[n] if 0 <= n < size else -1 for n in range(begin, begin + len(self))]).long()


def top_entries(
    logprobs: Float[Tensor, "N K"], ids: Int[Tensor, "N K"], k: int, vocabulary: int
) -> tuple[Float[Tensor, "N k"], Int[Tensor, "N k"]]:
    """Return the k largest entries in descending order, padded with -inf and -1.

    Ids from `vocabulary` on belong to no token (padded heads) and are left out. What rounding put above 0 is 0; more than
    that `check_numbers` has refused.
    """
    valid = logprobs.isfinite() & (logprobs > LOWEST) & (ids >= 0) & (ids < vocabulary)
    values, order = logprobs.clamp(max=0).masked_fill(~valid, -torch.inf).sort(dim=-1, descending=True, stable=True)
    ids = ids.gather(1, order).masked_fill(values.isneginf(), -1)
    missing = max(0, k - values.shape[1])
    pad = torch.nn.functional.pad
    return pad(values, (0, missing), value=-torch.inf)[:, :k], pad(ids, (0, missing), value=-1)[:, :k]


def logprob_of_token(
    logprobs: Float[Tensor, "N K"], ids: Int[Tensor, "N K"], token: Int[Tensor, " N"]
) -> Float[Tensor, " N"]:
    """Return the log-probability of each row's token if it is among the row's entries, else NaN."""
    if not ids.shape[1]:
        return torch.full(token.shape, torch.nan)
    is_token = ids == token[:, None]
    value = logprobs.masked_fill(~is_token, -torch.inf).amax(-1)
    return value.masked_fill(~is_token.any(-1), torch.nan)


def padded_rows(
    logprobs: Sequence[Sequence[float | None] | None], ids: Sequence[Sequence[int | None] | None]
) -> tuple[Float[Tensor, "N K"], Int[Tensor, "N K"]]:
    """Return rows of different lengths, as JSON has them, as float64 and int64; shorter ones are filled up with -inf and -1.

    A null value is NaN and a null id -1. Raises ValueError for a null row, and for one with not as many ids as values.
    """
    width = max((len(row) for row in ids if row is not None), default=0)
    values, numbers = torch.full((len(ids), width), -torch.inf, dtype=torch.float64), torch.full((len(ids), width), -1)
    for row, (logprobs_of_row, ids_of_row) in enumerate(zip(logprobs, ids, strict=True)):
        if logprobs_of_row is None or ids_of_row is None:
            raise ValueError(f"row {row} is null, and only that of the first token of a sequence can be")
        if len(logprobs_of_row) != len(ids_of_row):
            counts = f"{len(ids_of_row)} ids and {len(logprobs_of_row)} logprobs"
            raise ValueError(f"there must be as many of each, and in row {row} there are {counts}")
        size = len(ids_of_row)
        values[row, :size] = torch.tensor([torch.nan if v is None else v for v in logprobs_of_row], dtype=torch.float64)
        numbers[row, :size] = torch.tensor([-1 if id is None else id for id in ids_of_row], dtype=torch.long)
    return values, numbers
