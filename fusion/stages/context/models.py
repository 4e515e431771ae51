"""The models of a run: which they are, where they lie, and what they are when they teach."""

from __future__ import annotations

import datetime
import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fusion.config import Config, ModelSettings, SourceSettings
from fusion.models import loading
from fusion.models.stored_config import read_config
from fusion.responses import GeneratedResponses
from fusion.runtime import artifacts
from fusion.runtime.run_record import RunRecord
from fusion.runtime.store import ArtifactStore
from fusion.sources import AnyBackend, Transformers
from fusion.training import fine_tuning_name


@dataclass(frozen=True, eq=False)
class RunModels:
    """A configuration, the folder of its run, and its models, each read when first asked for."""

    config: Config
    for_plan: bool = False
    """Whether what sources are yet to do counts as done, for a plan: their answers are as long as they may get."""
    left_out_fold: tuple[int, int] | None = None
    """The part of the training data that is left out, and of how many: `fine_tune.folds`."""

    @property
    def record(self) -> RunRecord:
        """run.json of the run."""
        return RunRecord(self.config.folder)

    @functools.cached_property
    def date(self) -> datetime.date:
        """The day that chat templates take for today: that of the first stage of the run, also when it goes on later."""
        recorded = self.record.read().get("date")
        return datetime.date.today() if recorded is None else datetime.date.fromisoformat(recorded)

    @property
    def redo(self) -> str | None:
        """The command that makes again whatever belongs to this step; None in a run, whose stages have one each."""
        return None

    @property
    def store(self) -> ArtifactStore:
        """Where what the run makes lies on disk."""
        return ArtifactStore(self.config.folder, Path(self.config.store) if self.config.store else None, self.redo)

    @functools.cached_property
    def models(self) -> dict[str, ModelSettings]:
        """The pivot and the sources by name, each as it teaches. Raises ValueError where one is yet to be fine-tuned."""
        return {
            "pivot": self.config.pivot,
            **{source.name: self.fold_models(source)[0] for source in self.config.sources},
        }

    @property
    def extracted_models(self) -> list[str]:
        """Names of the models that read the training data: the pivot, and the sources where that is of use."""
        return list(self.models) if self.config.reads_sources else ["pivot"]

    def fine_tuning_names(self, source: SourceSettings) -> list[str]:
        """The trainings of a source before it teaches: one on everything, or one for each part of the data that is left out."""
        if source.fine_tune is None:
            return []
        count = source.fine_tune.folds
        return [fine_tuning_name(source.name, part) for part in (range(count) if count > 1 else [None])]

    def fold_models(self, source: SourceSettings) -> list[SourceSettings]:
        """The source as it teaches: one model, or one for each part of the data, which was not trained on that part.

        Raises ValueError where one is yet to be fine-tuned.
        """
        if source.fine_tune is None or self.for_plan:
            return [source]
        folders = [self.config.folder / "train" / name for name in self.fine_tuning_names(source)]
        if not all(artifacts.is_complete(folder) for folder in folders):
            raise ValueError(
                f"Source {source.name} has fine_tune and was not fine-tuned yet. Run `fusion extract` first."
            )
        return [source.model_copy(update={"path": str(folder / "model"), "revision": None}) for folder in folders]

    @functools.cached_property
    def fingerprints(self) -> dict[str, str]:
        """What each model is; of one without weights here, what is said of it.

        Raises ValueError for a source that is the pivot, where no objective reads it and it answers no prompts.
        """
        found = {name: self._fingerprint(name) for name in self.models}
        for name, fingerprint in found.items():
            itself = name != "pivot" and fingerprint == found["pivot"]
            used = self.has_generated_responses or self.config.learns_predictions
            if itself and not used and not getattr(self.models[name], "differs_from_pivot", False):
                raise ValueError(
                    f"Source {name} ({self.models[name].path}) has the same files as the pivot ({self.config.pivot.path}). "
                    "No objective reads what it predicts; remove it from sources, name another model, give an objective "
                    "that reads sources, such as forward_kl, which holds the pivot to what it was, or let it answer prompts "
                    "(data.responses)."
                )
        return found

    def backend(self, name: str) -> AnyBackend:
        """The backend that runs a model."""
        return getattr(self.models[name], "backend", Transformers())

    @functools.cached_property
    def tokenizers(self) -> dict[str, Any]:
        """Each model's tokenizer."""
        return {name: loading.load_tokenizer(model.ref) for name, model in self.models.items()}

    @functools.cache  # noqa: B019  (a context lives as long as its run)
    def stored_config(self, name: str) -> Any:
        """What config.json says of a model; see `read_config`."""
        return read_config(self.models[name].ref)

    @property
    def has_generated_responses(self) -> bool:
        """Whether examples are the same that ask the same: their responses are not those of the data."""
        return isinstance(self.config.data.responses, GeneratedResponses)

    def _fingerprint(self, name: str) -> str:
        model, backend = self.models[name], self.backend(name)
        if backend.has_weights:
            return loading.model_fingerprint(model.ref)
        tokenizer = loading.model_fingerprint(model.ref, tokenizer_alone=True)
        return artifacts.fingerprint(
            {"backend": backend.identity(), "revision": model.revision, "tokenizer": tokenizer}
        )
