"""How alike two tokens are to the eye: the beginning that they share, of two vocabularies in one alphabetical order."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from fusion.alignment.token_map import Roles, Spellings


@dataclass(frozen=True)
class Words:
    """The tokens of a pivot and of a source as words of one dictionary.

    Two words begin alike for as many bytes as the least that any two neighbours between them share. So tables of least
    values over 1, 2, 4, 8 ... neighbours answer for any pair with two look-ups (a sparse table of range minima over
    the longest common prefixes, as for suffix arrays).
    """

    pivot: Int[Tensor, " V"]
    """The word of each pivot token; -1 for one that is no text."""
    source: Int[Tensor, " W"]
    """The same of the source's."""
    length: Int[Tensor, " words"]
    """Bytes of each word."""
    shared: Int[Tensor, "levels words"]
    """At level l and word w: bytes that the words from w to w + 2^l all begin with."""

    @classmethod
    def of(cls, pivot: Spellings, source: Spellings, roles: Roles = ()) -> Words:
        """From the bytes of both vocabularies by id. Tokens with the same role, of `roles`, are the same word."""
        order = sorted({word for word in (*pivot, *source) if word} or {b" "})
        place = {word: number for number, word in enumerate(order)}
        same = [_both_begin_with(*pair) for pair in pairwise(order)]
        mine, theirs = (_places(words, place) for words in (pivot, source))
        length = [len(word) for word in order]
        for number, (their_id, my_id) in enumerate(roles, start=len(order)):
            mine[my_id] = theirs[their_id] = number
            length.append(1)  # begins like no other word
        same += [0] * (len(length) - len(same))
        return cls(mine, theirs, torch.tensor(length, dtype=torch.int32), _least(torch.tensor(same, dtype=torch.int32)))

    def distance(self, pivot: Int[Tensor, "M L"], source: Int[Tensor, "M K"]) -> Float[Tensor, "M K L"]:
        """1 - (bytes that both begin with) / (bytes of the longer), of each of the source's ids and each of the pivot's.

        A metric from 0 to 1: 0 for equal words alone. 1 where one of the two is no text, or an id of -1.
        """
        mine, theirs = (_look_up(table, ids) for table, ids in ((self.pivot, pivot), (self.source, source)))
        mine, theirs = torch.broadcast_tensors(mine[:, None, :], theirs[:, :, None])
        low, high = torch.minimum(mine, theirs).clamp(min=0), torch.maximum(mine, theirs).clamp(min=0)
        level = (high - low).clamp(min=1).double().log2().floor().long()
        first = self.shared[level, low]
        alike = torch.where(low == high, self.length[low], first.minimum(self.shared[level, high - (1 << level)]))
        distance = 1 - alike / torch.maximum(self.length[low], self.length[high])
        return torch.where((mine < 0) | (theirs < 0), 1.0, distance)

    def to(self, device: Any) -> Words:
        """The same on another device."""
        return Words(*(table.to(device) for table in (self.pivot, self.source, self.length, self.shared)))


def _both_begin_with(one: bytes, other: bytes) -> int:
    differ = (place for place, (a, b) in enumerate(zip(one, other, strict=False)) if a != b)
    return next(differ, min(len(one), len(other)))


def _places(words: Spellings, place: dict[bytes, int]) -> Int[Tensor, " V"]:
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
