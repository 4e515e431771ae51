"""How alike two tokens are to the eye: the beginning that they share, of two vocabularies in one alphabetical order."""

from __future__ import annotations

from itertools import pairwise

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from fusion.alignment.token_map import ControlTokenPairs, TokenBytes


class SpellingDistance(nn.Module):
    """The distance of the spellings of any pivot token and any source token, from tables of both vocabularies.

    All tokens are put into one alphabetical order. Two of them begin alike for as many bytes as the least that any two
    neighbours between them share. So tables of least values over 1, 2, 4, 8 ... neighbours answer for any pair with two
    look-ups (a sparse table of range minima over the longest common prefixes, as for suffix arrays).

    A module, so that the tables move to a device like any other; it has no parameters.
    """

    pivot: Tensor
    source: Tensor
    length: Tensor
    shared: Tensor

    def __init__(
        self,
        pivot: Int[Tensor, " V"],
        source: Int[Tensor, " W"],
        length: Int[Tensor, " words"],
        shared: Int[Tensor, "levels words"],
    ):
        """Keep the tables: each token's word, -1 for one that is no text; bytes of each word; at level l and word w the bytes
        that the words from w to w + 2^l all begin with."""
        super().__init__()
        for name, table in (("pivot", pivot), ("source", source), ("length", length), ("shared", shared)):
            self.register_buffer(name, table, persistent=False)

    @classmethod
    def from_token_bytes(
        cls, pivot: TokenBytes, source: TokenBytes, control_tokens: ControlTokenPairs = ()
    ) -> SpellingDistance:
        """Build the tables from the bytes of both vocabularies by id. Each pair of `control_tokens` counts as the same word."""
        order = sorted({word for word in (*pivot, *source) if word} or {b" "})
        place = {word: number for number, word in enumerate(order)}
        same = [_both_begin_with(*pair) for pair in pairwise(order)]
        pivot_word, source_word = (_places(words, place) for words in (pivot, source))
        length = [len(word) for word in order]
        for number, (source_id, pivot_id) in enumerate(control_tokens, start=len(order)):
            pivot_word[pivot_id] = source_word[source_id] = number
            length.append(1)  # begins like no other word
        same += [0] * (len(length) - len(same))
        shared = _least(torch.tensor(same, dtype=torch.int32))
        return cls(pivot_word, source_word, torch.tensor(length, dtype=torch.int32), shared)

    def forward(self, pivot: Int[Tensor, "M L"], source: Int[Tensor, "M K"]) -> Float[Tensor, "M K L"]:
        """1 - (bytes that both begin with) / (bytes of the longer), of each of the source's ids and each of the pivot's.

        A metric from 0 to 1: 0 for equal words alone. 1 where one of the two is no text, or an id of -1.
        """
        pivot_word, source_word = (_look_up(table, ids) for table, ids in ((self.pivot, pivot), (self.source, source)))
        pivot_word, source_word = torch.broadcast_tensors(pivot_word[:, None, :], source_word[:, :, None])
        low, high = (
            torch.minimum(pivot_word, source_word).clamp(min=0),
            torch.maximum(pivot_word, source_word).clamp(min=0),
        )
        level = (high - low).clamp(min=1).double().log2().floor().long()
        first = self.shared[level, low]
        alike = torch.where(low == high, self.length[low], first.minimum(self.shared[level, high - (1 << level)]))
        distance = 1 - alike / torch.maximum(self.length[low], self.length[high])
        return torch.where((pivot_word < 0) | (source_word < 0), 1.0, distance)


def _both_begin_with(one: bytes, other: bytes) -> int:
    differ = (place for place, (a, b) in enumerate(zip(one, other, strict=False)) if a != b)
    return next(differ, min(len(one), len(other)))


def _places(words: TokenBytes, place: dict[bytes, int]) -> Int[Tensor, " V"]:
    return torch.tensor([place[word] if word else -1 for word in words], dtype=torch.long)


def _least(same: Int[Tensor, " words"]) -> Int[Tensor, "levels words"]:
    """Level l holds the least of 2^l neighbours from each place on; beyond the end there is nothing, which counts as 0."""
    levels, step = [same], 1
    while 2 * step < len(same):
        further = torch.cat([levels[-1][step:], same.new_zeros(step)])
        levels.append(levels[-1].minimum(further))
        step *= 2
    return torch.stack(levels)


def _look_up(table: Int[Tensor, " V"], ids: Int[Tensor, "M K"]) -> Int[Tensor, "M K"]:
    return torch.cat([table, table.new_tensor([-1])])[ids]  # so that -1 stays -1
