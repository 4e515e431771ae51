"""Checks of each listed row alone: entries that are none, and values that no probability has."""

from __future__ import annotations

import torch
from torch import Tensor

from fusion.sources.listed.bounds import Entries, above_one, head_limit
from fusion.sources.listed.causes import likely_cause
from fusion.sources.listed.rows import LOWEST, ListedRows, logprob_of_token

MOMENT_ERROR = 0.1
"""Nats that a mean may be off: programs compute it in 16 bits."""


def check_numbers(rows: ListedRows) -> None:
    """Raise ValueError, with the row, for what cannot be entries of natural-log probabilities.

    An id below 0 (but for an empty entry), an id twice, NaN and +inf; values above 0 and masses above 1 by more than the
    precision of the numbers allows, with the likely cause; a gold that is not what the entries say.
    """
    _check_entries(rows)
    _check_logprobs(rows, entries_of(rows))
    _check_gold(rows)
    check_moments(rows)


def entries_of(rows: ListedRows) -> Entries:
    """Return the valid entries of all rows with their errors."""
    errors = rows.precision.masked_fill(~rows.valid, 0.0)
    return Entries(rows.logprobs.double().masked_fill(~rows.valid, -torch.inf), errors.double())


def _check_entries(rows: ListedRows) -> None:
    values, ids, valid = rows.logprobs, rows.ids, rows.valid
    present = values.isfinite() & (values > LOWEST)
    if (at := _first(ids < -1)) is not None or (at := _first((ids == -1) & present)) is not None:
        raise ValueError(
            f"{rows.name(at[0])}an entry has the id {int(ids[at])} and the log-probability {float(values[at]):.3f}. Ids are at "
            "least 0; -1 marks an empty entry, which has no log-probability (null, -inf or below -999)."
        )
    if (at := _first((values.isnan() | values.isposinf()) & (ids >= 0))) is not None:
        shown = "NaN or null" if values[at].isnan() else "+inf"
        raise ValueError(
            f"{rows.name(at[0])}the log-probability of id {int(ids[at])} is {shown}. Leave the entry out (id -1), or the whole "
            "sequence where the model's numbers are broken."
        )
    ordered = ids.masked_fill(~valid, -1).sort(dim=-1).values
    if (at := _first((ordered[:, 1:] == ordered[:, :-1]) & (ordered[:, 1:] >= 0))) is not None:
        raise ValueError(
            f"{rows.name(at[0])}the id {int(ordered[at])} stands there more than once. A row has one log-probability for each "
            "token: were the entries of two rows joined, or is the id of empty entries not -1?"
        )


def _check_logprobs(rows: ListedRows, entries: Entries) -> None:
    wrong = above_one(entries)
    if not bool(wrong.any()):
        return
    row, count = int(wrong.nonzero()[0]), int(wrong.sum())
    values, error = entries.values[row], float(entries.errors[row].max())
    raise ValueError(
        f"{rows.name(row)}these are no natural-log probabilities: the highest is {float(values.max()):.3f}, where at most 0 "
        f"can be, and the entries have {float(values.exp().sum()):.4g} of the probability together (rounding explains "
        f"{error:.2g} of a value; so in {count} of {len(rows)} rows). {likely_cause(entries)}"
    )


def _check_gold(rows: ListedRows) -> None:
    if rows.gold is None:
        return
    if (at := _first(rows.gold.isposinf())) is not None or (at := _first(rows.gold > 0.1)) is not None:
        raise ValueError(f"{rows.name(at[0])}gold is {float(rows.gold[at]):.3f}, and a log-probability is at most 0.")
    listed = logprob_of_token(rows.logprobs, rows.ids, rows.next_tokens())
    allowed = 0.01 + 2 * torch.where(rows.valid, rows.precision, 0.0).amax(-1) if rows.logprobs.shape[1] else 0.01
    if (at := _first((listed - rows.gold).abs() > allowed)) is not None:
        raise ValueError(
            f"{rows.name(at[0])}gold is {float(rows.gold[at]):.3f}, and the entries give the same token "
            f"{float(listed[at]):.3f}. Is gold moved by a row, or of another temperature?"
        )


def check_moments(rows: ListedRows, vocabulary: int = 1) -> None:
    """Raise ValueError for a mean or standard deviation of the logits that no model has, in the gauge logsumexp = 0.

    The mean of V log-probabilities is at most -log V, and none is further from it than sqrt(V - 1) standard deviations.
    Of `vocabulary` tokens there are at least as many as a row has entries. NaN stands for unknown.
    """
    std = torch.full(rows.ids.shape[:1], torch.nan) if rows.std is None else rows.std
    mean = torch.full(rows.ids.shape[:1], torch.nan) if rows.mean is None else rows.mean
    if (at := _first((std < 0) | std.isinf())) is not None:
        raise ValueError(
            f"{rows.name(at[0])}std is {float(std[at])}, and a standard deviation is at least 0 and finite."
        )
    highest = -rows.valid.sum(-1).clamp(min=vocabulary).log()
    if (at := _first((mean > highest + MOMENT_ERROR) | mean.isinf())) is not None:
        raise ValueError(
            f"{rows.name(at[0])}mean is {float(mean[at]):.3f}, and the mean of the log-probabilities of V tokens is at most "
            f"-log V, here {float(highest[at]):.2f}. It must be the mean of the logits less their logsumexp."
        )
    top = entries_of(rows).values.amax(-1) if rows.logprobs.shape[1] else mean
    reach = std * (head_limit(vocabulary) - 1) ** 0.5 + MOMENT_ERROR
    if vocabulary > 1 and (at := _first(top - mean > reach)) is not None:
        raise ValueError(
            f"{rows.name(at[0])}std is {float(std[at]):.4f}, which is too small: the likeliest entry is {float(top[at]):.3f}, "
            f"the mean {float(mean[at]):.3f}. It must be the standard deviation of all logits of a row."
        )


def _first(wrong: Tensor) -> tuple[int, ...] | None:
    """Return the index of the first true element, or None."""
    found = wrong.nonzero()
    return tuple(found[0].tolist()) if len(found) else None
