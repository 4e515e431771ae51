"""The training on preferences as a run of its own: its pivot is the model that the run made, its examples are the answers."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from typing_extensions import override

from fusion.config import Preferences, preference_config
from fusion.data.example import Example
from fusion.objectives import AnyObjective
from fusion.runtime.artifacts import artifact_key, fingerprint
from fusion.stages.context import RunContext
from fusion.stages.preferences.learn import preference_data
from fusion.stages.preferences.pairs import REDO, read_pairs
from fusion.stages.rounds.kept import result_folder
from fusion.stages.rounds.later_step import LaterStep
from fusion.training.preferences import PreferenceData, PreferencePair


@dataclass(frozen=True, eq=False)
class PreferenceContext(LaterStep):
    """The same stages on right and wrong answers: who reads them is extracted, and one training follows."""

    @staticmethod
    def of(run: RunContext) -> PreferenceContext:
        """The last step of a run, when all before it is done."""
        start = result_folder(run.config, run.config.before_preferences) / "model"
        return PreferenceContext(preference_config(run.config, preferences_of(run), start), data=run.data, run=run)

    @property
    def preferences(self) -> Preferences:
        """The settings."""
        return preferences_of(self.run)

    @property
    def own_answers(self) -> bool:
        """Whether pairs are of the pivot's own answers, with a right one of a source beside them."""
        return any(each.weight and each.requirements.own_answers for each in self.preferences.objectives)

    @property
    def readers(self) -> list[str]:
        """Names of the models that read the answers: the pivot, and the sources where an objective asks."""
        asks = any(each.weight and each.requirements.sources for each in self.preferences.objectives)
        return ["pivot", *([source.name for source in self.config.sources] if asks else [])]

    @functools.cached_property
    def _kept(self) -> tuple[list[Example], list[PreferencePair]]:
        return read_pairs(self)

    @property
    def pairs(self) -> list[PreferencePair]:
        """The pairs, by numbers of the answers in `train_examples`."""
        return self._kept[1]

    @functools.cached_property
    @override
    def train_examples(self) -> list[Example]:
        return self._kept[0]

    @override
    def objectives(self, *, learns_from_sources: bool) -> Sequence[AnyObjective]:
        return self.preferences.objectives

    @override
    def preference_data(self) -> PreferenceData:
        return preference_data(self)

    @property
    @override
    def redo(self) -> str:
        return REDO

    @property
    @override
    def training_key(self) -> dict[str, Any]:
        read = {name: artifact_key(self.config.folder / "cache" / name) for name in self.readers}
        pairs = [dataclasses.astuple(pair) for pair in self.pairs]
        return {"preferences": fingerprint({"pairs": pairs, "read": read})}


def preferences_of(run: RunContext) -> Preferences:
    """Return the settings of a run's preferences. Raises TypeError where it has none."""
    if run.config.preferences is None:
        raise TypeError(f"run {run.config.name} has no preferences")
    return run.config.preferences
