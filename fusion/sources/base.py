"""What every backend offers, and what it is asked for."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, runtime_checkable

from fusion.core.rows import LogitRows
from fusion.core.settings import Settings
from fusion.data.encode import Encoded, Template
from fusion.models.generate import Completion, GenerationSettings
from fusion.models.loading import ModelRef
from fusion.sources.sampling import RandomSampling

Progress = Callable[[int], None]


@runtime_checkable
class Source(Protocol):
    """A frozen model that describes its next-token logits along given text."""

    def rows(self, texts: Sequence[Encoded], progress: Progress | None = None) -> LogitRows:
        """Rows of all texts, one text after another, numbered from 0 in `example`. `progress` hears of tokens done."""
        ...


@runtime_checkable
class Generator(Protocol):
    """A model that answers prompts by itself."""

    def generate(
        self, prompts: Sequence[Sequence[int]], how: GenerationSettings, progress: Progress | None = None
    ) -> list[list[Completion]]:
        """`how.samples` answers to each prompt of token ids. `progress` hears of prompts done."""
        ...


@dataclass(frozen=True)
class SourceRequest:
    """What a source is opened for. Each backend takes from it what it has a use for."""

    ref: ModelRef
    """Where the tokenizer is, and the weights if the backend reads them."""
    tokenizer: Any
    k: int
    """Entries of each row, at most as many as the tokenizer has ids."""
    dtype: str = "float32"
    device: str = "cpu"
    batch_tokens: int = 4096
    compile: bool = False
    sampling: RandomSampling | None = None
    """Draw entries at random instead of keeping the `k` largest."""
    hidden: bool = False
    """Whether rows are to hold the state that the model's output layer reads."""
    template: Template = "auto"
    """How its prompts are rendered, which says what ends an answer."""


class Backend(Settings, ABC):
    """How a source is asked for its rows, and what it can know of them."""

    has_weights: ClassVar[bool] = False
    """Whether the source's path names the weights too, so that the model can be identified, counted and measured."""
    unknown_fields: ClassVar[frozenset[str]] = frozenset({"mean", "std", "hidden"})
    """Fields of its rows that are always NaN, or missing."""
    can_sample: ClassVar[bool] = False
    """Whether it can draw entries at random from the whole distribution."""
    can_generate: ClassVar[bool] = False
    """Whether it can answer prompts by itself."""
    runtime_settings: ClassVar[frozenset[str]] = frozenset()
    """Settings that change no number, only how it is come by."""

    def identity(self) -> dict[str, Any]:
        """What of the settings makes the rows what they are."""
        return self.model_dump(mode="json", exclude=set(self.runtime_settings))

    @abstractmethod
    def open(self, wanted: SourceRequest) -> Source:
        """Make ready to give rows. Raises ValueError, with the way out, where that cannot be."""

    def open_generator(self, wanted: SourceRequest) -> Generator:
        """Make ready to answer prompts. Raises ValueError where the backend never does, and as `open`."""
        raise ValueError(
            f"{wanted.ref.path}: backend {getattr(self, 'kind', '')} gives rows of given text and writes none."
        )
