"""Encoded texts of one model in flat arrays: some five bytes a token, and an `Encoded` only where one is asked for."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, overload

import numpy as np

from fusion.data.encode import Encoded

Array = np.ndarray


@dataclass(frozen=True, eq=False)
class EncodedTexts(Sequence[Encoded]):
    """Texts in order, as a list of `Encoded` would hold them; the arrays may lie in a file (`numpy.memmap`).

    Text n has the ids `input_ids[ends[n - 1] : ends[n]]`, of which the first `starts[n]` are its prompt. A prefix for each id
    behind the prompts follows one another in `prefixes`.
    """

    input_ids: Array
    """Prompt, response and end of all texts, one behind the other [tokens], int32."""
    prefixes: Array
    """Bytes of the response before each row's token, or -1 [rows], int32."""
    ends: Array
    """Number of tokens up to the end of each text [texts], int64."""
    starts: Array
    """Tokens of each text's prompt [texts], int32."""
    truncated: Array
    """Whether the end of each text was cut off [texts], bool."""

    def __len__(self) -> int:
        """Return the number of texts."""
        return len(self.ends)

    @overload
    def __getitem__(self, index: int) -> Encoded: ...
    @overload
    def __getitem__(self, index: slice) -> EncodedTexts: ...
    def __getitem__(self, index: int | slice) -> Encoded | EncodedTexts:
        """Return a text, or those of a slice as a view of the same arrays."""
        if isinstance(index, slice):
            return self._between(*index.indices(len(self)))
        number = range(len(self))[index]  # raises IndexError, and counts from the end
        begin, end, start = (
            int(self.ends[number - 1]) if number else 0,
            int(self.ends[number]),
            int(self.starts[number]),
        )
        first = begin - int(self._prompt_tokens[number])
        return Encoded(
            self.input_ids[begin:end].tolist(),
            start,
            self.prefixes[first : first + end - begin - start].tolist(),
            truncated=bool(self.truncated[number]),
        )

    def _between(self, begin: int, end: int, step: int) -> EncodedTexts:
        if step != 1:
            return EncodedTexts.from_texts(self[number] for number in range(begin, end, step))
        end = max(begin, end)
        token, row = (int(self.ends[begin - 1]), int(self._rows_before(begin))) if begin else (0, 0)
        last = int(self.ends[end - 1]) if end else 0
        return EncodedTexts(
            self.input_ids[token:last],
            self.prefixes[row : int(self._rows_before(end))],
            self.ends[begin:end] - token,
            self.starts[begin:end],
            self.truncated[begin:end],
        )

    def _rows_before(self, number: int) -> int:
        """Return the number of rows of the texts before this one."""
        if number == 0:
            return 0
        return int(self.ends[number - 1] - self._prompt_tokens[number - 1] - self.starts[number - 1])

    def __iter__(self) -> Iterator[Encoded]:
        """Yield the texts in order."""
        return (self[number] for number in range(len(self)))

    @property
    def lengths(self) -> Array:
        """Tokens of each text [texts], int64."""
        return np.diff(self.ends, prepend=0)

    @property
    def rows(self) -> Array:
        """Rows of each text: tokens of its response and its end [texts], int64."""
        return self.lengths - self.starts

    @functools.cached_property
    def _prompt_tokens(self) -> Array:
        """Tokens of the prompts before each text [texts], int64."""
        return np.cumsum(self.starts, dtype=np.int64) - self.starts

    def select(self, numbers: Sequence[int]) -> Sequence[Encoded]:
        """Return the texts of these numbers, in this order, which stay where they are."""
        whole = len(numbers) <= len(self) and all(map(int.__eq__, numbers, range(len(numbers))))
        return self[: len(numbers)] if whole else ChosenTexts(self, numbers)

    def arrays(self) -> dict[str, Array]:
        """Return the arrays by name, as `EncodedTexts(**arrays)` takes them."""
        return {name: getattr(self, name) for name in DTYPES}

    @classmethod
    def from_texts(cls, texts: Iterable[Encoded]) -> EncodedTexts:
        """Put texts into arrays."""
        columns: dict[str, list[Any]] = {name: [] for name in DTYPES}
        for text in texts:
            columns["input_ids"] += text.input_ids
            columns["prefixes"] += text.prefix
            columns["ends"].append(len(columns["input_ids"]))
            columns["starts"].append(text.start)
            columns["truncated"].append(text.truncated)
        return cls(**{name: np.array(values, DTYPES[name]) for name, values in columns.items()})

    @classmethod
    def cat(cls, parts: Sequence[EncodedTexts]) -> EncodedTexts:
        """Put several sequences one behind the other."""
        joined = {name: np.concatenate([getattr(part, name) for part in parts] or [[]]) for name in DTYPES}
        shift = np.cumsum([0, *(len(part.input_ids) for part in parts)])[:-1]
        joined["ends"] = joined["ends"] + np.repeat(shift, [len(part) for part in parts])
        return cls(**{name: values.astype(DTYPES[name], copy=False) for name, values in joined.items()})


@dataclass(frozen=True, eq=False)
class ChosenTexts(Sequence[Encoded]):
    """Some of the texts, each looked up when it is asked for."""

    texts: EncodedTexts
    numbers: Sequence[int]

    def __len__(self) -> int:
        """Return how many were chosen."""
        return len(self.numbers)

    @overload
    def __getitem__(self, index: int) -> Encoded: ...
    @overload
    def __getitem__(self, index: slice) -> ChosenTexts: ...
    def __getitem__(self, index: int | slice) -> Encoded | ChosenTexts:
        """Return a text, or several."""
        if isinstance(index, slice):
            return ChosenTexts(self.texts, self.numbers[index])
        return self.texts[self.numbers[index]]


DTYPES: Mapping[str, Any] = {
    "input_ids": np.int32,
    "prefixes": np.int32,
    "ends": np.int64,
    "starts": np.int32,
    "truncated": np.bool_,
}
"""The arrays of `EncodedTexts` and their types."""
