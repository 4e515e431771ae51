"""Reading the answers, and what the training knows of them: sums over the rows of whoever read them."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from fusion.cache import Cache
from fusion.data.answer_end import stop_event
from fusion.stages.extract import cache_writer, checked_cache, extract_one
from fusion.stages.prompts import prompt_format
from fusion.stages.requirements import lacking
from fusion.training.preferences import AnswerSums, PreferenceData, read_answer_sums

if TYPE_CHECKING:
    from fusion.stages.preferences.context import PreferenceContext


def read_answers(context: PreferenceContext, name: str) -> bool:
    """Let one model read the answers; whether there was something to do."""
    reader = _reader(context, name)
    writer = cache_writer(reader, name)
    if writer.is_complete:
        checked_cache(writer)
        return False
    extract_one(reader, name, writer)
    return True


def _reader(context: PreferenceContext, name: str) -> PreferenceContext:
    """The pivot reads as it is trained, so that its margins are 0 before the first step."""
    if name != "pivot":
        return context
    extract = context.config.extract.model_copy(update={"dtype": context.config.dtype})
    return dataclasses.replace(context, config=context.config.model_copy(update={"extract": extract}))


def refuse_unread(context: PreferenceContext) -> None:
    """Raise ValueError where an objective reads what a source did not say of the answers, before anything is trained."""
    known = {
        name: Cache(context.config.folder / "cache" / name).known_fields for name in context.readers if name != "pivot"
    }
    if missing := lacking(context.config.objectives, context.config.weighting, known):
        raise ValueError("\n".join(f"preferences.{sentence}" for sentence in missing))


def preference_data(context: PreferenceContext) -> PreferenceData:
    """Bring together what is known of the answers, for the training that learns from them."""
    return PreferenceData(
        pairs=context.pairs,
        num_bytes=[len(example.response.encode()) for example in context.train_examples],
        reference=_sums(context, "pivot"),
        sources={name: _sums(context, name) for name in context.readers if name != "pivot"},
    )


def _sums(context: PreferenceContext, name: str) -> AnswerSums:
    """What a model says of each answer; of a source's several ways to end, all together. The pivot is trained on one."""
    ends = () if name == "pivot" else stop_event(context.tokenizers[name], prompt_format(context, name))
    return read_answer_sums(Cache(context.config.folder / "cache" / name), context.ids, ends)
