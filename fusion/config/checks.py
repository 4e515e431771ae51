"""What a whole configuration must be besides right in each part; each mistake says its way out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from fusion.config.conflicts import Choices, conflicts
from fusion.config.data import Data, DataSettings
from fusion.config.models import SourceSettings
from fusion.config.preferences.checks import preference_mistakes
from fusion.config.rounds.checks import as_a_run, placed, round_mistakes
from fusion.config.stages import Extract
from fusion.config.without_effect import without_effect
from fusion.objectives import AnyObjective, CrossEntropy
from fusion.responses import GeneratedResponses, TestsCheck
from fusion.sources import Similarity
from fusion.training.adapter import QLoRA
from fusion.training.validation import EVAL_ARGUMENTS, validation_arguments

if TYPE_CHECKING:
    from fusion.config.run import Config

RESERVED = {
    "pivot",
    "fine-tuned",
    "baseline",
    "unified",
    "pairwise",
    "merged",
    "fused",
    "mean",
    "chosen",
    "rounds",
    "preferences",
}
"""Names that a run uses itself, in its folders and tables."""


def check(config: Config) -> None:
    """Raise ValueError for parts that do not go together."""
    rules = (
        _sources, _answered, _looked_at, _validated, _engine, _quantization_is_possible, _whole, _evaluated,
        _learned_from_the_data,
    )  # fmt: skip
    mistakes = [mistake for rule in (*rules, _rows_hold_what_is_read) if (mistake := _mistake(rule, config))]
    mistakes += [*conflicts(_choices(config)), *without_effect(config), *_rounds(config)]
    mistakes += [*preference_mistakes(config), *_preferences(config)]
    if mistakes:
        raise ValueError("\n".join(mistakes))


def _rounds(config: Config) -> Iterator[str]:
    """What objectives of rounds read is there, as for those of the first training; and texts can be written and checked."""
    if (rounds := config.rounds) is None:
        return
    alike = as_a_run(config, rounds)
    found = [_mistake(rule, alike) for rule in (_rows_hold_what_is_read, _engine, _whole)]
    said = {_mistake(rule, config) for rule in (_engine, _whole)}  # about what is not of rounds, and said already
    for mistake in [*found, *conflicts(_choices(alike)), *without_effect(alike)]:
        if mistake is not None and mistake not in said and (sentence := placed(mistake, rounds)):
            yield sentence
    if not isinstance(config.data.responses, GeneratedResponses):
        for number, data in enumerate(config.data.train):
            if not data.as_raw_text and (mistake := _checked_alone(f"data.train[{number}]", data)):
                yield mistake
    yield from round_mistakes(config, rounds)


def _preferences(config: Config) -> Iterator[str]:
    """What is right for the run's training is right for that of preferences."""
    if config.preferences is None or not config.preferences.training:
        return
    alike = config.model_copy(update={"training": config.training | config.preferences.training})
    for rule in (_engine, _whole):
        if (mistake := _mistake(rule, alike)) is not None and mistake != _mistake(rule, config):
            yield mistake.replace("training.", "preferences.training.")


def _mistake(rule: Callable[[Config], None], config: Config) -> str | None:
    try:
        rule(config)
    except ValueError as error:
        return str(error)
    return None


def _sources(config: Config) -> None:
    _names([source.name for source in config.sources])
    for source in config.sources:
        if source.fine_tune is not None:
            _trainable(source, config.data)
        same = (source.path, source.revision) == (config.pivot.path, config.pivot.revision)
        if same and source.backend.has_weights and not source.differs_from_pivot:
            raise ValueError(
                f"source {source.name} is the pivot itself ({source.path}); it has nothing to teach unless transforms "
                "or look_ahead change what it says"
            )


def _names(names: Sequence[str]) -> None:
    """Names of sources are names of folders, and some disks do not tell upper from lower case."""
    alike = {name.casefold() for name in names}
    if len(alike) < len(names):
        raise ValueError(f"sources need different names, whatever their case, got {', '.join(names)}")
    if taken := [name for name in names if name.casefold() in RESERVED]:
        raise ValueError(f"no source may be called {', '.join(taken)}: the run uses that name itself")
    readers = alike | {"pivot"}
    if taken := [name for name in names if name.casefold().removesuffix("-reads") in readers - {name.casefold()}]:
        raise ValueError(
            f"no source may be called {taken[0]}: what {taken[0][: -len('-reads')]} makes of answers is kept under that name"
        )


def _whole(config: Config) -> None:
    """The result is one of the models that are made, from as many as the merge takes, in one precision."""
    if config.chosen not in config.strategies:
        raise ValueError(f"result is {config.chosen}, but strategies are {', '.join(config.strategies)}")
    if "pairwise" in config.strategies:
        config.merge.check_models(len(config.sources))
    if config.training.get("fp16") and config.dtype == "bfloat16":
        raise ValueError("training.fp16 scales gradients of float32 weights, and dtype is bfloat16; set one of the two")


def _evaluated(config: Config) -> None:
    domains = {data.domain for data in config.data.heldout}
    if unknown := set(config.evaluation.exact_match) - domains:
        raise ValueError(
            f"evaluation.exact_match names {', '.join(sorted(unknown))}; heldout domains are {', '.join(sorted(domains))}"
        )
    compared = config.evaluation.compare if isinstance(config.evaluation.compare, dict) else {}
    if unknown := compared.keys() - set(config.evaluation.exact_match):
        raise ValueError(
            f"evaluation.compare names {', '.join(sorted(unknown))}, where no answer is compared; add the domain to "
            "evaluation.exact_match, or take it out"
        )


def _learned_from_the_data(config: Config) -> None:
    """What is about texts that the pivot writes has none to look at outside rounds."""
    for number, objective in enumerate(config.objectives):
        if objective.requirements.rollouts:
            setting = f" with part: {objective.part}" if isinstance(objective, CrossEntropy) else ""
            raise ValueError(
                f"objectives[{number}] ({objective.kind}){setting} is about texts that the pivot writes in rounds, and these "
                "objectives are learned from the data; it belongs under rounds.objectives"
            )


def _trainable(source: SourceSettings, data: Data) -> None:
    if not source.backend.has_weights:
        raise ValueError(
            f"source {source.name} has fine_tune, and its weights are not here to be trained: backend {source.backend.kind} "
            "runs them elsewhere. Leave fine_tune out, or give it backend transformers"
        )
    if source.fine_tune and source.fine_tune.folds > 1 and source.backend.kind == "vllm":
        raise ValueError(
            f"source {source.name} has fine_tune.folds {source.fine_tune.folds}: so many models read side by side, and "
            "vllm takes the GPU for one; give it backend transformers, or leave folds out"
        )
    if all(each.response is None for each in data.train):
        raise ValueError(
            f"source {source.name} has fine_tune, and no data set in data.train has responses to train it on; leave it out"
        )


def _engine(config: Config) -> None:
    if config.engine.global_batch_size and "gradient_accumulation_steps" in config.training:
        raise ValueError(
            "engine.global_batch_size says how much is accumulated; leave out training.gradient_accumulation_steps"
        )
    tuned = {f"sources.{s.name}.fine_tune.adapter": (s, s.fine_tune.adapter) for s in config.sources if s.fine_tune}
    for place, (model, adapter) in {"adapter": (config.pivot, config.adapter), **tuned}.items():
        if isinstance(adapter, QLoRA) and config.engine.kind in ("zero3", "fsdp2"):
            raise ValueError(
                f"engine.kind {config.engine.kind} cannot shard weights of 4 bits ({place}.kind qlora); use ddp or zero2"
            )
        if model.path.endswith(".gguf") and config.engine.kind == "zero3":
            raise ValueError(
                f"engine.kind zero3 loads what it trains in shards, which {model.path} cannot be; use fsdp2 or zero2"
            )


def _rows_hold_what_is_read(config: Config) -> None:
    for number, objective in enumerate(config.objectives):
        if config.extract.sampling is None:
            _enough_entries(number, objective, config.extract.top_k)
        if "hidden" in objective.requirements.source_fields and not config.extract.hidden_states:
            raise ValueError(
                f"objectives[{number}] ({objective.kind}) looks at hidden states of the sources, which the cache does not "
                "keep; set extract.hidden_states to true"
            )
        for source in config.sources:
            _known(number, objective, source)
    for source in config.sources:
        _extractable(config.extract, source)


def _extractable(extract: Extract, source: SourceSettings) -> None:
    if extract.sampling is not None and not source.backend.can_sample:
        raise ValueError(
            f"extract.sampling draws from whole distributions, which backend {source.backend.kind} of source "
            f"{source.name} does not give; use backend transformers, or extract.top_k"
        )
    if extract.hidden_states and "hidden" in source.backend.unknown_fields:
        raise ValueError(
            f"extract.hidden_states is true, and source {source.name} cannot give hidden states: its backend "
            f"{source.backend.kind} knows none. Give it backend transformers, or set extract.hidden_states to false"
        )


def _choices(config: Config) -> Choices:
    return Choices(
        config.objectives,
        config.weighting,
        {source.name: source.transforms for source in config.sources},
        config.extract.top_k,
        config.alignment,
        config.strategies,
        [data.domain for data in config.data.train],
        sampled=config.extract.sampling is not None,
        engine=config.engine.kind,
        adapter=config.adapter.kind if config.adapter else None,
        weightless=[source.name for source in config.sources if not source.backend.has_weights],
        later_objectives=config.rounds.objectives if config.rounds else (),
    )


def _enough_entries(number: int, objective: AnyObjective, top_k: int | str) -> None:
    where, needed = f"objectives[{number}] ({objective.kind})", objective.requirements.source_top_k
    if needed is None and top_k != "all":
        raise ValueError(f"{where} needs whole rows: set extract.top_k to all (it is {top_k})")
    if needed is not None and top_k != "all" and needed > int(top_k):
        raise ValueError(
            f"{where} reads {needed} entries of each row, extract.top_k keeps {top_k}; raise it or lower top_k"
        )


def _answered(config: Config) -> None:
    """Responses come from somewhere, and checks have what they compare with."""
    data, sources, how = config.data, config.sources, config.data.responses
    given = {part: [each.response is not None for each in getattr(data, part)] for part in ("validation", "heldout")}
    given["train"] = [each.response is not None or isinstance(how, GeneratedResponses) for each in data.train]
    for part, there in given.items():
        if not all(there):
            way_out = ", or let sources answer: data.responses: best_source" if part == "train" else ""
            raise ValueError(
                f"data.{part}[{there.index(False)}] has prompts alone (response: null); give responses{way_out}"
            )
    if isinstance(how, GeneratedResponses):
        if data.easiest_fraction is not None:
            raise ValueError("data.easiest_fraction is for the data's own responses; leave it out, or data.responses")
        _writers(how, {source.name: source for source in sources})
        for number, each in enumerate(data.train):
            _checked(f"data.train[{number}]", each, len(sources))


def _writers(how: GeneratedResponses, sources: Mapping[str, SourceSettings]) -> None:
    names = how.sources or list(sources)
    if unknown := set(names) - sources.keys():
        raise ValueError(f"data.responses.sources names {', '.join(sorted(unknown))}; sources are {', '.join(sources)}")
    if silent := [name for name in names if not sources[name].backend.can_generate]:
        raise ValueError(
            f"source {silent[0]} has backend {sources[silent[0]].backend.kind}, which writes no answers; name the others in "
            "data.responses.sources"
        )


def _checked(place: str, data: DataSettings, sources: int) -> None:
    check = data.check
    if data.as_raw_text:
        raise ValueError(
            f"{place} is as_raw_text: it has no prompts that could be answered; leave out as_raw_text, or data.responses"
        )
    if mistake := _checked_alone(place, data):
        raise ValueError(mistake)
    if check.needs_likelihood and sources < 2:
        raise ValueError(f"{place}.check {check.kind} asks the other sources, and there is one source only")


def _checked_alone(place: str, data: DataSettings) -> str | None:
    """What a check lacks of its data set, whoever writes the answers."""
    check = data.check
    if check.needs_reference and data.response is None:
        return f"{place}.check {check.kind} compares with the response, which is null; choose another check"
    if isinstance(check, TestsCheck) and data.tests is None:
        return f'{place}.check tests runs {place}.tests, which is not set, such as "{{test_list}}"'
    if isinstance(check, TestsCheck) and not check.allow_code_execution:
        return (
            f"{place}.check tests runs programs that models wrote, in a sandbox; set allow_code_execution: true there to "
            "let it"
        )
    return None


def _looked_at(config: Config) -> None:
    """What is shown to sources that look ahead needs one that does, and the other way round."""
    data, sources = config.data, config.sources
    shown = {
        part: [f"data.{part}[{i}]" for i, each in enumerate(getattr(data, part)) if each.look_ahead is not None]
        for part in ("train", "validation", "heldout")
    }
    looking = [source for source in sources if source.look_ahead]
    if shown["validation"] and config.weighting.missing_shares is None:
        raise ValueError(
            f"{shown['validation'][0]} has look_ahead, and no source reads validation examples; take it out"
        )
    if shown["heldout"]:
        raise ValueError(f"{shown['heldout'][0]} has look_ahead, and nothing may look ahead there; take it out")
    if not looking and (for_nobody := [*shown["train"], *shown["validation"]]):
        raise ValueError(f"{for_nobody[0]} has look_ahead, which no source reads; set look_ahead: true on one")
    if looking and not shown["train"]:
        raise ValueError(
            f"source {looking[0].name} has look_ahead, and no data set in data.train says what it would see; set look_ahead "
            'there, such as look_ahead: "{last_message} Solution: {solution}"'
        )
    if blind := [source.name for source in looking if isinstance(source.backend, Similarity)]:
        raise ValueError(
            f"source {blind[0]} has look_ahead, and its backend similarity never reads a prompt; leave out one of the two"
        )


def _validated(config: Config) -> None:
    """Validation examples are there where trainings are watched or shares are to be found on them, and nowhere else."""
    data, unfound = config.data, config.weighting.missing_shares
    watched = bool(validation_arguments(config.training))
    if unfound is None and data.validation and not watched and config.rounds is None:
        raise ValueError(
            "data.validation is read while the pivot trains, and training.eval_strategy is no, or by weighting: learned, where "
            "its shares are to be found; take out data.validation, or eval_strategy"
        )
    given = {"training": config.training}
    given |= {"rounds.training": config.rounds.training} if config.rounds else {}
    given |= {"preferences.training": config.preferences.training} if config.preferences else {}
    given |= {f"sources.{s.name}.fine_tune.training": s.fine_tune.training for s in config.sources if s.fine_tune}
    for place, arguments in given.items() if not data.validation else ():
        if named := [name for name in EVAL_ARGUMENTS if name in arguments and arguments[name] != "no"]:
            raise ValueError(
                f"{place}.{named[0]} says when validation examples are read, and data.validation has none; give it data sets, "
                f'such as the last rows of a training file (split: "train[-50:]"), or leave out {named[0]}'
            )
    if unfound and not data.validation:
        raise ValueError("weighting: learned finds its shares on data.validation, which is empty; give it data sets")
    missing = {each.domain for each in data.train} - {each.domain for each in data.validation}
    if unfound == "domain" and missing:
        raise ValueError(
            f"weighting: learned finds shares of each domain, and data.validation has none of {', '.join(sorted(missing))}; "
            "add it, or set weighting.per to all"
        )


def _known(number: int, objective: AnyObjective, source: SourceSettings) -> None:
    if never := objective.requirements.source_fields & source.backend.unknown_fields:
        raise ValueError(
            f"objectives[{number}] ({objective.kind}) reads {' and '.join(sorted(never))} of each row, which source "
            f"{source.name} cannot give: backend {source.backend.kind} knows log-probabilities only. Choose another input "
            "for the objective, leave it out, or give the source backend transformers"
        )


def _quantization_is_possible(config: Config) -> None:
    if config.quantization_aware_training is None:
        return
    kind = config.quantization_aware_training.kind
    if config.adapter is not None:
        raise ValueError(
            f"quantization_aware_training.kind {kind} trains the pivot's own weights, adapter.kind {config.adapter.kind} "
            "leaves them as they are; leave one of them out"
        )
    if config.engine.kind in ("zero3", "fsdp2"):
        raise ValueError(
            f"quantization_aware_training.kind {kind} needs the whole of each weight, which engine.kind "
            f"{config.engine.kind} shards; use ddp or zero2"
        )
    if "pairwise" in config.strategies:
        raise ValueError(
            f"quantization_aware_training.kind {kind}: a merge of quantized models is not quantized; use strategies: [unified]"
        )
