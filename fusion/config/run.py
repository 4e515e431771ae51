"""A whole run."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import ConfigDict, Field, model_validator

from fusion.config.checks import check
from fusion.config.data import Data
from fusion.config.models import FineTune, ModelSettings, SourceSettings
from fusion.config.preferences import Preferences
from fusion.config.rounds import Rounds
from fusion.config.stages import Baseline, Evaluation, Extract, Plan
from fusion.config.training import Arguments
from fusion.core.settings import Settings
from fusion.merging.methods.registry import AnyMethod, TaskArithmetic
from fusion.objectives import AnyObjective, CrossEntropy
from fusion.responses import DatasetResponses
from fusion.training import pairwise_name
from fusion.training.adapter import AnyAdapter
from fusion.training.engine import Engine
from fusion.training.quantization_aware import AnyQuantizer
from fusion.weighting import AnyWeighting, Sum


def _may_extend(schema: dict[str, Any]) -> None:
    """`extends` is gone when a configuration is read, yet an editor should know it."""
    says = "Another file or recipe that this one is laid over: only what differs is written here."
    schema["properties"]["extends"] = {"type": "string", "description": says}


class Config(Settings):
    """A whole run, as its YAML says it: models, data, objectives, training, evaluation."""

    model_config = ConfigDict(json_schema_extra=_may_extend)

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=100)
    """Name of the folder under `runs`."""
    runs: str = Field(default="runs", min_length=1)
    """Where runs are kept."""
    store: str | None = Field(default=None, min_length=1)
    """A folder that runs share: answers, caches, trainings and measurements that two of them would make alike are made once,
    and the run's folder holds links to them. If not said, every run makes its own."""
    seed: int = Field(default=0, ge=0, lt=2**32)
    """Seeds data order and everything random in training."""
    pivot: ModelSettings
    """The model that is trained."""
    sources: list[SourceSettings] = Field(min_length=1)
    """The models it learns from."""
    data: Data
    """Examples to train on, to validate on and to measure on."""
    extract: Extract = Extract()
    """How models read the training examples, and what is kept of each row."""
    alignment: Literal["prefix", "truncate", "dtw"] = "prefix"
    """How positions of two tokenizers are matched."""
    vocabulary_map: Literal["first_piece", "exact"] = "first_piece"
    """How a source's tokens become the pivot's, for objectives that compare tokens."""
    objectives: list[AnyObjective] = Field(min_length=1)
    """Terms of the loss."""
    weighting: AnyWeighting = Sum()
    """How much each source counts at each position. The default, `sum`, trusts all alike, which did harm to tiny models:
    docs/which_objective.md."""
    strategies: list[Literal["unified", "pairwise"]] = Field(default=["unified"], min_length=1)
    """unified: one training on all sources; pairwise: one training a source, then a merge."""
    result: Literal["unified", "pairwise"] | None = None
    """Which becomes the fused model; the first of `strategies` if not said."""
    rounds: Rounds | None = None
    """What follows the first training: the pivot writes, its sources read that, and it learns from it; nothing if not said."""
    preferences: Preferences | None = None
    """What comes last: the pivot learns to find right answers likelier than wrong ones; nothing if not said."""
    merge: AnyMethod = TaskArithmetic()
    """How pairwise models are merged."""
    baseline: bool | Baseline = True
    """Also train the pivot on the data's own responses with cross-entropy alone, to compare with; `{training: {...}}` for
    settings of its own."""
    training: Arguments = Field(default={})
    """Any of transformers' TrainingArguments."""
    dtype: str = Field(default="float32", pattern="^(float32|bfloat16)$")
    """Type of the pivot's weights in training."""
    packing: bool = False
    """Put several short examples into one line of a batch, up to data.max_length tokens, instead of padding each."""
    logits_budget: int = Field(default=1024, ge=0)
    """MiB of float32 logits that a step keeps for its backward pass; of more, chunks are computed twice."""
    adapter: AnyAdapter | None = None
    """Train small matrices (lora, qlora) instead of the pivot's own weights."""
    quantization_aware_training: AnyQuantizer | None = None
    """Train the pivot, and the baseline, with weights of few bits: ternary, binary, int4."""
    engine: Engine = Engine()
    """How trainings are spread over processes."""
    logits_chunk: int | None = Field(default=None, gt=0)
    """Rows whose logits exist at once, whatever the budget; if not said, chunks of 2^25 logits."""
    evaluation: Evaluation = Evaluation()
    """What is measured on the held-out examples besides likelihood."""
    plan: Plan = Plan()
    """The machine that a plan is made for."""

    @property
    def folder(self) -> Path:
        """Where the run lives."""
        return Path(self.runs) / self.name

    @property
    def learns_predictions(self) -> bool:
        """Whether any term of the first training's loss reads what sources predict."""
        return any(objective.requirements.sources for objective in self.objectives if objective.weight)

    @property
    def reads_sources(self) -> bool:
        """Whether sources read the training data: for the first training's loss, or for weights that rounds go on with."""
        return self.learns_predictions or (self.rounds is not None and self.weighting.missing_shares is not None)

    @property
    def chosen(self) -> str:
        """The strategy whose model is the result, or that rounds begin from."""
        return self.result or self.strategies[0]

    @property
    def results(self) -> list[str]:
        """Models that are made of sources, in the order of tables: one for each strategy, those of rounds and preferences."""
        later = {"rounds": self.rounds, "preferences": self.preferences}
        return [*self.strategies, *(name for name, settings in later.items() if settings is not None)]

    @property
    def fused(self) -> str:
        """Which of `results` becomes the fused model."""
        return "preferences" if self.preferences else self.before_preferences

    @property
    def before_preferences(self) -> str:
        """Which of `results` preferences begin from."""
        return "rounds" if self.rounds else self.chosen

    @model_validator(mode="after")
    def _consistent(self) -> Config:
        check(self)
        return self


def baseline_training(config: Config) -> dict[str, Any]:
    """TrainingArguments of the baseline: the run's, and its own on top."""
    own = config.baseline.training if isinstance(config.baseline, Baseline) else {}
    left_out = {"max_steps"} if "num_train_epochs" in own else set()
    return {name: value for name, value in config.training.items() if name not in left_out} | own


def fine_tuning(config: Config, source: SourceSettings) -> Config:
    """The run that fine-tunes a source: with it in the pivot's place, nobody to learn from, and the data's own responses."""
    how = source.fine_tune or FineTune()
    own = [data for data in config.data.train if data.response is not None]
    update = {
        "pivot": ModelSettings(**source.model_dump(include=set(ModelSettings.model_fields))),
        "sources": [],
        "data": config.data.model_copy(
            update={"train": own, "responses": DatasetResponses(), "easiest_fraction": None}
        ),
        "objectives": plain_fine_tuning(),
        "training": config.training | how.training,
        "baseline": True,
        "adapter": how.adapter,
        "quantization_aware_training": None,
        "seed": config.seed if how.seed is None else how.seed,
    }
    return config.model_copy(update=update)


def round_config(config: Config, rounds: Rounds, number: int, start: Path) -> Config:
    """The run that is one round: it trains the model in the folder `start`, in a folder of its own."""
    update = {
        "name": str(number),
        "runs": str(config.folder / "rounds"),
        "pivot": config.pivot.model_copy(update={"path": str(start), "revision": None}),
        "data": config.data.model_copy(update={"responses": DatasetResponses(), "easiest_fraction": None}),
        "objectives": rounds.objectives,
        "weighting": rounds.weighting or config.weighting,
        "training": rounds.arguments(config.training),
        "strategies": ["unified"],
        "rounds": None,
        "preferences": None,
    }
    if rounds.learn_from == "pairwise":
        update["sources"] = [_pairwise_model(config, source.name) for source in config.sources]
    return config.model_copy(update=update)


READ_WHOLE = {"value_format": "float32", "top_k": 10, "sampling": None, "hidden_states": False}
"""How answers are read of which only the sums matter: unrounded, with the entries among which an answer may end."""


def preference_config(config: Config, preferences: Preferences, start: Path) -> Config:
    """The run that learns from preferences: it trains the model in the folder `start`, in a folder of its own."""
    update = {
        "name": "preferences",
        "runs": str(config.folder),
        "pivot": config.pivot.model_copy(update={"path": str(start), "revision": None}),
        "data": config.data.model_copy(update={"responses": DatasetResponses(), "easiest_fraction": None}),
        "objectives": preferences.objectives,
        "weighting": Sum(),
        "extract": config.extract.model_copy(update=READ_WHOLE),
        "training": config.training | preferences.training,
        "strategies": ["unified"],
        "rounds": None,
        "preferences": None,
    }
    return config.model_copy(update=update)


def _pairwise_model(config: Config, name: str) -> SourceSettings:
    """The model of a pairwise training in its source's place: it reads and ends as the pivot does."""
    path = str(config.folder / "train" / pairwise_name(name) / "model")
    return SourceSettings(**config.pivot.model_dump() | {"name": name, "path": path, "revision": None})


def plain_fine_tuning() -> list[AnyObjective]:
    """The objectives of the baseline."""
    return [CrossEntropy()]
