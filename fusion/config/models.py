"""Which models take part: the pivot and the sources."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

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

    path: str = Field(min_length=1)
    """Hub id, local folder, or .gguf file. Relative paths count from the working directory; `quickstart:NAME` is built in."""
    revision: str | None = None
    """Commit, tag or branch of a hub model."""
    template: Literal["auto", "chat", "plain"] = "auto"
    """How prompts are rendered: the model's chat template, plain text, or auto: the template where there is one."""
    chat_template_kwargs: dict[str, Any] = Field(default={})
    """Variables for the chat template, such as {enable_thinking: false}."""
    answer_prefix: str | None = None
    """Text between the template's generation prompt, or a plain prompt, and every answer, such as a closed thought or a line
    break; "" for none. If not said: what the template itself writes there."""
    fold_system_message: bool = False
    """Put a system message before the first user message, for chat templates that refuse one."""
    stop: list[int | str] = Field(default=[])
    """Token ids and texts (such as "\\n") at which answers end, besides the end of turn. The first is the end that is
    trained and read. For base models, which know no end of turn."""
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

    @field_validator("stop")
    @classmethod
    def _stops_are_something(cls, value: list[int | str]) -> list[int | str]:
        if any(stop == "" or (isinstance(stop, int) and stop < 0) for stop in value):
            raise ValueError(f"each must be a text of at least one character or a token id from 0, got {value}")
        return value

    @model_validator(mode="after")
    def _template_settings_need_a_template(self) -> ModelSettings:
        given = [name for name in ("chat_template_kwargs", "fold_system_message") if getattr(self, name)]
        if given and self.template == "plain":
            raise ValueError(f"{', '.join(given)} is for chat templates, and template is plain; leave one of them out")
        return self

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
    seed: int | None = Field(default=None, ge=0, lt=2**32)
    """The run's if not said; say it where runs with several seeds are to learn from the same source."""


class WeakerModel(Settings):
    """A weaker relative of a source: what it finds likely too is the style of the family, and taken off what the source says.

    It reads texts in the source's own tokens, without its worked examples. Source: CompassOPD, arXiv:2609.10154.
    """

    path: str | None = Field(default=None, min_length=1)
    """A smaller or earlier model with the source's tokenizer; if not said, the source itself, without its worked examples."""
    revision: str | None = None
    """Commit, tag or branch of a hub model."""


class SourceSettings(ModelSettings):
    """A model to learn from."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=100)
    """What it is called in folders, logs and tables."""
    backend: AnyBackend = Transformers()
    """What runs the model, or where its rows come from; without its weights at `path`, the tokenizer must be there."""
    transforms: list[AnyTransform] = Field(default=[])
    """What is done to its rows before any objective sees them, in this order."""
    fine_tune: FineTune | None = None
    """Whether it is fine-tuned on the training data first, and how; `fine_tune: {}` takes everything from the run."""
    shots: str | dict[str, str] = ""
    """Text before the first user message, such as worked examples that end with a line break: for base models, and for tasks
    that a source knows only with examples. The same when it answers, reads and is evaluated; one for all, or one by domain."""
    look_ahead: bool = False
    """Whether it reads the prompts that data sets give under `look_ahead`, instead of those the pivot reads."""

    weaker: WeakerModel | None = None
    """What `policy_gradient` takes off this source's signal in rounds, not what the pivot says; for all sources or none."""

    @model_validator(mode="after")
    def _a_weaker_relative_differs(self) -> SourceSettings:
        if self.weaker is not None and self.weaker.path is None and not self.shots:
            raise ValueError(
                f"weaker of source {self.name} names no path, and without shots it would be the source itself; name a smaller "
                "or earlier model with the same tokenizer"
            )
        return self

    @property
    def weaker_model(self) -> SourceSettings:
        """The weaker relative in the source's place. Raises ValueError where there is none."""
        if self.weaker is None:
            raise ValueError(f"source {self.name} has no weaker relative")
        new = {} if self.weaker.path is None else {"path": self.weaker.path, "revision": self.weaker.revision}
        return self.model_copy(update={**new, "shots": "", "transforms": [], "weaker": None, "fine_tune": None})

    @model_validator(mode="after")
    def _what_is_fine_tuned_needs_no_shots(self) -> SourceSettings:
        if self.shots and self.fine_tune is not None:
            raise ValueError(
                "shots are for a source as it is, and fine_tune trains it without them; leave one of them out"
            )
        return self

    def shots_for(self, domain: str) -> str:
        """The text before the prompts of a domain."""
        return self.shots if isinstance(self.shots, str) else self.shots.get(domain, "")

    @property
    def differs_from_pivot(self) -> bool:
        """Whether its rows would not be the pivot's even if the model were the pivot."""
        return bool(self.transforms or self.fine_tune or self.look_ahead or self.shots) or isinstance(
            self.backend, Similarity
        )
