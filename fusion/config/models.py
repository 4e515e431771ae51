"""Which models take part: the pivot and the sources."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator

from fusion.config.training import Arguments
from fusion.core.settings import Settings
from fusion.models.loading import ModelRef
from fusion.quickstart import MODELS
from fusion.sources import AnyBackend, Similarity, Transformers
from fusion.training.adapter import AnyAdapter
from fusion.transforms import AnyTransform

BUILTIN = "quickstart:"


class ModelSettings(Settings):
    """A model to load."""

    path: str
    """Hub id, local folder, or .gguf file. Relative paths count from the working directory; `quickstart:NAME` is built in."""
    revision: str | None = None
    """Commit, tag or branch of a hub model."""
    template: Literal["auto", "chat", "plain"] = "auto"
    """How prompts are rendered: the model's chat template, plain text, or auto: the template where there is one."""
    trust_remote_code: bool = False
    """Run Python code that comes with the model. Off unless you read it."""
    license: str | None = None
    """The model's license, for the model card."""

    @field_validator("path")
    @classmethod
    def _is_built_in(cls, value: str) -> str:
        if value.startswith(BUILTIN) and (name := value.removeprefix(BUILTIN)) not in MODELS:
            raise ValueError(f"there is no built-in model {name}; there are {', '.join(MODELS)}")
        return value

    @property
    def ref(self) -> ModelRef:
        """Where to load it from."""
        built_in = MODELS.get(self.path.removeprefix(BUILTIN)) if self.path.startswith(BUILTIN) else None
        return ModelRef(str(built_in or self.path), self.revision, self.trust_remote_code)


class FineTune(Settings):
    """Plain fine-tuning of a source on the run's training data, before it teaches: what it knows is then said in their style.

    Source: teacher correction, Sreenivas et al. 2024 (Minitron), arXiv:2408.11796.
    """

    training: Arguments = Field(default={})
    """TrainingArguments that differ from the run's."""
    adapter: AnyAdapter | None = None
    """Train small matrices instead of the source's own weights."""
    folds: int = Field(default=1, ge=1)
    """With 2 or more the data are split into so many parts, and each part is read by a model trained on the others: a model
    is surer of what it was trained on than it has reason to be. 1 trains one model on everything."""
    seed: int | None = None
    """The run's if not said; say it where runs with several seeds are to learn from the same source."""


class SourceSettings(ModelSettings):
    """A model to learn from."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    """What it is called in folders, logs and tables."""
    backend: AnyBackend = Transformers()
    """What runs the model, or where its rows come from; without its weights at `path`, the tokenizer must be there."""
    transforms: list[AnyTransform] = Field(default=[])
    """What is done to its rows before any objective sees them, in this order."""
    fine_tune: FineTune | None = None
    """Whether it is fine-tuned on the training data first, and how; `fine_tune: {}` takes everything from the run."""
    look_ahead: bool = False
    """Whether it reads the prompts that data sets give under `look_ahead`, instead of those the pivot reads."""

    @property
    def differs_from_pivot(self) -> bool:
        """Whether its rows would not be the pivot's even if the model were the pivot."""
        return bool(self.transforms or self.fine_tune or self.look_ahead) or isinstance(self.backend, Similarity)
