"""A run as strict, frozen types. Only this module, `configfile` and `pipeline` know them; stages take plain arguments."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import ConfigDict, Field, field_validator, model_validator

from fusion.conflicts import Choices, conflicts
from fusion.hardware import GPUS
from fusion.merge.methods import AnyMethod, TaskArithmetic
from fusion.models import ModelRef
from fusion.objectives import AnyObjective, CrossEntropy
from fusion.quickstart import MODELS
from fusion.settings import Settings
from fusion.sources import AnyBackend, RandomSampling, Similarity, Transformers
from fusion.train.adapter import AnyAdapter, QLoRA
from fusion.train.engine import Engine
from fusion.train.student import AnyStudent
from fusion.transforms import AnyTransform
from fusion.weighting import AnyWeighting, Sum

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
    licence: str | None = None
    """The model's licence, for the model card."""

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


class SourceSettings(ModelSettings):
    """A model to learn from."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    """What it is called in folders, logs and tables."""
    backend: AnyBackend = Transformers()
    """What runs the model, or where its rows come from; without its weights at `path`, the tokenizer must be there."""
    transforms: list[AnyTransform] = Field(default=[])
    """What is done to its rows before any objective sees them, in this order."""
    look_ahead: bool = False
    """Whether it reads the prompts that data sets give under `look_ahead`, instead of those the pivot reads."""

    @property
    def says_otherwise(self) -> bool:
        """Whether its rows would not be the pivot's even if the model were the pivot."""
        return bool(self.transforms) or self.look_ahead or isinstance(self.backend, Similarity)


class DataSettings(Settings):
    """One data set; see `fusion.corpus.load`."""

    path: str
    """`builtin:SKILL`, a .jsonl, .json, .csv or .parquet file, or a hub id."""
    domain: str
    """Label under which results are reported."""
    prompt: str = "{prompt}"
    """Prompt with columns in braces; empty for none."""
    response: str = "{response}"
    """Response with columns in braces."""
    system: str | None = None
    """System message, with columns in braces."""
    messages: str | None = None
    """Column with a conversation, instead of prompt and response."""
    look_ahead: str | None = None
    """The last message as sources with `look_ahead: true` read it, such as "{asked} Solution: {solution}": columns in braces,
    {asked} for the message as it is. For a reference answer, retrieved text or notes; the pivot never reads it."""
    template: Literal["plain"] | None = None
    """`plain` for raw text that no model should wrap in its chat template."""
    raw: bool = False
    """Make prompt and response, or a whole conversation, one raw text to learn from: for instructions, and for the chosen
    answers of preference data, in continual pre-training."""
    name: str | None = None
    """Configuration name of a hub data set."""
    split: str = "train"
    """Split of a hub data set; of a built-in one: pretrain, fusion or heldout."""
    where: dict[str, str | int | float | bool] | None = None
    """Keep the rows whose columns have these values."""
    revision: str | None = None
    """Commit of a hub data set."""
    skip: int = Field(default=0, ge=0)
    """Rows passed over first."""
    limit: int | None = Field(default=None, gt=0)
    """At most so many examples."""
    shuffle: int | None = None
    """Seed to shuffle rows with before skip and limit; for built-in data the seed they are made with."""
    prompt_chars: int | None = Field(default=None, gt=0)
    """Move about so many characters of the response's beginning into the prompt."""
    response_chars: int | None = Field(default=None, gt=0)
    """Cut responses to about so many characters."""
    noise: float = Field(default=0.0, ge=0, le=1)
    """Built-in data only: share of wrong answers."""

    @model_validator(mode="after")
    def _noise_is_built_in(self) -> DataSettings:
        if self.noise and not self.path.startswith("builtin:"):
            raise ValueError(f"noise is for built-in data only, not for {self.path}")
        return self


class Data(Settings):
    """What is learned from, and what is measured on."""

    train: list[DataSettings] = Field(min_length=1)
    heldout: list[DataSettings] = Field(min_length=1)
    """Never trained on; an example that is also in `train` is an error."""
    validation: list[DataSettings] = Field(default=[])
    """Neither trained nor measured on: what `weighting: learned` finds its shares on."""
    easiest: float | None = Field(default=None, gt=0, le=1)
    """Train on this share of each domain's examples alone, those with the lowest perplexity under the pivot before training.
    Mix-CPT chooses easy samples by perplexity for its second stage; this score is a guess."""
    max_length: int = Field(default=1024, gt=1)
    """Tokens of prompt and response in training; longer responses are cut, and the cut is reported."""


class Extract(Settings):
    """How sources are turned into rows on disk."""

    top_k: int | Literal["all"] = 10
    """Entries kept of each row; `all` keeps the whole vocabulary (small vocabularies only)."""
    sampling: RandomSampling | None = None
    """Draw entries at random from the whole distribution instead of keeping the `top_k` largest."""
    values: Literal["packed", "float16", "float32"] | None = None
    """How cached numbers are kept: `packed`, on scales within 0.03 nat (39 bytes a row at top_k 10 and a vocabulary of 152K),
    or as floats (72 and 96 bytes). If not said: packed, or float16 where whole rows are kept."""
    dtype: str = Field(default="float32", pattern="^(float32|bfloat16|float16)$")
    """Type sources compute in; float32 on a CPU, bfloat16 on a GPU is usual."""
    batch_tokens: int = Field(default=4096, gt=0)
    """Tokens of a forward pass."""
    shard: int = Field(default=256, gt=0)
    """Examples of a shard, the unit of resuming and of sharing between processes."""
    compile: bool = False
    """Compile the forward pass (torch.compile): minutes at the start, faster after. Changes rounding only."""
    hidden: bool = False
    """Keep the hidden state that each row was computed from too, as float16: 2 bytes for each number of its width (8 KiB a row
    at a width of 4096). For objectives that look at hidden states."""

    @field_validator("top_k")
    @classmethod
    def _positive(cls, value: int | str) -> int | str:
        if value != "all" and int(value) < 1:
            raise ValueError(f"must be at least 1, or `all`, got {value}")
        return value

    @model_validator(mode="after")
    def _whole_rows_are_floats(self) -> Extract:
        if self.top_k == "all" and self.values == "packed":
            raise ValueError(
                "values: packed is for the largest entries; the errors of a whole row's would add up. Set values to float16 "
                "or float32 with top_k: all"
            )
        return self

    @model_validator(mode="after")
    def _drawn_or_largest(self) -> Extract:
        default = type(self).model_fields["top_k"].default  # which stands in a configuration that was written out
        if self.sampling is not None and self.top_k != default:
            raise ValueError(
                f"top_k ({self.top_k}) keeps the largest entries and sampling draws them at random; leave one of them out"
            )
        return self

    @property
    def codec(self) -> str:
        """How cached numbers are kept."""
        return self.values or ("float16" if self.top_k == "all" else "packed")


class Evaluation(Settings):
    """What is measured on the held-out examples, besides bits per byte."""

    untouched: bool = True
    """Measure the pivot and the sources as they were, too."""
    exact_match: list[str] = Field(default=[])
    """Domains in which the model's greedy answer is compared with the response."""
    max_new_tokens: int = Field(default=64, gt=0)
    """Length limit of such answers."""
    batch_tokens: int = Field(default=4096, gt=0)
    """Tokens of a forward pass."""
    resamples: int = Field(default=2000, ge=100)
    """Bootstrap resamples of the confidence intervals."""


class Plan(Settings):
    """What `fusion plan` takes as given. Changes nothing of a run."""

    gpus: int = Field(default=1, gt=0)
    """GPUs of all machines together."""
    gpu: str | None = None
    """Kind of GPU, such as h800; times are said, and whether it fits, only where this is."""
    mfu: float = Field(default=0.4, gt=0, le=1)
    """Share of the GPU's peak that work gets. An assumption; measure yours."""
    tokens: int | None = Field(default=None, gt=0)
    """Tokens of an example, prompt and response. Given, no data and no tokenizer are read."""
    response: int | None = Field(default=None, gt=0)
    """How many of them are the response; all if not said."""
    examples: int | None = Field(default=None, gt=0)
    """Training examples, where `tokens` is given and a data set has no `limit`."""
    heldout: int | None = Field(default=None, gt=0)
    """The same for held-out examples."""

    @field_validator("gpu")
    @classmethod
    def _is_known(cls, value: str | None) -> str | None:
        if value is not None and value not in GPUS:
            raise ValueError(f"there is no GPU {value}{suggest(value, set(GPUS))}")
        return value


def _may_extend(schema: dict[str, Any]) -> None:
    """`extends` is gone when a configuration is read, yet an editor should know it."""
    says = "Another file or recipe that this one is laid over: only what differs is written here."
    schema["properties"]["extends"] = {"type": "string", "description": says}


class Config(Settings):
    """A whole run."""

    model_config = ConfigDict(json_schema_extra=_may_extend)

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    """Name of the folder under `runs`."""
    runs: str = "runs"
    """Where runs are kept."""
    store: str | None = None
    """A folder that runs share: a cache or training that two of them would make alike is made once, and the run's folder holds
    a link to it. If not said, every run makes its own."""
    seed: int = 0
    """Seeds data order and everything random in training."""
    pivot: ModelSettings
    """The model that is trained."""
    sources: list[SourceSettings] = Field(min_length=1)
    """The models it learns from."""
    data: Data
    extract: Extract = Extract()
    alignment: Literal["prefix", "truncate", "dtw"] = "prefix"
    """How positions of two tokenizers are matched."""
    vocabulary_map: Literal["first_piece", "exact"] = "first_piece"
    """How a source's tokens become the pivot's, for objectives that compare tokens."""
    objectives: list[AnyObjective] = Field(min_length=1)
    """Terms of the loss."""
    weighting: AnyWeighting = Sum()
    """How much each source counts at each position."""
    strategies: list[Literal["unified", "pairwise"]] = Field(default=["unified"], min_length=1)
    """unified: one training on all sources; pairwise: one training a source, then a merge."""
    result: Literal["unified", "pairwise"] | None = None
    """Which becomes the fused model; the first of `strategies` if not said."""
    merge: AnyMethod = TaskArithmetic()
    """How pairwise models are merged."""
    baseline: bool = True
    """Also train the pivot on the same data and steps with cross-entropy alone, to compare with."""
    training: dict[str, Any] = Field(default={})
    """Any of transformers' TrainingArguments."""
    dtype: str = Field(default="float32", pattern="^(float32|bfloat16)$")
    """Type of the pivot's weights in training."""
    packing: bool = False
    """Put several short examples into one line of a batch, up to data.max_length tokens, instead of padding each."""
    head_budget: int = Field(default=1024, ge=0)
    """MiB of float32 logits that a step keeps for its backward pass; of more, chunks are computed twice."""
    adapter: AnyAdapter | None = None
    """Train small matrices (lora, qlora) instead of the pivot's own weights."""
    student: AnyStudent | None = None
    """Train the pivot, and the baseline, with weights of few bits: ternary, binary, int4."""
    engine: Engine = Engine()
    """How trainings are spread over processes."""
    head_chunk: int | None = Field(default=None, gt=0)
    """Rows whose logits exist at once, whatever the budget; if not said, chunks of 2^25 logits."""
    evaluation: Evaluation = Evaluation()
    plan: Plan = Plan()

    @property
    def folder(self) -> Path:
        """Where the run lives."""
        return Path(self.runs) / self.name

    @property
    def chosen(self) -> str:
        """The strategy whose model is the result."""
        return self.result or self.strategies[0]

    @field_validator("training")
    @classmethod
    def _training_arguments(cls, value: dict[str, Any]) -> dict[str, Any]:
        """Known names only; and `save_strategy: no`, which YAML reads as false, means what it says."""
        from dataclasses import fields

        from transformers import TrainingArguments

        allowed = {field.name for field in fields(TrainingArguments) if field.init} - OURS.keys()
        for key in value:
            if key not in allowed:
                why = OURS.get(key) or f"is not a TrainingArgument{suggest(key, allowed)}"
                raise ValueError(f"{key} {why}")
        return {key: "no" if given is False and key.endswith("_strategy") else given for key, given in value.items()}

    @model_validator(mode="after")
    def _consistent(self) -> Config:
        names = [source.name for source in self.sources]
        if len(set(names)) < len(names):
            raise ValueError(f"sources need different names, got {', '.join(names)}")
        if taken := RESERVED & set(names):
            raise ValueError(f"no source may be called {', '.join(sorted(taken))}: the run uses that name itself")
        for source in self.sources:
            same = (source.path, source.revision) == (self.pivot.path, self.pivot.revision)
            if same and source.backend.weights and not source.says_otherwise:
                raise ValueError(
                    f"source {source.name} is the pivot itself ({source.path}); it has nothing to teach unless transforms "
                    "or look_ahead change what it says"
                )
        _looked_at(self.data, self.sources)
        _validated(self.data, self.weighting.unfound)
        if self.engine.batch and "gradient_accumulation_steps" in self.training:
            raise ValueError(
                "engine.batch says how much is accumulated; leave out training.gradient_accumulation_steps"
            )
        if isinstance(self.adapter, QLoRA) and self.engine.kind in ("zero3", "fsdp2"):
            raise ValueError(
                f"engine.kind {self.engine.kind} cannot shard weights of 4 bits (adapter.kind qlora); use ddp or zero2"
            )
        if self.pivot.path.endswith(".gguf") and self.engine.kind == "zero3":
            raise ValueError(
                "engine.kind zero3 loads the pivot in shards, which a .gguf file cannot be; use fsdp2 or zero2"
            )
        if self.student is not None:
            _student_is_possible(self, self.student.kind)
        if self.chosen not in self.strategies:
            raise ValueError(f"result is {self.chosen}, but strategies are {', '.join(self.strategies)}")
        if "pairwise" in self.strategies:
            self.merge.check(len(self.sources))
        for i, objective in enumerate(self.objectives):
            if self.extract.sampling is None:
                _enough_entries(i, objective, self.extract.top_k)
            if "hidden" in objective.needs and not self.extract.hidden:
                raise ValueError(
                    f"objectives[{i}] ({objective.kind}) looks at hidden states of the sources, which the cache does not keep; "
                    "set extract.hidden to true"
                )
            for source in self.sources:
                _known(i, objective, source)
        for source in self.sources:
            if self.extract.sampling is not None and not source.backend.samples:
                raise ValueError(
                    f"extract.sampling draws from whole distributions, which backend {source.backend.kind} of source "
                    f"{source.name} does not give; use backend transformers, or extract.top_k"
                )
            if self.extract.hidden and "hidden" in source.backend.unknown:
                raise ValueError(
                    f"extract.hidden is true, and source {source.name} cannot give hidden states: its backend "
                    f"{source.backend.kind} knows log-probabilities only. Give it backend transformers, or set extract.hidden "
                    "to false"
                )
        transforms = {source.name: source.transforms for source in self.sources}
        chosen = Choices(
            self.objectives,
            self.weighting,
            transforms,
            self.extract.top_k,
            self.alignment,
            self.strategies,
            [data.domain for data in self.data.train],
            sampled=self.extract.sampling is not None,
            engine=self.engine.kind,
            adapter=self.adapter.kind if self.adapter else None,
            weightless=[source.name for source in self.sources if not source.backend.weights],
        )
        if found := conflicts(chosen):
            raise ValueError("\n".join(found))
        domains = {data.domain for data in self.data.heldout}
        if unknown := set(self.evaluation.exact_match) - domains:
            raise ValueError(
                f"evaluation.exact_match names {', '.join(sorted(unknown))}; heldout domains are {', '.join(sorted(domains))}"
            )
        return self


RESERVED = {"pivot", "fine-tuned", "unified", "pairwise", "merged", "mean"}
OURS = {
    **dict.fromkeys(["output_dir", "seed", "remove_unused_columns", "use_cpu"], "is set by the run itself"),
    **dict.fromkeys(
        ["resume_from_checkpoint", "do_train", "do_eval", "ddp_backend", "ddp_timeout"], "is set by the run itself"
    ),
    **dict.fromkeys(["deepspeed", "fsdp", "fsdp_config"], "is chosen by engine, which see"),
}
"""TrainingArguments that are not the user's to give, and why."""


def plain_fine_tuning() -> list[AnyObjective]:
    """The objectives of the baseline."""
    return [CrossEntropy()]


def _enough_entries(number: int, objective: AnyObjective, top_k: int | str) -> None:
    if objective.unit == "row":  # reads the pivot's rows alone, which are computed, not kept
        return
    where, needed = f"objectives[{number}] ({objective.kind})", objective.entries
    if needed is None and top_k != "all":
        raise ValueError(f"{where} needs whole rows: set extract.top_k to all (it is {top_k})")
    if needed is not None and top_k != "all" and needed > int(top_k):
        raise ValueError(
            f"{where} reads {needed} entries of each row, extract.top_k keeps {top_k}; raise it or lower top_k"
        )


def _looked_at(data: Data, sources: Sequence[SourceSettings]) -> None:
    """What is shown to sources that look ahead needs one that does, and the other way round."""
    shown = {
        part: [f"data.{part}[{i}]" for i, each in enumerate(getattr(data, part)) if each.look_ahead is not None]
        for part in ("train", "validation", "heldout")
    }
    looking = [source for source in sources if source.look_ahead]
    if shown["heldout"]:
        raise ValueError(f"{shown['heldout'][0]} has look_ahead, and nothing may look ahead there; take it out")
    if not looking and (for_nobody := [*shown["train"], *shown["validation"]]):
        raise ValueError(f"{for_nobody[0]} has look_ahead, which no source reads; set look_ahead: true on one")
    if looking and not shown["train"]:
        raise ValueError(
            f"source {looking[0].name} has look_ahead, and no data set in data.train says what it would see; set look_ahead "
            'there, such as look_ahead: "{asked} Solution: {solution}"'
        )
    if blind := [source.name for source in looking if isinstance(source.backend, Similarity)]:
        raise ValueError(
            f"source {blind[0]} has look_ahead, and its backend similarity never reads a prompt; leave out one of the two"
        )


def _validated(data: Data, unfound: str | None) -> None:
    """Validation examples are there where shares are to be found on them, of each domain, and nowhere else."""
    if unfound is None and data.validation:
        raise ValueError(
            "data.validation is read by weighting: learned alone, where its shares are to be found; take it out"
        )
    if unfound and not data.validation:
        raise ValueError("weighting: learned finds its shares on data.validation, which is empty; give it data sets")
    missing = {each.domain for each in data.train} - {each.domain for each in data.validation}
    if unfound == "domain" and missing:
        raise ValueError(
            f"weighting: learned finds shares of each domain, and data.validation has none of {', '.join(sorted(missing))}; "
            "add it, or set weighting.by to all"
        )


def _known(number: int, objective: AnyObjective, source: SourceSettings) -> None:
    if never := objective.needs & source.backend.unknown:
        raise ValueError(
            f"objectives[{number}] ({objective.kind}) reads {' and '.join(sorted(never))} of each row, which source "
            f"{source.name} cannot give: backend {source.backend.kind} knows log-probabilities only. Choose another input "
            "for the objective, leave it out, or give the source backend transformers"
        )


def _student_is_possible(config: Config, kind: str) -> None:
    if config.adapter is not None:
        raise ValueError(
            f"student.kind {kind} trains the pivot's own weights, adapter.kind {config.adapter.kind} leaves them as they are; "
            "leave one of them out"
        )
    if config.engine.kind in ("zero3", "fsdp2"):
        raise ValueError(
            f"student.kind {kind} needs the whole of each weight, which engine.kind {config.engine.kind} shards; "
            "use ddp or zero2"
        )
    if "pairwise" in config.strategies:
        raise ValueError(
            f"student.kind {kind}: a merge of quantised models is not quantised; use strategies: [unified]"
        )


def suggest(key: str, allowed: set[str]) -> str:
    """`; did you mean ...?` for a misspelt key, or what is allowed."""
    close = difflib.get_close_matches(key, allowed, n=1, cutoff=0.6)
    if close:
        return f"; did you mean {close[0]}?"
    return f"; allowed are {', '.join(sorted(allowed))}" if 0 < len(allowed) <= 20 else ""
