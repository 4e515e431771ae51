"""How single stages are done: extraction, evaluation, and what a plan takes as given."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator, model_validator

from fusion.config.gpus import GPUS
from fusion.config.training import Arguments
from fusion.core.settings import Settings, suggest
from fusion.grading.final_answer import AnswerPart
from fusion.models.precision import preferred_dtype
from fusion.sources import RandomSampling


class Extract(Settings):
    """How sources are turned into rows on disk."""

    top_k: int | Literal["all"] = 10
    """Entries kept of each row; `all` keeps the whole vocabulary (small vocabularies only)."""
    sampling: RandomSampling | None = None
    """Draw entries at random from the whole distribution instead of keeping the `top_k` largest."""
    value_format: Literal["packed", "float16", "float32"] | None = None
    """How cached numbers are kept: `packed`, on scales within 0.03 nat (39 bytes a row at top_k 10 and a vocabulary of 152K),
    or as floats (72 and 96 bytes). If not said: packed, or float16 where whole rows are kept."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "float32"
    """Type that sources compute in, and models in evaluation. auto: bfloat16 on a GPU that has it and on a CPU with AMX, where
    it is about three times faster, and float32 elsewhere; which it was is part of what identifies a cache."""
    batch_tokens: int = Field(default=4096, gt=0)
    """Tokens of a forward pass."""
    shard_size: int = Field(default=256, gt=0)
    """Examples of a shard, the unit of resuming and of sharing between processes."""
    compile: bool = False
    """Compile the forward pass (torch.compile): minutes at the start, faster after. Changes rounding only."""
    hidden_states: bool = False
    """Keep the hidden state that each row was computed from too, as float16: 2 bytes for each number of its width (8 KiB a row
    at a width of 4096). For objectives that look at hidden states."""

    @field_validator("top_k")
    @classmethod
    def _positive(cls, value: int | str) -> int | str:
        if value != "all" and int(value) < 1:
            raise ValueError(f"must be at least 1, or `all`, got {value}")
        return value

    @model_validator(mode="after")
    def _whole_rows_are_floats(self) -> Extract:
        if self.top_k == "all" and self.value_format == "packed":
            raise ValueError(
                "value_format: packed is for the largest entries; the errors of a whole row's would add up. Set it to float16 "
                "or float32 with top_k: all"
            )
        return self

    @model_validator(mode="after")
    def _drawn_or_largest(self) -> Extract:
        default = type(self).model_fields["top_k"].default  # which stands in a configuration that was written out
        if self.sampling is not None and self.top_k != default:
            raise ValueError(
                f"top_k ({self.top_k}) keeps the largest entries and sampling draws them at random; leave one of them out"
            )
        return self

    @property
    def resolved_dtype(self) -> str:
        """Type that sources compute in, on this machine."""
        return preferred_dtype() if self.dtype == "auto" else self.dtype

    @property
    def resolved_value_format(self) -> str:
        """How cached numbers are kept."""
        return self.value_format or ("float16" if self.top_k == "all" else "packed")


class Baseline(Settings):
    """Plain fine-tuning of the pivot on the data's own responses, which every result is compared with."""

    training: Arguments = Field(default={})
    """TrainingArguments of the baseline, where they are not the run's `training`: what suits fine-tuning best, so that nothing
    is compared with a weak one. num_train_epochs here counts, whatever the run's max_steps."""


class Evaluation(Settings):
    """What is measured on the held-out examples, besides bits per byte."""

    original_models: bool = True
    """Measure the pivot and the sources as they were, too."""
    exact_match: list[str] = Field(default=[])
    """Domains in which the model's greedy answer is compared with the response."""
    compare: AnswerPart | dict[str, AnswerPart] = "text"
    """What of both is compared: `text` (all of it), `number` (the last), or `option`; for all domains, or by domain."""
    max_new_tokens: int = Field(default=64, gt=0)
    """Length limit of such answers."""
    batch_tokens: int = Field(default=4096, gt=0)
    """Tokens of a forward pass."""
    resamples: int = Field(default=2000, ge=100)
    """Bootstrap resamples of the confidence intervals."""

    @property
    def compared_parts(self) -> dict[str, AnswerPart]:
        """What is compared in the domains in which it is less than all of the text."""
        given: dict[str, AnswerPart] = (
            self.compare if isinstance(self.compare, dict) else dict.fromkeys(self.exact_match, self.compare)
        )
        return {domain: part for domain, part in given.items() if part != "text"}


class Plan(Settings):
    """What `fusion plan` takes as given. Changes nothing of a run."""

    gpus: int = Field(default=1, gt=0)
    """GPUs of all machines together."""
    gpu: str | None = None
    """Kind of GPU, such as h800; times are said, and whether it fits, only where this is."""
    mfu: float = Field(default=0.4, gt=0, le=1)
    """Share of the GPU's peak that work gets. An assumption; measure yours."""
    tokens: int | None = Field(default=None, gt=0)
    """Tokens of an example, prompt and response. Given, no data and no tokenizer are read."""
    response: int | None = Field(default=None, gt=0)
    """How many of them are the response; all if not said."""
    examples: int | None = Field(default=None, gt=0)
    """Training examples, where `tokens` is given and a data set has no `limit`."""
    heldout: int | None = Field(default=None, gt=0)
    """The same for held-out examples."""

    @field_validator("gpu")
    @classmethod
    def _is_known(cls, value: str | None) -> str | None:
        if value is not None and value not in GPUS:
            raise ValueError(f"there is no GPU {value}{suggest(value, set(GPUS))}")
        return value
