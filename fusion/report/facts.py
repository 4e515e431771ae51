"""What stands in `run.json` and `alignment.json`, as far as the report reads it."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator


class _Part(BaseModel):
    """A part of `run.json`; keys the report does not use are left alone."""

    model_config = ConfigDict(frozen=True, from_attributes=True, use_attribute_docstrings=True, protected_namespaces=())


class ModelFacts(_Part):
    """One model of the run: the pivot or a source."""

    id: str
    """Hub id or folder."""
    hub: bool = False
    """Whether `id` is a hub id."""
    role: Literal["pivot", "source"]
    parameters: int | None = None
    vocab: int | None = None
    model_type: str | None = None
    licence: str | None = None
    fine_tuned: bool = False
    """Whether it was fine-tuned on the training data before it taught."""
    fingerprint: str | None = None


class Stage(_Part):
    """One stage of the pipeline and the wall time it took; `skipped` where its output was already there."""

    name: str
    seconds: float = Field(ge=0)
    skipped: bool = False


class Helping(_Part):
    """What one source knows in one domain, against the pivot before training."""

    source: str
    domain: str
    rows: int
    """Rows of the pivot in this domain."""
    match_rate: float
    """Share of those rows that meet a row of the source, 0 to 1."""
    gold_source: float | None
    """Mean log-probability of the true text under the source, in nats per byte, nearer 0 is better; None if unknown."""
    gold_pivot: float | None
    """The same under the pivot, on the same text."""
    weight: float | None = None
    """Mean weight of the source over its matched rows; None where sources are not weighted."""


class Written(_Part):
    """How the answers of one source to the training prompts of one domain did."""

    source: str
    domain: str
    prompts: int
    answers: int
    """Neither empty nor cut off."""
    passed: int
    chosen: int
    """That were learned from."""


class Data(_Part):
    """Examples in each domain, for training and held out."""

    train: dict[str, int] = {}
    heldout: dict[str, int] = {}
    hub: list[str] = []
    """Hub ids of the data sets that were trained on."""


class Estimate(_Part):
    """What one stage was expected to take, before anything ran."""

    stage: str
    tokens: int
    steps: int | None = None
    work: float


class CacheFacts(_Part):
    """The cache of one model."""

    rows: int
    bytes: int
    """On disk."""
    top_k: int | Literal["all"]
    """Entries kept of each row."""


class RunFile(_Part):
    """`run.json`."""

    name: str
    created: str
    versions: dict[str, str] = {}
    models: dict[str, ModelFacts] = {}
    stages: list[Stage] = []
    plan: list[Estimate] = []
    caches: dict[str, CacheFacts] = {}
    helping: list[Helping] = []
    responses: list[Written] = []
    """Of responses that sources wrote; empty where those of the data were learned from."""
    data: Data | None = None
    result: str | None = None
    """Name of the fused model among the evaluated ones."""
    baseline: str | None = None
    """Name of the plainly fine-tuned pivot among the evaluated models, which stars and verdicts compare with."""

    @property
    def writers(self) -> dict[str, int]:
        """Sources whose responses were learned from, and how many."""
        found = {one.source: 0 for one in self.responses if one.chosen}
        for one in self.responses:
            if one.chosen:
                found[one.source] += one.chosen
        return found

    def names(self, role: Literal["pivot", "source"]) -> list[str]:
        """The models with this role."""
        return [name for name, model in self.models.items() if model.role == role]


class Position(_Part):
    """One position of one text: the token that follows there, and what the model expected."""

    start: int | None
    """First byte of the response that the token covers; None where that is not known."""
    end: int | None
    text: str
    """The token."""
    gold: float
    """Its probability."""
    top: list[tuple[str, float]]
    """The likeliest tokens with their probabilities, largest first."""


class Overlay(_Part):
    """One text in the tokens of every model; an entry of `alignment.json`."""

    domain: str
    prompt: str
    response: str
    lanes: dict[str, list[Position]]
    """Model -> its positions in the order of the text; `pivot` is among them."""
    pairs: dict[str, list[tuple[int, int]]]
    """Source -> which position of the pivot meets which of the source."""

    @model_validator(mode="after")
    def _pairs_name_positions(self) -> Overlay:
        for source, pairs in self.pairs.items():
            if not {"pivot", source} <= self.lanes.keys():
                raise ValueError(f"pairs of {source!r}, but lanes of {', '.join(self.lanes) or 'no model'} only")
            ours, theirs = len(self.lanes["pivot"]), len(self.lanes[source])
            if any(not (0 <= a < ours and 0 <= b < theirs) for a, b in pairs):
                raise ValueError(f"a pair of {source!r} names a position beyond the {ours} and {theirs} there are")
        return self
