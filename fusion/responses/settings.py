"""Whose responses are learned from, as settings."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from fusion.core.settings import Settings
from fusion.models.generate import Decoding


class Reference(Settings):
    """Those of the data."""

    kind: Literal["reference"] = "reference"


class Written(Settings):
    """Those that sources write, as far as they pass the check of their data set."""

    sources: list[str] | None = Field(default=None, min_length=1)
    """Who writes; all sources if not said."""
    samples: int = Field(default=1, ge=1)
    """Answers of each source to each prompt."""
    temperature: float = Field(default=0.0, ge=0)
    """0: the likeliest token each time, which gives one answer only."""
    top_p: float = Field(default=1.0, gt=0, le=1)
    """Draw among the likeliest tokens that together have this probability."""
    max_new_tokens: int = Field(default=256, gt=0)
    """Length limit of an answer."""
    cut_off: Literal["leave_out", "keep"] = "leave_out"
    """What happens to answers that reach the limit: `keep` is for models that never end a text by themselves."""
    otherwise: Literal["leave_out", "reference"] = "leave_out"
    """What happens to prompts without any answer that may be learned from: left out, or learned with the data's response."""
    seed: int = 0
    """Of what is drawn. The run's own seed is another one, so that runs from several seeds can share their answers."""

    @model_validator(mode="after")
    def _draws(self) -> Written:
        if self.samples > 1 and self.temperature == 0:
            raise ValueError(
                f"{self.samples} samples at temperature 0 are all the same; raise temperature, or set samples to 1"
            )
        return self

    @property
    def decoding(self) -> Decoding:
        """How answers are written."""
        return Decoding(self.max_new_tokens, self.temperature, self.top_p, self.samples, self.seed)


class BestSource(Written):
    """Of each domain the source whose answers pass most often writes; where it fails, the next best."""

    kind: Literal["best_source"] = "best_source"
    keep: Literal["accepted", "all"] = "accepted"
    """`accepted`: answers that pass alone. `all`: the check ranks the sources of a domain and no more, and the best one's
    answer to every prompt is learned from: for references that are partly wrong or missing."""


class EverySource(Written):
    """Each source writes, and every answer that passes is an example of its own: one of each source and prompt."""

    kind: Literal["every_source"] = "every_source"


def _named(value: Any) -> Any:
    return {"kind": value} if isinstance(value, str) else value


AnyResponses = Annotated[
    Annotated[Reference | BestSource | EverySource, Field(discriminator="kind")], BeforeValidator(_named)
]
"""`reference`, `best_source` or `every_source`, alone or as the `kind` of a group."""
