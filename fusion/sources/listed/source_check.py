"""Checks of all rows of a source together: masses that no model leaves, and rows that are not about this text."""

from __future__ import annotations

from collections import Counter

import torch
from torch.nn.functional import pad

from fusion.sources.listed.bounds import Entries, above_one, head_limit, too_little_mass
from fusion.sources.listed.causes import BASE_2, likely_cause, read_as
from fusion.sources.listed.numbers import check_moments, entries_of
from fusion.sources.listed.rows import ListedRows
from fusion.sources.listed.text_check import TextCheck

FEW, SHARE = 3, 0.02
"""So many rows, and this share of all, are no accident."""
NEAR = 24
"""Of so many rows near a bound that is none, an honest source has some beyond it."""
KEPT = 200
"""Rows that are kept to find the cause."""


class SourceCheck:
    """What many rows say together of whether they are natural-log probabilities about these texts.

    `add` the rows of each text, and `conclude` when a source (a file, a part) is read. A check may `absorb` others.
    """

    def __init__(self, vocabulary: int) -> None:
        """`vocabulary` is the tokenizer's highest id plus one."""
        self.vocabulary = vocabulary
        self.counts: Counter[str] = Counter()
        self.too_little: list[tuple[str, Entries]] = []
        self.text = TextCheck(vocabulary)

    def add(self, rows: ListedRows, whole: ListedRows | None = None) -> None:
        """Look at the rows of one text, of which `whole` may have more, such as those of its prompt.

        Raises ValueError, with the row, for an id or moments that no model has.
        """
        head_size = rows.head_size or head_limit(self.vocabulary)
        self._check_ids(rows, head_size)
        check_moments(rows, self.vocabulary)
        entries = entries_of(rows)
        outside = entries.values.masked_fill(rows.ids < self.vocabulary, -torch.inf).exp()
        self.counts["rows"] += len(rows)
        self.counts["millionths beyond"] += round(1e6 * float(outside.sum()))
        if rows.likeliest and rows.logprobs.shape[1]:
            self._count_little_mass(rows, entries.bounded, head_size)
            self._count_base_2(entries.bounded)
            self._count_whole(entries.bounded, head_size)
        self.text.add(rows, entries, head_size)
        self.text.keep(rows if whole is None else whole, head_size)

    def absorb(self, other: SourceCheck) -> None:
        """Take over what another check has seen."""
        self.counts.update(other.counts)
        self.too_little = [*self.too_little, *other.too_little][:KEPT]
        self.text.absorb(other.text)

    def conclude(self, name: str = "", warn: bool = True) -> None:
        """Raise ValueError where the rows cannot be what they should be; `warn`, once, where they hardly can.

        `name` says in messages whose rows they are.
        """
        where = f"{name}: " if name else ""
        self._refuse_little_mass()
        self._refuse_base_2(where)
        self._refuse_whole(where)
        self._refuse_other_vocabulary(where)
        self.text.refuse(where)
        if warn:
            self.text.warn(where)

    def _check_ids(self, rows: ListedRows, head_size: int) -> None:
        beyond = (rows.valid & (rows.ids >= head_size)).nonzero()
        if len(beyond):
            row, column = beyond[0].tolist()
            raise ValueError(
                f"{rows.name(row)}the id {int(rows.ids[row, column])} belongs to no token: the tokenizer has "
                f"{self.vocabulary}, and with padding the head has at most {head_size}. The source's path must name the "
                "tokenizer of the model that wrote the rows."
            )

    def _count_little_mass(self, rows: ListedRows, entries: Entries, head_size: int) -> None:
        own = (rows.ids == rows.next_tokens()[:, None]) & entries.is_least
        wrong = too_little_mass(entries, head_size, own)
        self.counts["bounded"] += len(rows)
        self.counts["too little"] += int(wrong.sum())
        for row in wrong.nonzero().flatten().tolist()[: KEPT - len(self.too_little)]:
            self.too_little.append((rows.name(row), Entries(*(part[row] for part in entries))))

    def _count_base_2(self, entries: Entries) -> None:
        # where some probability is outside the entries, honest ones read as base 2 are beyond 1 about as often as just below
        read = read_as(BASE_2, entries)
        unsure = (entries.values.exp().sum(-1) < 0.98) & (entries.listed.sum(-1) > 1)
        beyond = above_one(read)
        self.counts["base 2 beyond"] += int((unsure & beyond).sum())
        self.counts["base 2 near"] += int((unsure & ~beyond & (read.values.exp().sum(-1) > 0.9)).sum())

    def _count_whole(self, entries: Entries, head_size: int) -> None:
        # where the least entry is still likely, the next token cannot have nothing
        low, high, count = entries.lowest_mass(), entries.highest_mass(), entries.listed.sum(-1)
        least = entries.values.masked_fill(~entries.listed, torch.inf).amin(-1).exp()
        telling = (least > 10 * (high - low)) & (count > 1) & (count < min(head_size, self.vocabulary) / 2)
        whole = (low <= 1) & (high >= 1)
        self.counts["whole"] += int((telling & whole).sum())
        self.counts["not whole"] += int((telling & ~whole).sum())

    def _refuse_little_mass(self) -> None:
        few, rows = self.counts["too little"], self.counts["bounded"]
        if not few or few < SHARE * rows or (few < FEW and few < rows):
            return
        (name, first), width = self.too_little[0], max(len(each.values) for _, each in self.too_little)
        entries = Entries(
            torch.stack(
                [pad(each.values, (0, width - len(each.values)), value=-torch.inf) for _, each in self.too_little]
            ),
            torch.stack([pad(each.errors, (0, width - len(each.errors))) for _, each in self.too_little]),
        )
        raise ValueError(
            f"{name}the entries have {float(first.values.exp().sum()):.3g} of the probability together, and the least of "
            f"them is so unlikely that all other tokens of the vocabulary cannot have the rest (so in {few} of {rows} rows). "
            f"{likely_cause(entries, head_limit(self.vocabulary))} Or the entries are not the likeliest tokens, as they must."
        )

    def _refuse_base_2(self, where: str) -> None:
        if self.counts["base 2 near"] >= NEAR and not self.counts["base 2 beyond"]:
            raise ValueError(
                f"{where}read as logarithms to base 2, the entries of {self.counts['base 2 near']} rows have nearly all of the "
                f"probability and those of none have more than all of it, which natural logarithms do not do. {BASE_2.sentence}"
            )

    def _refuse_whole(self, where: str) -> None:
        if self.counts["whole"] >= NEAR and not self.counts["not whole"]:
            raise ValueError(
                f"{where}the entries of all {self.counts['whole']} rows that can tell have the whole probability, though "
                "the least of them are still likely: they were normalised over the entries alone. The logsumexp must be that "
                "of the whole vocabulary, before any top-k or top-p (vLLM: logprobs_mode raw_logprobs)."
            )

    def _refuse_other_vocabulary(self, where: str) -> None:
        share = self.counts["millionths beyond"] / 1e6 / max(1, self.counts["rows"])
        if share > 0.25:
            raise ValueError(
                f"{where}ids from {self.vocabulary} on, which belong to no token, have {share:.2f} of the probability. The "
                "source's path must name the tokenizer of the model that wrote the rows."
            )
