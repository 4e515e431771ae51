"""Reading the texts of a round: sources, the pivot that wrote them, and where it is asked for the pivot before all rounds."""

from __future__ import annotations

import dataclasses

from fusion.cache import Cache, CacheWriter
from fusion.config import Config, Extract, Rounds
from fusion.models import loading
from fusion.stages.extract import cache_writer, checked_cache, extract_one
from fusion.stages.rounds.context import RoundContext
from fusion.stages.rounds.learn import WEAKER, weaker_relatives

REFERENCE = "reference"


def readers(context: RoundContext) -> list[str]:
    """Names of the caches of a round: the pivot that wrote the texts, then whoever its objectives learn from."""
    return reader_names(context.config, context.rounds)


def reader_names(config: Config, rounds: Rounds) -> list[str]:
    """The same, from settings alone."""
    counted = [objective.requirements for objective in rounds.objectives if objective.weight]
    sources = [source.name for source in config.sources] if any(each.sources for each in counted) else []
    reference = [REFERENCE] if any(each.reference_pivot for each in counted) else []
    return [
        "pivot",
        *reference,
        *sources,
        *(name + WEAKER for name in weaker_relatives(config, rounds) if name in sources),
    ]


def read_one(context: RoundContext, name: str) -> tuple[Cache, bool]:
    """Let one model read the texts; its cache, and whether there was something to do."""
    reader, writer = _reader(context, name)
    if writer.is_complete:
        return checked_cache(writer), False
    return extract_one(reader, "pivot" if name == REFERENCE else name.removesuffix(WEAKER), writer), True


def _reader(context: RoundContext, name: str) -> tuple[RoundContext, CacheWriter]:
    if name.endswith(WEAKER) and name.removesuffix(WEAKER) in weaker_relatives(context.config, context.rounds):
        return _weaker_reader(context, name.removesuffix(WEAKER))
    if name not in ("pivot", REFERENCE):
        alone = dataclasses.replace(context, reader=name)
        return alone, cache_writer(alone, name)
    update = {"extract": as_trained(context.config)} | (
        {"pivot": context.run.config.pivot} if name == REFERENCE else {}
    )
    alike = dataclasses.replace(context, config=context.config.model_copy(update=update))
    training = context.config.training
    vars(alike).update(autocast="bfloat16" if training.get("bf16") else "float16" if training.get("fp16") else None)
    return alike, cache_writer(alike, "pivot", kept_as=name)


def _weaker_reader(context: RoundContext, name: str) -> tuple[RoundContext, CacheWriter]:
    source = next(each for each in context.config.sources if each.name == name).weaker_model
    alike = dataclasses.replace(context, reader=name)
    known = {each: mark for each, mark in context.fingerprints.items() if each != name}
    vars(alike).update(
        models={**context.models, name: source},
        fingerprints={**known, name: loading.model_fingerprint(source.ref)},
        tokenizers={**context.tokenizers, name: loading.load_tokenizer(source.ref)},
        reads_alone={name: source},
    )
    _refuse_other_tokens(dataclasses.replace(context, reader=name), alike, name)
    return alike, cache_writer(alike, name, kept_as=f"{name}{WEAKER}")


def _refuse_other_tokens(context: RoundContext, alike: RoundContext, name: str) -> None:
    """Raise ValueError where a weaker relative reads an answer in other tokens than its source."""
    for text, own, other in zip(context.read, context.encoded(name), alike.encoded(name), strict=True):
        if own.input_ids[own.start :] != other.input_ids[other.start :]:
            raise ValueError(
                f"weaker of source {name} ({alike.models[name].path}) reads {text.example.response[:40]!r} in other tokens "
                "than the source, and cannot be compared with it; name a model with its tokenizer, or leave weaker out."
            )


def as_trained(config: Config) -> Extract:
    """How the pivot reads: as it is trained, and unrounded, so that a ratio of its probabilities is 1 before the first step."""
    update = {"dtype": config.dtype, "value_format": "float32", "top_k": 1, "sampling": None}
    return config.extract.model_copy(update=update)
