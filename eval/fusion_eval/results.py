"""What one model did on one suite, item by item, and its file: enough to compute every number again, and to compare."""

from __future__ import annotations

import json
import os
from collections import Counter
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

MEAN = "mean"
"""Where the mean over domains stands in every table; so no domain may bear this name."""


class Item(BaseModel):
    """One question or held-out text, and what the model made of it."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    id: str
    """The same for every model, so that two models can be compared example by example."""
    domain: str
    """What the example is about, such as `math`; results are given for each domain."""
    subset: str | None = None
    """The part of the domain, such as `anatomy` of MMLU; None where it has no parts."""
    weight: float = Field(default=1.0, gt=0, allow_inf_nan=False)
    """How much it counts in its domain's scores: 1, or less in a large subset where the mean is taken over subsets."""
    bytes: int = Field(ge=1)
    """Length of the response text in UTF-8."""
    nats: float | None = Field(default=None, allow_inf_nan=False)
    """Negative log-likelihood of the response text under the model, in nats, summed over its tokens; None if unknown."""
    exact: bool | None = None
    """Whether the model's own answer is the response, letter by letter; None where nothing was generated."""
    calibration: list[float] | None = Field(default=None, min_length=11, max_length=11)
    """For each tenth of confidence, the probability of the likeliest next tokens less how many of them came, summed over the
    response; then its tokens. From these the expected calibration error is made."""
    score: float | None = Field(default=None, ge=0, le=1)
    """What a benchmark gives the answer, 0 to 1; None for a text that is only read."""
    metrics: dict[str, float] = {}
    """Further measures of a benchmark by name, such as `acc_norm`."""
    prompt: str
    expected: str
    answer: str | None = None
    """What the model wrote when given the prompt, or the choice it found likeliest; None where it was not asked."""
    extracted: str | None = None
    """What a benchmark read out of the answer; None where it found nothing or reads nothing out."""

    @field_validator("domain", "subset")
    @classmethod
    def _mean_is_taken(cls, domain: str | None) -> str | None:
        if domain == MEAN:
            raise ValueError(f"no domain may be called {MEAN!r}, the name of the mean over domains; rename it")
        return domain


class Result(BaseModel):
    """All items of one suite for one model, and what is needed to measure them again."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, protected_namespaces=())

    model: str
    """Short name, as tables show it."""
    suite: str
    path: str
    """Folder or hub id the model was loaded from."""
    made: dict[str, Any]
    """Versions, fingerprints, seed and settings that made the numbers."""
    items: list[Item] = Field(min_length=1)

    @field_validator("items")
    @classmethod
    def _ids_are_distinct(cls, items: list[Item]) -> list[Item]:
        twice = sorted(id for id, count in Counter(item.id for item in items).items() if count > 1)
        if twice:
            raise ValueError(
                f"{len(twice)} ids occur more than once, the first is {twice[0]!r}; every item needs its own"
            )
        return items

    def save(self, path: Path) -> None:
        """Write as JSON, whole or not at all.

        Raises ValueError where `made` holds what JSON cannot (NaN, infinity, a path); the old file then stays.
        """
        try:
            text = json.dumps(self.model_dump(), allow_nan=False, ensure_ascii=False, indent=1)
        except (TypeError, ValueError) as error:
            raise ValueError(f"{path}: `made` of {self.model} does not fit JSON ({error}); use text.") from error
        write_whole(path, text + "\n")

    @staticmethod
    def load(path: Path) -> Result:
        """Read what `save` wrote. Raises FileNotFoundError, or ValueError with every mistake of the file."""
        if not path.is_file():
            raise FileNotFoundError(f"{path}: no such result. Evaluate the model first, or check the name.")
        try:
            return Result.model_validate_json(path.read_bytes())
        except ValidationError as error:
            raise ValueError(f"{path} is not a result. Evaluate again, or repair:{mistakes(error)}") from error


def write_whole(path: Path, text: str) -> None:
    """Write `text` beside `path` and rename it: a reader finds the old file or the new one, never a part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        aside.write_text(text, encoding="utf-8")
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)


def mistakes(error: ValidationError) -> str:
    """Each mistake on its own line: where it is, what is wrong, and the value found."""
    lines = []
    for found in error.errors(include_url=False):
        place = ".".join(str(part) for part in found["loc"]) or "the file"
        lines.append(f"\n  {place}: {found['msg']} (got {repr(found['input'])[:60]})")
    return "".join(lines)
