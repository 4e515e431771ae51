"""Settings that would do nothing beside the others, each refused with what would make it count."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from fusion.config.conflicts import factors
from fusion.config.data import DataSettings
from fusion.config.models import BUILTIN, ModelSettings
from fusion.responses import AgreementCheck, AnyCheck, BestSource, EndedCheck, GeneratedResponses, TestsCheck
from fusion.sources.vllm_source import RESERVED_ARGUMENTS, VLLM
from fusion.weighting import Eligibility

if TYPE_CHECKING:
    from fusion.config.run import Config

ANSWERED_WITH = "data.responses: best_source or every_source"


def without_effect(config: Config) -> Iterator[str]:
    """Yield a sentence for each setting that was changed and would change nothing."""
    yield from _checks(config)
    yield from _plan(config)
    yield from _models(config)
    yield from _decoding(config)
    if config.rounds is None and (having := [source.name for source in config.sources if source.weaker is not None]):
        yield f"sources.{having[0]}.weaker is read in rounds, and there are none; leave it out, or add rounds"
    for each in factors(config.weighting):
        if isinstance(each, Eligibility):
            yield from _eligibility(config, each)
    later = config.rounds.objectives if config.rounds else []
    mapped = any(objective.requirements.mapped_rows for objective in (*config.objectives, *later))
    if config.vocabulary_map == "exact" and not mapped:
        yield (
            "vocabulary_map is exact, and none of the objectives compares by token; leave it out, or add one that does, such "
            "as forward_kl"
        )


def _checks(config: Config) -> Iterator[str]:
    """Answers are checked where sources write them, and that is for training alone."""
    written = isinstance(config.data.responses, GeneratedResponses) or config.rounds is not None
    for part in ("train", "validation", "heldout"):
        for number, data in enumerate(getattr(config.data, part)):
            place, answered = f"data.{part}[{number}]", written and part == "train"
            if part == "validation" and config.rounds is not None:
                continue  # rounds are compared by answers to them: see rounds.checks
            if not answered and (given := _given(data)):
                who = "no source writes answers" if part == "train" else "sources write answers for data.train alone"
                way_out = f", or set {ANSWERED_WITH}" if part == "train" else ""
                yield f"{place}.{given} is for answers that sources write, and {who}; take it out{way_out}"
            elif answered and (short := _agreement_of_too_few(config, data.check)):
                yield f"{place}.check {short}"
            elif answered and data.tests is not None and not isinstance(data.check, TestsCheck):
                yield f"{place}.tests is read by check: {{kind: tests}}, and check is {data.check.kind}; take one of them out"


def _agreement_of_too_few(config: Config, check: AnyCheck) -> str | None:
    """Agreement of more sources than answer, which no answer passes."""
    how = config.data.responses
    writers = (how.sources if isinstance(how, GeneratedResponses) else None) or [
        source.name for source in config.sources
    ]
    if not isinstance(check, AgreementCheck) or check.min_sources <= len(writers):
        return None
    return (
        f"agreement asks for {check.min_sources} sources that agree, and {len(writers)} answer ({', '.join(writers)}), so that "
        "no answer passes; let more sources answer, lower min_sources, or choose another check, such as ended"
    )


def _given(data: DataSettings) -> str | None:
    if data.check != DataSettings.model_fields["check"].default:
        return "check"
    return None if data.tests is None else "tests"


def _plan(config: Config) -> Iterator[str]:
    plan = config.plan
    if plan.tokens is None:
        for name in ("response", "examples", "heldout"):
            if getattr(plan, name) is not None:
                yield f"plan.{name} stands in for data that are not read, and they are: set plan.tokens too, or leave it out"
    elif plan.response is not None and plan.response > plan.tokens:
        yield f"plan.response is {plan.response} of plan.tokens = {plan.tokens}; it cannot be more"
    if plan.gpu is None and plan.mfu != type(plan).model_fields["mfu"].default:
        yield f"plan.mfu is {plan.mfu:g}, and times are said for a kind of GPU alone; set plan.gpu too, or leave it out"


def _models(config: Config) -> Iterator[str]:
    domains = {data.domain for part in ("train", "validation", "heldout") for data in getattr(config.data, part)}
    for place, model in {"pivot": config.pivot, **{f"sources.{s.name}": s for s in config.sources}}.items():
        if model.revision is not None and _is_local(model):
            yield f"{place}.revision is {model.revision}, and {model.path} is on this machine, as it is; leave it out"
    for source in config.sources:
        if isinstance(source.backend, VLLM) and (reserved := sorted(RESERVED_ARGUMENTS & source.backend.engine.keys())):
            yield (
                f"sources.{source.name}.backend.engine sets {', '.join(reserved)}, which the run sets itself; remove it there"
            )
        if isinstance(source.shots, dict) and (unknown := sorted(source.shots.keys() - domains)):
            yield (
                f"sources.{source.name}.shots names {', '.join(unknown)}; the domains of the data are "
                f"{', '.join(sorted(domains))}"
            )


def _is_local(model: ModelSettings) -> bool:
    return model.path.startswith((BUILTIN, ".", "/", "~")) or model.path.endswith(".gguf")


def _decoding(config: Config) -> Iterator[str]:
    how = config.data.responses
    if isinstance(how, GeneratedResponses) and how.temperature == 0 and how.top_p < 1:
        yield (
            f"data.responses.top_p is {how.top_p:g}, and temperature 0 takes the likeliest token each time; raise "
            "temperature, or leave top_p out"
        )
    if isinstance(how, BestSource) and how.prefer != "first" and how.samples == 1:
        alone = len(how.sources or config.sources) == 1
        if alone or how.keep == "all":
            who = "one source writes" if alone else "keep: all takes the best source's"
            yield (
                f"data.responses.prefer is {how.prefer}, and there is one answer to each prompt to choose from: {who}, and "
                "samples is 1; raise samples, or leave prefer out"
            )


def _eligibility(config: Config, weighting: Eligibility) -> Iterator[str]:
    """Who answered rightly is known where sources answer, and where their answers can be wrong."""
    how = config.data.responses
    if not isinstance(how, GeneratedResponses):
        yield (
            "weighting (eligibility) lets sources count where they answered the prompt rightly, and data.responses is "
            f"{how.kind}: no source answers. Set {ANSWERED_WITH}, or leave eligibility out"
        )
        return
    names = [source.name for source in config.sources]
    writers = how.sources or names
    for number, data in enumerate(config.data.train):
        place, check = f"data.train[{number}].check", data.check
        alone = data.response is None and isinstance(how, BestSource) and how.unlabelled == "best"
        if isinstance(check, EndedCheck) and not alone:  # there who answers has been right elsewhere
            yield (
                f"weighting (eligibility) asks whose answers are right, and {place} is ended, which none fails; choose "
                "another, such as agreement where there is no reference, or leave eligibility out"
            )
    silent = [name for name in names if name not in writers]
    if silent and "pairwise" in config.strategies and weighting.otherwise == "none":
        yield (
            f"weighting (eligibility): the strategy pairwise learns from source {silent[0]} alone, which answers nothing and "
            "so never counts; name it in data.responses.sources, or use strategies: [unified]"
        )
