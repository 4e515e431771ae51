"""A study as a file: what is compared, over which seeds, and what each arm may choose before it is measured."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, model_validator

from fusion.config import DataSettings
from fusion.config.loading import ConfigError, explained, override, read_yaml
from fusion.config.recipes import studies
from fusion.core.settings import Settings

STORE = "store"
"""Folder of a study beside those of its arms."""
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=100)]
"""A name that a folder can have."""
Seed = Annotated[int, Field(ge=0, lt=2**32)]
"""A seed of a run."""


class Tuning(Settings):
    """What is chosen for each arm, on data of its own, before it is measured."""

    grid: dict[str, list[Any]] = Field(min_length=1)
    """Dotted key -> values to try, such as `training.learning_rate: [1e-4, 3e-4]`; all combinations are tried."""
    arms: dict[str, dict[str, list[Any]]] = Field(default={})
    """The same for arms that choose among other values; equally many combinations, for equal effort."""
    heldout: list[DataSettings] = Field(min_length=1)
    """What the choice is measured on. None of it may be in the data that results are measured on."""
    metric: Literal["bits_per_byte", "exact_match"] = "bits_per_byte"
    """The mean over domains of this decides."""
    seeds: list[Seed] = Field(default=[0], min_length=1)
    """Seeds of the trainings that are compared."""

    def grid_for(self, arm: str) -> dict[str, list[Any]]:
        """Values that an arm chooses among, by dotted key."""
        return self.arms.get(arm, self.grid)


class Study(Settings):
    """Arms that differ in what they say on top of one base, each trained from several seeds on the same data and steps."""

    name: Name
    """Name of the folder under `runs`."""
    runs: str = "runs"
    """Where the study's runs are kept, in a folder of its name."""
    base: str
    """The configuration or recipe below every arm."""
    arms: dict[Name, dict[str, Any]] = Field(min_length=2)
    """By name, what each arm changes of the base. `extends: RECIPE` lays that recipe between the two."""
    baseline: str
    """The arm that the others are compared with."""
    seeds: list[Seed] = Field(default=[0, 1, 2], min_length=1)
    """Every arm is trained from each of these."""
    tuning: Tuning | None = None
    """What each arm chooses first; without it, arms are measured as they are."""

    @model_validator(mode="after")
    def _consistent(self) -> Study:
        if self.baseline not in self.arms:
            raise ValueError(f"baseline is {self.baseline}, and arms are {', '.join(self.arms)}")
        if STORE in self.arms:
            raise ValueError(f"no arm may be called {STORE}: the study keeps what its runs share under that name")
        for arm, changes in self.arms.items():
            if not isinstance(below := changes.get("extends", ""), str):
                raise ValueError(f"arms.{arm}.extends should be the name of a file or recipe, got {below!r}")
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"seeds are {self.seeds}; a seed that comes twice shows nothing new")
        if self.tuning:
            self._equal_effort(self.tuning)
        return self

    def _equal_effort(self, tuning: Tuning) -> None:
        if unknown := tuning.arms.keys() - self.arms.keys():
            raise ValueError(f"tuning.arms names {', '.join(sorted(unknown))}, and arms are {', '.join(self.arms)}")
        efforts = {arm: math.prod(map(len, tuning.grid_for(arm).values())) for arm in self.arms}
        if len(set(efforts.values())) > 1:
            listed = ", ".join(f"{arm} among {effort}" for arm, effort in efforts.items())
            raise ValueError(f"arms should choose among equally many settings; {listed}")


OF_THE_STUDY = {
    "seed": "each arm is trained from every seed of the study: --set seeds=[0,1]",
    "store": "a study keeps what its runs share in its own folder: --set runs=FOLDER",
    "evaluation.original_models": "pivot and sources are measured once, beside the first run of the baseline",
}
"""Settings of a run that every run has from its study, by dotted key: why."""


def with_overrides(study: Study, overrides: Sequence[str]) -> tuple[Study, list[str]]:
    """Return the study with those of its own settings that `--set` gives, and the assignments that are for its runs.

    Raises ConfigError for a value that a study cannot have, and for a setting of runs that a study decides.
    """
    own = study.model_dump(exclude_unset=True)
    of_runs = []
    for text in overrides:
        key = text.partition("=")[0]
        if why := OF_THE_STUDY.get(key):
            raise ConfigError(f"--set {text}: {why}.")
        first, *below = key.split(".")
        if first == "arms" and (not below or below[0] not in study.arms):
            raise ConfigError(f"--set {text}: arms are {', '.join(study.arms)}; write another one into the file.")
        if first in Study.model_fields:
            override(own, text)
        else:
            of_runs.append(text)
    try:
        return Study.model_validate(own), of_runs
    except ValidationError as error:
        raise explained(error, "--set", Study) from None


def load(file: str | Path) -> Study:
    """Read a study from a YAML file, or one that comes with the package by its name. Raises ConfigError with all mistakes."""
    place = Path(file) if Path(file).is_file() else studies().get(str(file))
    if place is None:
        raise ConfigError(f"There is no study {file}. Give a YAML file, or one of {', '.join(studies())}.")
    raw = read_yaml(place)
    if "pivot" in raw and "arms" not in raw:
        raise ConfigError(f"{file} is the configuration of a run, which has no arms: fusion run {file} runs it.")
    try:
        return Study.model_validate(raw)
    except ValidationError as error:
        raise explained(error, str(file), Study) from None
