"""Settings of `data.responses`: train on the responses of the data sets, or on those that sources generate."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from fusion.core.settings import Settings
from fusion.models.generate import GenerationSettings


class DatasetResponses(Settings):
    """Train on the responses of the data sets."""

    kind: Literal["reference"] = "reference"


class GeneratedResponses(Settings):
    """Train on responses that sources generate and that pass the check of their data set; the base of two kinds."""

    sources: list[str] | None = Field(default=None, min_length=1)
    """Names of the sources that respond; all if not said."""
    samples: int = Field(default=1, ge=1)
    """Responses of each source to each prompt."""
    temperature: float = Field(default=0.0, ge=0)
    """0: the likeliest token each time, which gives one response only."""
    top_p: float = Field(default=1.0, gt=0, le=1)
    """Sample among the likeliest tokens that together have this probability."""
    max_new_tokens: int = Field(default=256, gt=0)
    """Longest response in tokens."""
    truncated: Literal["leave_out", "keep"] = "leave_out"
    """What happens to responses that reach `max_new_tokens`: `keep` is for models that never end a text by themselves."""
    fallback: Literal["leave_out", "reference"] = "leave_out"
    """What happens to prompts without a response that passes: left out, or trained on with the data set's own response."""
    seed: int = 0
    """Seed of sampling. Not the seed of the run, so that runs with several seeds can share these responses."""

    @model_validator(mode="after")
    def _samples_differ(self) -> GeneratedResponses:
        if self.samples > 1 and self.temperature == 0:
            raise ValueError(
                f"{self.samples} samples at temperature 0 are all the same; raise temperature, or set samples to 1"
            )
        return self

    @property
    def decoding(self) -> GenerationSettings:
        """How responses are generated."""
        return GenerationSettings(self.max_new_tokens, self.temperature, self.top_p, self.samples, self.seed)


class BestSource(GeneratedResponses):
    """Train on one response to each prompt: of the source that passes most often in its domain; where it fails, of the next.

    Or, with `prefer`, of all that pass the one that fits the pivot best.
    """

    kind: Literal["best_source"] = "best_source"
    keep: Literal["accepted", "all"] = "accepted"
    """`accepted`: only responses that pass. `all`: the check only ranks the sources of a domain, and every response of the best
    one is trained on: for references that are partly wrong or missing."""
    prefer: Literal["first", "likeliest", "least_rsr"] = "first"
    """Which of several. `first`: the first of the best source. Else the pivot reads all responses before it is trained, and
    the one that fits it best is trained on, whichever source wrote it: `likeliest`, the one with the highest log-probability
    per byte (GRAPE, 2502.04194), or `least_rsr`, the one with the least rank-surprisal ratio (2601.14249). With `keep: all` it
    is chosen among those of the best source."""
    unlabelled: Literal["all", "best"] = "all"
    """Who answers prompts without a reference (`response: null`). `all`: every source. `best`: first all sources answer the
    prompts with a reference, then the one whose answers passed most often in a domain answers the rest of it alone. That
    spares the others most of their writing."""

    @model_validator(mode="after")
    def _one_answer_has_no_rival(self) -> BestSource:
        if self.unlabelled == "best" and self.prefer != "first":
            raise ValueError(
                f"prefer: {self.prefer} chooses among answers of several sources, and with unlabelled: best one source "
                "answers; leave out one of them"
            )
        return self


class EverySource(GeneratedResponses):
    """Train on one response of each source to each prompt: the first that passes, each an example of its own."""

    kind: Literal["every_source"] = "every_source"


def _kind_alone(value: Any) -> Any:
    return {"kind": value} if isinstance(value, str) else value


AnyResponses = Annotated[
    Annotated[DatasetResponses | BestSource | EverySource, Field(discriminator="kind")], BeforeValidator(_kind_alone)
]
"""`reference`, `best_source` or `every_source`, alone or as the `kind` of a group."""
