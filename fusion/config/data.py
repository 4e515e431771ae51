"""What is learned from, and what is measured on."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from fusion.core.settings import Settings
from fusion.responses import AnyCheck, AnyResponses, DatasetResponses, EndedCheck


class DataSettings(Settings):
    """One data set; see `fusion.data.datasets.load`."""

    path: str
    """`builtin:SKILL`, a .jsonl, .json, .csv or .parquet file, or a hub id."""
    domain: str
    """Label under which results are reported."""
    prompt: str = "{prompt}"
    """Prompt with columns in braces; empty for none."""
    response: str | None = "{response}"
    """Response with columns in braces. null: prompts alone, for sources to answer (`data.responses`)."""
    check: AnyCheck = EndedCheck()
    """What makes an answer that a source wrote good enough to learn from."""
    tests: str | None = None
    """Program that fails where an answer is wrong, with columns in braces, for `check: {kind: tests}`; a list gives lines."""
    system: str | None = None
    """System message, with columns in braces."""
    messages: str | None = None
    """Column with a conversation, instead of prompt and response."""
    look_ahead: str | None = None
    """The last message as sources with `look_ahead: true` read it, such as "{last_message} Solution: {solution}": columns in
    braces, {last_message} for the message as it is. For a reference answer, retrieved text or notes; the pivot never reads
    it."""
    template: Literal["plain"] | None = None
    """`plain` for raw text that no model should wrap in its chat template."""
    as_raw_text: bool = False
    """Make prompt and response, or a whole conversation, one raw text to learn from: for instructions, and for the chosen
    answers of preference data, in continual pre-training."""
    name: str | None = None
    """Configuration name of a hub data set."""
    split: str = "train"
    """Split of a hub data set; of a built-in one: pretrain, fusion or heldout."""
    where: dict[str, str | int | float | bool] | None = None
    """Keep the rows whose columns have these values."""
    revision: str | None = None
    """Commit of a hub data set."""
    skip: int = Field(default=0, ge=0)
    """Rows passed over first."""
    limit: int | None = Field(default=None, gt=0)
    """At most so many examples."""
    shuffle: int | None = None
    """Seed to shuffle rows with before skip and limit; for built-in data the seed they are made with."""
    prompt_chars: int | None = Field(default=None, gt=0)
    """Move about so many characters of the response's beginning into the prompt."""
    response_chars: int | None = Field(default=None, gt=0)
    """Cut responses to about so many characters."""
    label_noise: float = Field(default=0.0, ge=0, le=1)
    """Built-in data only: share of wrong answers."""

    @property
    def reading(self) -> dict[str, Any]:
        """Arguments of `fusion.data.datasets.load`."""
        return self.model_dump(exclude={"check"})

    @model_validator(mode="after")
    def _noise_is_built_in(self) -> DataSettings:
        if self.label_noise and not self.path.startswith("builtin:"):
            raise ValueError(f"label_noise is for built-in data only, not for {self.path}")
        return self


class Data(Settings):
    """What is learned from, and what is measured on."""

    train: list[DataSettings] = Field(min_length=1)
    heldout: list[DataSettings] = Field(min_length=1)
    """Never trained on; an example that is also in `train` is an error."""
    validation: list[DataSettings] = Field(default=[])
    """Neither trained nor measured on: what `weighting: learned` finds its shares on."""
    responses: AnyResponses = DatasetResponses()
    """Whose responses are learned from: those of the data (`reference`), or of sources (`best_source`, `every_source`)."""
    easiest_fraction: float | None = Field(default=None, gt=0, le=1)
    """Train on this share of each domain's examples alone, those with the lowest perplexity under the pivot before training.
    Mix-CPT chooses easy samples by perplexity for its second stage; this score is a guess."""
    max_length: int = Field(default=1024, gt=1)
    """Tokens of prompt and response in training; longer responses are cut, and the cut is reported."""
