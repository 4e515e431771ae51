"""One sequence of an imported dump, and the rows that an example takes from it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from fusion.core.rows import LogitRows
from fusion.data.encode import Encoded


@dataclass(frozen=True)
class ImportedSequence:
    """Log-probabilities of one token sequence from a dump; row r predicts token `first_position + r`."""

    tokens: list[int]
    """Token ids of the whole sequence."""
    logprobs: Float[Tensor, "N K"]
    """Natural-log probabilities over the whole vocabulary, in any order; not finite or below -999 marks an empty entry."""
    ids: Int[Tensor, "N K"]
    first_position: int = 1
    """Index in `tokens` of the token that row 0 predicts."""
    gold: Float[Tensor, " N"] | None = None
    """Log-probability of the token itself; None takes it from the entries, NaN where the token is not among them."""
    mean: Float[Tensor, " N"] | None = None
    std: Float[Tensor, " N"] | None = None

    def rows_for(self, text: Encoded, k: int, vocabulary: int) -> LogitRows:
        """Return the rows of an example that is a prefix of this sequence, the k most likely entries of each.

        Entries whose id belongs to no token of the tokenizer (padded heads) are left out. Raises ValueError where the
        sequence has no rows for some of the response.
        """
        start = text.start - self.first_position
        last = self.first_position + len(self.logprobs) - 1
        if start < 0 or start + text.num_rows > len(self.logprobs):
            raise ValueError(
                f"A sequence of {len(self.tokens)} tokens has rows for those from {self.first_position} to {last}, and the "
                f"response is {text.start} to {len(text.input_ids) - 1}."
            )
        span = slice(start, start + text.num_rows)
        token = torch.tensor(text.input_ids[text.start :])
        width = max(k, self.ids.shape[1])
        logprobs, ids = top_entries(self.logprobs[span].float(), self.ids[span].long(), width, vocabulary)
        unknown = torch.full((text.num_rows,), torch.nan)
        mean, std = (unknown if field is None else field[span].float() for field in (self.mean, self.std))
        gold = logprob_of_token(logprobs, ids, token) if self.gold is None else self.gold[span].float()
        prefix, example = torch.tensor(text.prefix), torch.zeros(text.num_rows, dtype=torch.long)
        return LogitRows(logprobs[:, :k], ids[:, :k], gold, mean, std, prefix=prefix, example=example, token=token)


def top_entries(
    logprobs: Float[Tensor, "N K"], ids: Int[Tensor, "N K"], k: int, vocabulary: int
) -> tuple[Float[Tensor, "N k"], Int[Tensor, "N k"]]:
    """Return the k largest entries in descending order, padded with -inf and -1; log-probabilities above 0 are set to 0."""
    valid = logprobs.isfinite() & (logprobs > -999) & (ids >= 0) & (ids < vocabulary)
    values, order = logprobs.clamp(max=0).masked_fill(~valid, -torch.inf).sort(dim=-1, descending=True, stable=True)
    ids = ids.gather(1, order).masked_fill(values.isneginf(), -1)
    missing = max(0, k - values.shape[1])
    pad = torch.nn.functional.pad
    return pad(values, (0, missing), value=-torch.inf)[:, :k], pad(ids, (0, missing), value=-1)[:, :k]


def logprob_of_token(
    logprobs: Float[Tensor, "N K"], ids: Int[Tensor, "N K"], token: Int[Tensor, " N"]
) -> Float[Tensor, " N"]:
    """Return the log-probability of each row's token if it is among the row's entries, else NaN."""
    is_token = ids == token[:, None]
    value = logprobs.masked_fill(~is_token, -torch.inf).amax(-1)
    return value.masked_fill(~is_token.any(-1), torch.nan)
