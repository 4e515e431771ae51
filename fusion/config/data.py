"""What is learned from, and what is measured on."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from fusion.core.settings import Settings
from fusion.data import datasets
from fusion.data.make_examples import AUTO
from fusion.data.reading.fill import columns_of
from fusion.responses import AnyCheck, AnyResponses, DatasetResponses, EndedCheck, FunctionCheck

RESERVED_DOMAINS = {"mean": "the mean over domains in every table", "*": "all domains that weighting does not name"}
"""Names of domains that mean something else, and what."""


class DataSettings(Settings):
    """One data set; docs/data.md says what is read, and `fusion.data.datasets.read` how."""

    path: str = Field(min_length=1)
    """`builtin:SKILL`; a .jsonl, .json, .csv, .tsv or .parquet file, a folder or pattern (`data/*.jsonl`) of them, or a folder
    of datasets' save_to_disk; or a hub id."""
    domain: str
    """Label under which results are reported."""
    prompt: str = AUTO
    """Prompt with columns in braces; empty for none; auto: as the names of the columns tell."""
    response: str | None = AUTO
    """Response with columns in braces; auto: as the names of the columns tell. null: prompts alone, for sources to answer
    (`data.responses`)."""
    check: AnyCheck = EndedCheck()
    """What makes an answer that a source wrote good enough to learn from."""
    tests: str | None = None
    """Program that fails where an answer is wrong, with columns in braces, for `check: {kind: tests}`; a list gives lines."""
    system: str | None = None
    """System message, with columns in braces, of prompts that have none of their own."""
    messages: str | None = None
    """Column with a conversation, instead of prompt and response; the last assistant turn is the response."""
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
    """Split, or a part of one: train[:1000], train[10%:20%]. A single file is `train`. Of built-in data: pretrain, fusion or
    heldout."""
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
        kept = self.check.columns if isinstance(self.check, FunctionCheck) else []
        return self.model_dump(exclude={"check"}) | ({"kept_columns": kept} if kept else {})

    @property
    def is_judged(self) -> bool:
        """Whether its check tells right answers from wrong ones: not so of prompts alone whose answers only have to end."""
        return self.response is not None or not isinstance(self.check, EndedCheck)

    @field_validator("prompt", "response", "system", "look_ahead", "tests")
    @classmethod
    def _braces_close(cls, form: str | None) -> str | None:
        columns_of(form or "")
        return form

    @field_validator("domain")
    @classmethod
    def _is_a_label(cls, value: str) -> str:
        if not value.strip() or value != value.strip() or not value.isprintable():
            raise ValueError(f"must be a label without line breaks and without spaces around it, got {value!r}")
        if value.casefold() in RESERVED_DOMAINS:
            raise ValueError(f"no domain may be called {value}: it stands for {RESERVED_DOMAINS[value.casefold()]}")
        return value

    @model_validator(mode="after")
    def _every_setting_does_something(self) -> DataSettings:
        """Refuse settings that another one leaves without effect."""
        builtin, hub = self.path.startswith(datasets.BUILTIN), datasets.is_hub_id(self.path)
        without = {
            "label_noise": "is for built-in data only" if not builtin else None,
            "name": "is for data sets of the hub only" if not hub else None,
            "revision": "is for data sets of the hub only" if not hub else None,
            "prompt": "says what messages says already" if self.messages else None,
            "response": "says what messages says already" if self.messages and self.response is not None else None,
            "prompt_chars": "moves text of a response, and response is null" if self.response is None else None,
            "response_chars": "cuts a response, and response is null" if self.response is None else None,
            "as_raw_text": "makes a response of the prompt too, and response is null"
            if self.response is None
            else None,
        }
        if useless := [name for name, why in without.items() if why and getattr(self, name) != self._default(name)]:
            raise ValueError(f"{useless[0]} {without[useless[0]]} ({self.path}); leave it out")
        return self

    @classmethod
    def _default(cls, name: str) -> Any:
        return cls.model_fields[name].default


class Data(Settings):
    """What is learned from, and what is measured on."""

    train: list[DataSettings] = Field(min_length=1)
    heldout: list[DataSettings] = Field(min_length=1)
    """Never trained on; a question that is also in `train` is an error, whatever its answer, case and white space."""
    validation: list[DataSettings] = Field(default=[])
    """Neither trained nor measured on: what the pivot is read on while it trains (curves of bits per byte, accuracy and
    calibration, as training.eval_strategy and eval_steps say; ten times if they do not), and what `weighting: learned` finds
    its shares on. Some dozens of examples will do."""
    decontaminate: bool = False
    """Leave out of training what is asked in `heldout` or `validation` too, and count it, instead of refusing it."""
    responses: AnyResponses = DatasetResponses()
    """Whose responses are learned from: those of the data (`reference`), or of sources (`best_source`, `every_source`)."""
    easiest_fraction: float | None = Field(default=None, gt=0, le=1)
    """Train on this share of each domain's examples alone, those with the lowest perplexity under the pivot before training.
    Mix-CPT chooses easy samples by perplexity for its second stage; this score is a guess."""
    max_length: int = Field(default=1024, gt=1)
    """Tokens of prompt and response in training; longer responses are cut, and the cut is reported."""
    filter_overlong_prompts: bool = False
    """Leave out, for all models, and count what is too long for one: examples whose prompt leaves no room for a response within
    `max_length` or what the model reads, and held-out examples that it cannot be measured on. If not said, they are refused."""
