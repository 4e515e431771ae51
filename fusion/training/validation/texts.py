"""Validation examples as a model in training reads them: which rows are scored, and which process reads what."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fusion.data.encode import Encoded
from fusion.data.example import Example


@dataclass(frozen=True)
class ValidationTexts:
    """Examples that a model is read on while it trains, in the tokens of that model."""

    examples: Sequence[Example]
    encoded: Sequence[Encoded]

    @property
    def domains(self) -> list[str]:
        """Domains in the order of their first example."""
        return list(dict.fromkeys(example.domain for example in self.examples))

    def scored(self, number: int) -> tuple[int, int]:
        """How many rows of an example are scored, from the first on, and how many bytes of its response they predict.

        All bytes of the response and not the end of turn, as on held-out examples; of a response that was cut, what comes
        before its last token, since how many bytes that one has is not known.
        """
        text, size = self.encoded[number], len(self.examples[number].response.encode())
        if not text.truncated:
            return text.num_rows - (text.prefix[-1] == size), size
        last = max(row for row, prefix in enumerate(text.prefix) if prefix >= 0)
        return last, text.prefix[last]

    def batches(self, size: int, rank: int, processes: int) -> list[list[int]]:
        """Numbers of the examples that this process reads, in batches of at most `size`, the longest first.

        Each example is in one batch of one process. All processes have as many batches, the last of which may be empty: sharded
        weights are gathered by all at once.
        """
        order = sorted(range(len(self.encoded)), key=lambda number: -len(self.encoded[number].input_ids))
        share, count = order[rank::processes], -(-len(order) // processes)
        return [share[begin : begin + size] for begin in range(0, count, size)]
