"""The protocols of a source model, and the base class of the backends that open one.

To write a backend: subclass `Backend` with a `kind`, set the class variables that say what it can do, and return a `Source`
from `open`. A `Source` needs one method, `rows`. Where `can_generate` is true, return a `Generator` from `open_generator` as
well. Then add the class to `AnyBackend` in `fusion/sources/__init__.py`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, Protocol, runtime_checkable

from fusion.core.rows import LogitRows
from fusion.core.settings import Settings
from fusion.data.encode import Encoded
from fusion.data.prompt_format import PromptFormat
from fusion.models.generate import Completion, GenerationSettings
from fusion.models.loading import ModelRef
from fusion.sources.sampling import RandomSampling

Progress = Callable[[int], None]
"""Called with the number of tokens (of rows) or prompts (of completions) done since the last call."""


@runtime_checkable
class Source(Protocol):
    """A frozen source model that gives its next-token distribution at every response position of given texts."""

    def rows(self, texts: Sequence[Encoded], progress: Progress | None = None) -> LogitRows:
        """Return the rows of all texts, `num_rows` for each, one text after another in the order given.

        `example` numbers the texts from 0; `token` and `prefix` are those of the texts. Log-probabilities are natural, over
        the whole vocabulary, at temperature 1, entries in descending order. What the model cannot know is NaN (`gold`,
        `mean`, `std`), -1 with -inf (an entry), or None (`hidden`). `progress` is called with tokens done. Raises
        ValueError where the model read other tokens than it was given.
        """
        ...


@runtime_checkable
class Generator(Protocol):
    """A source model that generates completions of prompts."""

    def generate(
        self, prompts: Sequence[Sequence[int]], settings: GenerationSettings, progress: Progress | None = None
    ) -> list[list[Completion]]:
        """Return `settings.num_return_sequences` completions of each prompt of token ids.

        `progress` is called with prompts done.
        """
        ...


@dataclass(frozen=True)
class SourceRequest:
    """The model to open and what its rows must hold. A backend ignores what it has no use for."""

    ref: ModelRef
    """Path of the tokenizer, and of the weights if the backend reads them."""
    tokenizer: Any
    k: int
    """Entries of each row, at most as many as the tokenizer has ids."""
    dtype: str = "float32"
    device: str = "cpu"
    batch_tokens: int = 4096
    compile: bool = False
    autocast: Literal["bfloat16", "float16"] | None = None
    """What it multiplies in although its weights are of `dtype`, as a trainer with mixed precision does."""
    sampling: RandomSampling | None = None
    """Sample entries at random instead of keeping the `k` largest."""
    hidden: bool = False
    """Whether rows hold the last hidden state, which the output layer reads."""
    stop_ids: Sequence[int] = ()
    """Ids that are one event in its rows, see `Head.with_stop_ids`: of the pivot, when it reads what it wrote."""
    prompt_format: PromptFormat = field(default_factory=PromptFormat)
    """How its prompts are written, which decides where a completion ends."""


class Backend(Settings, ABC):
    """Settings of a way to run a source model, and what this way can know of its rows."""

    has_weights: ClassVar[bool] = False
    """Whether the source's path holds the weights too, so that the model can be fingerprinted, planned for and evaluated."""
    unknown_fields: ClassVar[frozenset[str]] = frozenset({"mean", "std", "hidden"})
    """Fields of its rows that are always NaN or None."""
    can_sample: ClassVar[bool] = False
    """Whether it can sample entries at random from the whole distribution (`extract.sampling`)."""
    can_generate: ClassVar[bool] = False
    """Whether it can generate completions."""
    shares_prefixes: ClassVar[bool] = False
    """Whether it reads what the texts of one call begin with once for all of them, which a plan then counts once."""
    runtime_settings: ClassVar[frozenset[str]] = frozenset()
    """Settings that change no number, only how it is computed; they are left out of the cache key."""

    def identity(self) -> dict[str, Any]:
        """Return the settings that the rows depend on, for the cache key."""
        return self.model_dump(mode="json", exclude=set(self.runtime_settings))

    @abstractmethod
    def open(self, request: SourceRequest) -> Source:
        """Load or connect to the model. Raises ValueError, with the way out, where that cannot be."""

    def open_generator(self, request: SourceRequest) -> Generator:
        """Load or connect to the model for generation. Raises ValueError where `can_generate` is false, and as `open`."""
        raise ValueError(
            f"{request.ref.path}: backend {getattr(self, 'kind', '')} gives rows of given text and generates none."
        )
