"""A step of a run behind its first training, as a run of its own: the same sources and tokenizers, another start."""

from __future__ import annotations

import datetime
import functools
from dataclasses import dataclass, field
from typing import Any, cast

from typing_extensions import override

from fusion.config import ModelSettings, SourceSettings
from fusion.data.example import Example
from fusion.models import loading
from fusion.stages.context import RunContext


@dataclass(frozen=True, eq=False)
class LaterStep(RunContext):
    """What rounds and preferences have in common. A kind of step says which examples it has, and what is learned from them."""

    run: RunContext = field(default=cast(RunContext, None))
    """The run that it is a step of."""

    @functools.cached_property
    @override
    def extracted_examples(self) -> list[Example]:
        return self.train_examples

    @functools.cached_property
    @override
    def training_indices(self) -> list[int]:
        return list(range(len(self.train_examples)))

    @functools.cached_property
    @override
    def date(self) -> datetime.date:
        return self.run.date

    @functools.cached_property
    @override
    def models(self) -> dict[str, ModelSettings]:
        return self.run.models | {"pivot": self.config.pivot}

    @override
    def fine_tunings(self, source: SourceSettings) -> dict[str, RunContext]:
        return self.run.fine_tunings(source)

    @override
    def fold_models(self, source: SourceSettings) -> list[SourceSettings]:
        return self.run.fold_models(source)

    @functools.cached_property
    @override
    def fingerprints(self) -> dict[str, str]:
        return self.run.fingerprints | {"pivot": loading.model_fingerprint(self.config.pivot.ref)}

    @functools.cached_property
    @override
    def tokenizers(self) -> dict[str, Any]:
        return self.run.tokenizers  # the pivot's does not change as it learns
