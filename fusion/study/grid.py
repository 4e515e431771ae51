"""From a study to configurations: one for each arm, setting and seed, checked before the first of them runs."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fusion.config import Config
from fusion.config.loading import laid_over, override, parse, read, set_value
from fusion.study.settings import STORE, Study

Setting = dict[str, Any]
"""Dotted key of the configuration -> value, such as `training.learning_rate`."""


@dataclass(frozen=True)
class StudyGrid:
    """All runs of a study. `overrides` change the base of every one, such as `pivot.path=my/folder`."""

    study: Study
    overrides: Sequence[str] = ()

    @property
    def folder(self) -> Path:
        """Folder of the study: its runs, its store, its results."""
        return Path(self.study.runs) / self.study.name

    def settings(self, arm: str) -> list[Setting]:
        """All settings that an arm may choose among; one empty setting where nothing is tuned."""
        grid = self.study.tuning.grid_for(arm) if self.study.tuning else {}
        return [dict(zip(grid, values, strict=True)) for values in itertools.product(*grid.values())]

    def run(self, arm: str, setting: Setting, seed: int) -> Config:
        """Configuration of a run that is reported. Its folder is named by the setting's number, where there are several."""
        number = f"setting-{self.settings(arm).index(setting)}-" if setting else ""
        return self._config(arm, setting, f"{number}seed-{seed}", {"seed": seed})

    def trial(self, arm: str, setting: Setting, seed: int) -> Config:
        """The same run, measured on the validation data, `tuning.heldout`. Raises ValueError in a study without tuning."""
        if self.study.tuning is None:
            raise ValueError(f"{self.study.name} has no tuning, so it has no trials.")
        heldout = [data.model_dump(exclude_unset=True) for data in self.study.tuning.heldout]
        name = f"trial-{self.settings(arm).index(setting)}-seed-{seed}"
        return self._config(arm, setting, name, {"seed": seed, "data": {"heldout": heldout}})

    def original_models(self) -> Config:
        """The first run of the baseline, with the pivot and the sources measured beside it."""
        arm = self.study.baseline
        changes = {"seed": self.study.seeds[0], "evaluation": {"original_models": True}}
        return self._config(arm, self.settings(arm)[0], "original-models", changes)

    def check(self) -> int:
        """Check every configuration, and return the number of runs.

        Raises ConfigError where the configuration of any arm and setting is wrong, ValueError for an arm with the name of a
        model, since both are rows of one table.
        """
        if taken := self.study.arms.keys() & {"pivot", *(source.name for source in self.original_models().sources)}:
            raise ValueError(f"no arm may be called {', '.join(sorted(taken))}, the name of a model; rename it")
        tuning, efforts = self.study.tuning, [self.settings(arm) for arm in self.study.arms]
        for arm, settings in zip(self.study.arms, efforts, strict=True):
            for setting in settings:
                self.run(arm, setting, self.study.seeds[0])
        trials = sum(map(len, efforts)) * len(tuning.seeds) if tuning else 0
        return 1 + trials + len(self.study.arms) * len(self.study.seeds)  # 1: the original models

    def _config(self, arm: str, setting: Setting, name: str, changes: dict[str, Any]) -> Config:
        raw = self._of_arm(arm)
        overridden = {override(raw, text): f"--set {text}" for text in self.overrides}
        for place, value in setting.items():
            set_value(raw, place, value, f"{self.study.name}, {arm}")
        raw = laid_over(laid_over(raw, self._shared(arm, name)), changes)
        return parse(raw, f"{self.study.name}, {arm}", overridden)

    def _of_arm(self, arm: str) -> dict[str, Any]:
        """The base with what an arm changes: groups laid over it, and values at places such as `sources.coder.path`."""
        changed = copy.deepcopy(self.study.arms[arm])
        recipe = read(changed.pop("extends")) if "extends" in changed else {}
        places = {key: changed.pop(key) for key in list(changed) if "." in key}
        raw = copy.deepcopy(laid_over(laid_over(read(self.study.base), recipe), changed))
        for place, value in places.items():
            set_value(raw, place, value, f"{self.study.name}, {arm}")
        return raw

    def _shared(self, arm: str, name: str) -> dict[str, Any]:
        """Settings of every run: one store, so that caches and trainings are shared; no baseline, for that is an arm itself."""
        places = {"name": name, "runs": str(self.folder / arm), "store": str(self.folder / STORE)}
        return {**places, "baseline": False, "evaluation": {"original_models": False}}
