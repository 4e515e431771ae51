"""The contents of run.json as types: what the stages of a run record, and the report reads back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class _RunFilePart(BaseModel):
    """A part of run.json; keys that nothing reads back are ignored."""

    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True, protected_namespaces=())


class ModelFacts(_RunFilePart):
    """One model of the run: the pivot or a source."""

    id: str
    """Hub id or folder."""
    hub: bool = False
    """Whether `id` is a hub id."""
    role: Literal["pivot", "source"]
    parameters: int | None = None
    vocab_size: int | None = None
    model_type: str | None = None
    license: str | None = None
    fine_tuned: bool = False
    """Whether it was fine-tuned on the training data before it taught."""
    fingerprint: str | None = None


class Stage(_RunFilePart):
    """One stage of the pipeline and the wall time it took; `skipped` where its output was already there."""

    name: str
    seconds: float = Field(ge=0)
    skipped: bool = False


@dataclass(frozen=True)
class Helping:
    """What one source knows of one domain, against the pivot before training. Gold figures are never above 0."""

    source: str
    domain: str
    rows: int
    """Rows of the pivot in this domain."""
    match_rate: float
    """Share of those rows that are matched with a row of the source, 0 to 1."""
    gold_source: float | None
    """Mean log-probability of the text that is learned from under the source, nats per byte; None where some rows lack it."""
    gold_pivot: float | None
    """The same under the pivot, on the same text."""
    weight: float | None = None
    """Mean weight of the source over its matched rows; None where sources are not weighted."""


@dataclass(frozen=True)
class ResponseCounts:
    """How many responses a source gave to the training prompts of a domain, and how many passed and were chosen."""

    source: str
    domain: str
    prompts: int
    """Those that the source was asked."""
    answers: int
    """Responses that are neither empty nor, unless that is allowed, truncated."""
    passed: int
    """Of those, responses that pass the check of their data set."""
    chosen: int
    """Examples to train on."""
    judged: int | None = None
    """Answers to prompts with a reference, where these alone count as passed (`responses.unlabelled`); None where all do."""


@dataclass(frozen=True)
class PairCounts:
    """How many answers to the prompts of a domain were right and wrong, and what pairs were made of them."""

    domain: str
    right: int
    wrong: int
    pairs: int
    prompt: str = ""
    """The prompt of the first pair; empty where there is none."""
    chosen: str = ""
    """The right answer of that pair."""
    rejected: str = ""
    chosen_by: str = ""
    """Who wrote it: `pivot` and sources, joined by +."""
    rejected_by: str = ""


@dataclass(frozen=True)
class RoundScore:
    """How the answers of one model to the validation prompts of a domain did."""

    domain: str
    prompts: int
    generations: int
    """Answers to each prompt."""
    pass_at_1: float
    """Share of all answers that pass."""
    pass_at_n: float
    """Share of prompts of which an answer passes."""
    ended: float
    """Share of answers that end by themselves."""
    tokens: float
    """Mean length, in tokens of the pivot."""
    sample: str
    """The first answer to the first prompt."""
    prompt: str = ""
    """The first prompt."""
    sample_passed: bool | None = None
    """Whether the first answer to it passes; None where that was not kept."""


@dataclass(frozen=True)
class RoundTexts:
    """What the pivot wrote to the training prompts of a domain in one round."""

    domain: str
    prompts: int
    texts: int
    judged: int
    """Texts to prompts of which something tells right answers from wrong ones."""
    passed: int
    """Of those, texts that are right."""
    cut: int
    """Texts that did not end by themselves."""
    differing: int
    """Prompts whose texts have not all the same reward."""


class RoundsFacts(_RunFilePart):
    """How the pivot did after each round, and which round became the result."""

    kept: int = Field(ge=0)
    """Number of the round; 0 is the first training."""
    keep: Literal["best", "last"] = "best"
    """What was asked for; where nothing was validated, the last round is kept all the same."""
    start: Literal["unified", "pairwise"] = "unified"
    """How the model was made that rounds began from."""
    sources_read: bool = True
    """Whether sources read what the pivot wrote, for it to learn from that."""
    scores: list[list[RoundScore]]
    """Of each round from 0 on, a score for each domain of the validation examples; none where there are no such examples."""
    texts: list[list[RoundTexts]] = Field(default=[])
    """Of each round from 1 on, by domain; empty in runs of versions that did not count them."""

    @property
    def count(self) -> int:
        """Number of rounds."""
        return len(self.scores) - 1

    @property
    def is_validated(self) -> bool:
        """Whether there were validation prompts to compare rounds by."""
        return any(self.scores)


class LeftOutRows(_RunFilePart):
    """Rows of a data set that make no example."""

    reason: str
    count: int
    first: str
    """Where the first of them stands."""


class DataSetFacts(_RunFilePart):
    """How one data set was read."""

    part: str
    """training, held out or validation."""
    path: str
    examples: int
    reading: str
    """Which columns are what."""
    left_out: list[LeftOutRows] = []
    unused: list[str] = []
    """Columns that nothing reads."""


class DataCounts(_RunFilePart):
    """Number of examples in each domain, for training, held out and for validation."""

    train: dict[str, int] = {}
    fine_tuned: dict[str, int] = {}
    """Those that plain fine-tuning learns from, where these are others."""
    heldout: dict[str, int] = {}
    validation: dict[str, int] = {}
    sets: list[DataSetFacts] = []
    hub_datasets: list[str] = []
    """Hub ids of the data sets that were trained on."""


class PlannedStage(_RunFilePart):
    """What one stage was expected to take, before anything ran; `fusion plan` estimates more than is read back."""

    stage: str
    tokens: int
    steps: int | None = None
    flops: float
    """Floating-point operations of all processes together."""


class CacheFacts(_RunFilePart):
    """The cache of one model."""

    rows: int
    bytes: int
    """On disk."""
    top_k: int | Literal["all"]
    """Entries kept of each row."""


class RunFile(_RunFilePart):
    """The whole of run.json."""

    name: str
    created: str
    versions: dict[str, str] = {}
    hardware: str = ""
    """The machine of the last start, in words; empty where it was not recorded."""
    models: dict[str, ModelFacts] = {}
    stages: list[Stage] = []
    plan: list[PlannedStage] = []
    caches: dict[str, CacheFacts] = {}
    helping: list[Helping] = []
    responses: list[ResponseCounts] = []
    """Of responses that sources wrote; empty where those of the data were learned from."""
    learns_predictions: bool = True
    """Whether trainings learn from what sources predict, and not from the texts alone."""
    rounds: RoundsFacts | None = None
    """None where the run has no rounds, or they are not done."""
    preferences: list[PairCounts] = []
    """Of the answers that preferences compare, by domain; empty where the run has none, or they are not learned yet."""
    data: DataCounts | None = None
    result: str | None = None
    """Name of the fused model among the evaluated ones."""
    baseline: str | None = None
    """Name of the plainly fine-tuned pivot among the evaluated models, the one that all others are compared with."""

    @property
    def chosen_responses(self) -> dict[str, int]:
        """Number of responses that were learned from, by the source that wrote them; sources with none are left out."""
        counts: dict[str, int] = {}
        for entry in self.responses:
            if entry.chosen:
                counts[entry.source] = counts.get(entry.source, 0) + entry.chosen
        return counts

    @property
    def sources_read(self) -> bool:
        """Whether sources have read the training data, so that there are rows of theirs; no where nothing learns from that."""
        return any(name != "pivot" for name in self.caches)

    def names_by_role(self, role: Literal["pivot", "source"]) -> list[str]:
        """Names of the models with this role."""
        return [name for name, model in self.models.items() if model.role == role]
