"""What one model did on one suite, sample by sample, and its file: enough to compute every number again, and to compare."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from fusion.core.renamed_keys import new_name
from fusion.runtime.syncing import sync
from fusion.runtime.unfinished import unfinished_file

MEAN = "mean"
"""Name of the mean over domains in every table; so no domain may be called this."""

Finite = Annotated[float, Field(allow_inf_nan=False)]
"""A number that is neither NaN nor infinite."""


class Sample(BaseModel):
    """One question of a benchmark, or one held-out text, with what one model answered and how it was scored."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    id: str
    """The same for every model, so that two models can be compared example by example."""
    domain: str
    """What the example is about, such as `math`; results are given for each domain."""
    subset: str | None = None
    """The part of the domain, such as `anatomy` of MMLU; None where it has no parts."""
    weight: float = Field(default=1.0, gt=0, allow_inf_nan=False)
    """Weight in its domain's accuracy: 1, or less in a large subset where each subset counts the same."""
    bytes: int = Field(ge=1)
    """Length of the target text in UTF-8."""
    nll: float | None = Field(default=None, allow_inf_nan=False)
    """Negative log-likelihood of the target text under the model, in nats, summed over its tokens; None if unknown."""
    exact_match: bool | None = None
    """Whether the model's own answer is the target, letter by letter; None where nothing was generated."""
    calibration: list[Finite] | None = Field(default=None, min_length=11, max_length=11)
    """For each tenth of confidence, the probability of the likeliest next tokens minus how many of them came, summed over the
    target; then its tokens. From these the expected calibration error is computed."""
    score: float | None = Field(default=None, ge=0, le=1)
    """Value of the task's main metric, 0 to 1; None for a text of which only the likelihood is measured."""
    metrics: dict[str, Finite] = {}
    """All metrics of the task by name, such as `acc_norm`."""
    prompt: str
    prompt_tokens_cut: int = Field(default=0, ge=0)
    """Tokens cut off the prompt's beginning, which did not fit the model's context: it was asked another question."""
    target: str
    """The true answer, or the text whose likelihood is measured."""
    answer: str | None = None
    """What the model generated, or the choice it found likeliest; None where only a likelihood was measured."""
    extracted: str | None = None
    """What the task's filter extracted from the answer; None where it found nothing or there is no filter."""

    @field_validator("domain", "subset")
    @classmethod
    def _is_not_called_mean(cls, domain: str | None) -> str | None:
        if domain == MEAN:
            raise ValueError(f"no domain may be called {MEAN!r}, the name of the mean over domains; rename it")
        return domain


class Result(BaseModel):
    """All samples of one suite for one model, and what is needed to measure them again."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, protected_namespaces=())

    model: str
    """Short name, as tables show it."""
    suite: str
    """Name of what was asked: `heldout`, or a suite of benchmarks."""
    path: str
    """Folder or hub id the model was loaded from."""
    provenance: dict[str, Any]
    """What the numbers depend on: fingerprints and settings (`key`), versions, seed."""
    samples: list[Sample] = Field(min_length=1)
    """One for each example: its likelihood, and the answer where one was asked for."""

    @field_validator("samples")
    @classmethod
    def _ids_are_distinct(cls, samples: list[Sample]) -> list[Sample]:
        twice = sorted(id for id, count in Counter(sample.id for sample in samples).items() if count > 1)
        if twice:
            raise ValueError(
                f"{len(twice)} ids occur more than once, the first is {twice[0]!r}; every sample needs its own"
            )
        return samples

    def save(self, path: Path) -> None:
        """Write as JSON, whole or not at all.

        Raises ValueError where `provenance` holds what JSON cannot (NaN, infinity, a path); the old file then stays.
        """
        try:
            text = json.dumps(self.model_dump(), allow_nan=False, ensure_ascii=False, indent=1)
        except (TypeError, ValueError) as error:
            raise ValueError(f"{path}: `provenance` of {self.model} does not fit JSON ({error}); use text.") from error
        write_atomically(path, text + "\n")

    @staticmethod
    def load(path: Path) -> Result:
        """Read what `save` wrote. Raises FileNotFoundError, or ValueError with every mistake of the file."""
        if not path.is_file():
            raise FileNotFoundError(f"{path}: no such result. Evaluate the model first, or check the name.")
        try:
            return Result.model_validate_json(path.read_bytes())
        except ValidationError as error:
            known = {*Result.model_fields, *Sample.model_fields}
            raise ValueError(
                f"{path} is not a result. Evaluate again, or repair:{format_mistakes(error, known)}"
            ) from error


def write_atomically(path: Path, text: str) -> None:
    """Write `text` beside `path` and rename it: a reader finds the old file or the new one, never a part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with unfinished_file(path) as aside:
        aside.write_text(text, encoding="utf-8")
        sync(aside)
        aside.replace(path)


def format_mistakes(error: ValidationError, allowed: Collection[str] = ()) -> str:
    """Each mistake of a file on its own line: where it is, what is wrong, and the value found.

    For an unknown key that was renamed to one of the keys `allowed`, its new name.
    """
    lines = []
    for mistake in error.errors(include_url=False):
        place = ".".join(str(part) for part in mistake["loc"]) or "the file"
        renamed = new_name(str(mistake["loc"][-1]), allowed) if mistake["type"] == "extra_forbidden" else None
        hint = f"; it is called {renamed} now" if renamed else ""
        lines.append(f"\n  {place}: {mistake['msg']}{hint} (got {repr(mistake['input'])[:60]})")
    return "".join(lines)
