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
        """Return a text, or several as another sequence."""
        if isinstance(index, slice):
            return self.select(range(len(self))[index])
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

    def select(self, numbers: Sequence[int]) -> EncodedTexts:
        """Return the texts of these numbers, in this order."""
        return EncodedTexts.from_texts(self[number] for number in numbers)

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


DTYPES: Mapping[str, Any] = {
    "input_ids": np.int32,
    "prefixes": np.int32,
    "ends": np.int64,
    "starts": np.int32,
    "truncated": np.bool_,
}
"""The arrays of `EncodedTexts` and their types."""
