"""Checks that rows are about the text they stand at: not a row earlier, not another text."""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from fusion.runtime.console import console
from fusion.sources.listed.bounds import Entries
from fusion.sources.listed.causes import LOGITS
from fusion.sources.listed.rows import ListedRows, logprob_of_token

ENOUGH = 24
"""Rows from which on an average says something."""
MOVES = {"earlier": 1, "later": -1}
"""Where rows may stand by mistake, and the way from a row's token to the one it is about."""
BETTER, SURE = 1.5, 6.0
"""Nats by which rows fit other tokens better, on average and in standard errors, where those are their own."""
HOPELESS = 10.0
"""Nats below a uniform guess, on average, that are no model reading the text."""
SAMPLE, SAMPLE_ENTRIES = 24, 16
"""Texts, and entries of a row, that are kept to compare each text's rows with the other texts."""
OVERLAP = 8
"""Tokens by which a text's rows are compared with another text."""


@dataclass(frozen=True, eq=False)
class Kept:
    """Rows of one text that are kept for comparison."""

    rows: ListedRows
    entries: Entries
    head_size: int


class TextCheck:
    """How well rows fit the tokens they stand at, and how well they fit others."""

    def __init__(self, vocabulary: int) -> None:
        self.uniform = -math.log(vocabulary)
        self.sums: dict[str, float] = defaultdict(float)
        self.sample: list[Kept] = []
        self.has_warned = False

    def add(self, rows: ListedRows, entries: Entries, head_size: int) -> None:
        """Look at the rows of one text."""
        if not len(rows) or not rows.logprobs.shape[1]:
            return
        token = rows.next_tokens()
        own = scores(rows, entries, token, head_size)
        gold = own if rows.gold is None else torch.where(rows.gold.isfinite(), rows.gold.double(), own)
        known = gold[rows.gold.isfinite()] if rows.gold is not None else own[(rows.ids == token[:, None]).any(-1)]
        self._count(n=len(own), own=own.sum(), gold=gold.sum(), worse=(gold < self.uniform).sum())
        self._count(known=len(known), known_gold=known.sum())
        self._count_coverage(rows, entries.bounded, token)
        for name, moved in MOVES.items():
            gain = scores(rows, entries, rows.next_tokens(moved), head_size) - own
            gain = gain[gain.isfinite()]
            self._count(**{name: gain.sum(), f"{name} squared": (gain**2).sum(), f"{name} n": len(gain)})
        self._count(reversed=scores(rows, entries, token.flip(0), head_size).sum())

    def keep(self, rows: ListedRows, head_size: int) -> None:
        """Keep the rows of one text, if few are kept so far, to compare each text's with the other texts."""
        if len(self.sample) < SAMPLE and rows.logprobs.shape[1]:
            self.sample.append(_kept(rows, head_size))

    def absorb(self, other: TextCheck) -> None:
        """Take over what another check has seen."""
        self._count(**other.sums)
        self.sample = [*self.sample, *other.sample][:SAMPLE]

    def refuse(self, where: str) -> None:
        """Raise ValueError where the rows are certainly not about the tokens they stand at."""
        self._refuse_moved(where)
        self._refuse_swapped(where)
        self._refuse_scaled(where)
        self._refuse_unrelated(where)
        known = self.sums["known"]
        if known >= ENOUGH and (mean := self.sums["known_gold"] / known) < self.uniform - HOPELESS:
            raise ValueError(
                f"{where}the text's own tokens have {mean:.2f} nats on average over {known:.0f} rows, a uniform guess gives "
                f"{self.uniform:.2f}: these numbers are not about this text, or no log-probabilities."
            )

    def warn(self, where: str) -> None:
        """Say, once, where the text's own tokens are far less likely than by a uniform guess."""
        n = self.sums["n"]
        if self.has_warned or n < ENOUGH or (mean := self.sums["gold"] / n) > self.uniform - 1:
            return
        self.has_warned = True
        console.print(
            f"  {where}the text's own tokens have about {mean:.2f} nats on average, less than the {self.uniform:.2f} of a "
            f"uniform guess; {self.sums['worse']:.0f} of {n:.0f} rows are below it. Are the rows about this text, in this "
            "model's tokens? Compare a few by hand before you train on them.",
            markup=False,
        )

    def _count(self, **sums: Any) -> None:
        for name, value in sums.items():
            self.sums[name] += float(value)

    def _count_coverage(self, rows: ListedRows, entries: Entries, token: Tensor) -> None:
        # the least entry may be listed only because it is the token
        covered = ((rows.ids == token[:, None]) & entries.listed & ~entries.is_least).any(-1)
        several = entries.listed.sum(-1) > 1
        self._count(covering=several.sum(), covered=(covered & several).sum())
        self._count(mass=entries.values.exp().sum(-1)[several].sum())

    def _refuse_moved(self, where: str) -> None:
        for name in MOVES:
            n = max(1.0, self.sums[f"{name} n"])
            gain = self.sums[name] / n
            spread = math.sqrt(max(self.sums[f"{name} squared"] / n - gain**2, 0.0) / n)
            if n >= ENOUGH and gain > BETTER and gain > SURE * spread:
                raise ValueError(
                    f"{where}the rows are shifted, one row {name} than their tokens: moved by one, the text's tokens are "
                    f"{gain:.1f} nats likelier on average over {n:.0f} rows. They have about {self._own:.1f} nats now, and a "
                    f"uniform guess gives {self.uniform:.1f}. The row about token p + 1 is the one computed at token p; move "
                    "the rows, or say in `first` (jsonl) which token row 0 is about."
                )

    def _refuse_swapped(self, where: str) -> None:
        if self._own > self.uniform + 1 or len(self.sample) < 2:
            return
        swapped = [(mine, other) for mine in self.sample if (other := _better_text(mine, self.sample)) is not None]
        if len(swapped) > 0.5 * len(self.sample):
            names = [text.rows.origin or "one text" for text in swapped[0]]
            raise ValueError(
                f"{where}rows belong to other texts: those of {names[0]} fit the tokens of {names[1]}, and {len(swapped)} of "
                f"{len(self.sample)} texts looked at are like that. Rows and tokens must be in the same order."
            )

    def _refuse_scaled(self, where: str) -> None:
        n, covered, mass = (self.sums[name] for name in ("covering", "covered", "mass"))
        if covered > 3 * mass + ENOUGH:
            raise ValueError(
                f"{where}in {covered:.0f} of {n:.0f} rows the text's token is among the entries, and they have only "
                f"{mass / n:.2g} of the probability: no model is so unsure and so right. {LOGITS}"
            )

    def _refuse_unrelated(self, where: str) -> None:
        n, covered, mass = (self.sums[name] for name in ("covering", "covered", "mass"))
        sure = n >= 2 * ENOUGH and mass > 0.4 * n and covered < mass / 3
        if sure and not self._relates and self._own < self.uniform:
            raise ValueError(
                f"{where}the entries have {mass / n:.2f} of the probability on average, and the text's token is among them in "
                f"{covered:.0f} of {n:.0f} rows, no more than tokens from elsewhere in the text: the rows belong to another "
                "text, or were computed with other tokens than these."
            )

    @property
    def _own(self) -> float:
        """Nats that the tokens have on average in the rows they stand at."""
        return self.sums["own"] / max(1.0, self.sums["n"])

    @property
    def _relates(self) -> bool:
        """Whether rows fit the tokens they stand at better than those from the other end of the text."""
        return self.sums["own"] > self.sums["reversed"] + 0.25 * self.sums["n"]


def scores(rows: ListedRows, entries: Entries, token: Int[Tensor, " N"], head_size: int) -> Float[Tensor, " N"]:
    """Return the log-probability of a token in each row; of one that is not listed, an even share of what is left.

    -inf where `token` is -1.
    """
    left = (1 - entries.values.exp().sum(-1)).clamp(min=1e-4).log() - math.log(max(1, head_size - rows.ids.shape[1]))
    listed = logprob_of_token(entries.values, rows.ids, token)
    return torch.where(listed.isfinite(), listed, left).masked_fill(token < 0, -torch.inf)


def _kept(rows: ListedRows, head_size: int) -> Kept:
    values, order = rows.logprobs.masked_fill(~rows.valid, -torch.inf).topk(min(SAMPLE_ENTRIES, rows.ids.shape[1]))
    few = ListedRows(rows.tokens, values, rows.ids.gather(1, order), rows.first_position, origin=rows.origin)
    return Kept(few, Entries(values.double(), torch.zeros_like(values)), head_size)


def _better_text(mine: Kept, others: list[Kept]) -> Kept | None:
    """Return the text whose tokens the rows fit far better than their own, if there is one."""
    own = scores(mine.rows, mine.entries, mine.rows.next_tokens(), mine.head_size)
    best, gain = None, BETTER
    for other in others:
        theirs = ListedRows(
            other.rows.tokens, mine.rows.logprobs, mine.rows.ids, mine.rows.first_position
        ).next_tokens()
        differs = (theirs >= 0) & (theirs != mine.rows.next_tokens())
        if int(differs.sum()) >= OVERLAP:
            better = (scores(mine.rows, mine.entries, theirs, mine.head_size) - own)[differs].mean()
            if float(better) > gain:
                best, gain = other, float(better)
    return best
