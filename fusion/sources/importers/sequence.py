"""One sequence of an imported dump, and the rows that an example takes from it."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from fusion.core.rows import LogitRows
from fusion.data.encode import Encoded
from fusion.sources.listed import ListedRows, logprob_of_token, top_entries


@dataclass(frozen=True, eq=False)
class ImportedSequence(ListedRows):
    """Log-probabilities of one token sequence from a dump; row r predicts token `first_position + r`."""

    def rows_about(self, text: Encoded) -> ListedRows:
        """Return the listed rows of an example that is a prefix of this sequence.

        Raises ValueError where the sequence has no rows for some of the response.
        """
        start = text.start - self.first_position
        last = self.first_position + len(self) - 1
        if start < 0 or start + text.num_rows > len(self):
            raise ValueError(
                f"{self.origin}{': ' if self.origin else ''}a sequence of {len(self.tokens)} tokens has rows for those from "
                f"{self.first_position} to {last}, and the response is {text.start} to {len(text.input_ids) - 1}."
            )
        return self.span(start, start + text.num_rows)

    def rows_for(self, text: Encoded, k: int, vocabulary: int) -> LogitRows:
        """Return the rows of an example that is a prefix of this sequence, the k most likely entries of each.

        Entries whose id belongs to no token of the tokenizer (padded heads) are left out. Raises ValueError where the
        sequence has no rows for some of the response.
        """
        listed = self.rows_about(text)
        token = torch.tensor(text.input_ids[text.start :])
        width = max(k, listed.ids.shape[1])
        logprobs, ids = top_entries(listed.logprobs.float(), listed.ids.long(), width, vocabulary)
        unknown = torch.full((text.num_rows,), torch.nan)
        mean, std = (unknown if field is None else field.float() for field in (listed.mean, listed.std))
        gold = logprob_of_token(logprobs, ids, token) if listed.gold is None else listed.gold.float().clamp(max=0)
        prefix, example = torch.tensor(text.prefix), torch.zeros(text.num_rows, dtype=torch.long)
        return LogitRows(logprobs[:, :k], ids[:, :k], gold, mean, std, prefix=prefix, example=example, token=token)
