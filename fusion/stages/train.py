"""The stage in which the pivot is trained: what made a training, whether it is done, and the doing."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fusion.alignment.tokenizer_pair import spelling_distance, vocabulary_map
from fusion.cache import Cache
from fusion.data.answer_end import stop_event, token_of_text, trained_ends
from fusion.data.encode import tokens_digest
from fusion.data.example import other_answers
from fusion.data.exported_template import exported_template
from fusion.models.head import first_of_event
from fusion.objectives import AnyObjective
from fusion.runtime import distributed
from fusion.runtime.artifacts import claim_artifact, fingerprint, mark_complete, refuse_other_keys
from fusion.runtime.console import console, training_bar
from fusion.stages.context import RunContext
from fusion.stages.prompts import prompt_format, prompt_formats
from fusion.training import (
    ACCUMULATION,
    BATCH_SIZE,
    TrainingCollator,
    TrainingSource,
    examples_per_step,
    quantization_aware,
)
from fusion.training.validation import EVAL_ARGUMENTS, EVAL_BATCH_SIZE, ValidationTexts

if TYPE_CHECKING:
    from fusion.training.fit import TrainingSpec


def training_source(context: RunContext, name: str, cache: Cache) -> TrainingSource:
    """Put together a source as training sees it."""
    tokenizers = context.tokenizers[name], context.tokenizers["pivot"]
    formats = prompt_format(context, name), prompt_format(context, "pivot")
    return TrainingSource(
        name,
        cache,
        first_of_event(vocabulary_map(context.config.vocabulary_map, *tokenizers, formats), context.pivot_stop_ids),
        getattr(context.models[name], "transforms", ()),
        spelling_distance=functools.partial(spelling_distance, *tokenizers, formats),
        read_hidden=any("hidden" in objective.requirements.source_fields for objective in context.config.objectives),
        model=context.models[name].ref if context.backend(name).has_weights else None,
        stop_ids=stop_event(tokenizers[0], formats[0]),
    )


def train_one(
    context: RunContext,
    name: str,
    sources: list[TrainingSource],
    learn_from: list[str],
    pivot: Cache | None = None,
    title: str | None = None,
) -> bool:
    """Train the pivot once, if that is not done; whether there was something to do.

    `pivot` holds what the pivot said before training; `title` is what the bar calls it, `name` if not said.
    """
    objectives = context.objectives(learns_from_sources=bool(learn_from))
    key = _training_key(context, sources, learn_from, objectives)
    with context.store.artifact_lock("train", key):
        with distributed.main_process_first():
            folder = context.store.artifact_folder("train", name, key)
            done = claim_artifact(folder, key, context.redo or "fusion train")
        if not done:
            from fusion.training import fit  # with it comes Trainer: seconds, which what is done already need not pay

            spec = _training_spec(context, sources, learn_from, objectives, pivot)
            fit.train(spec, folder, [*training_bar(title or name), *context.training_callbacks])
            if spec.quantizer:
                console.print(_sizes(folder / "model"))
            if distributed.is_main_process():
                mark_complete(folder, ["model", "adapter", "log.json"])
            distributed.free_memory()
    return not done


def refuse_other_trainings(trainings: Mapping[str, tuple[RunContext, list[TrainingSource], list[str]]]) -> None:
    """Raise ValueError for all trainings that are there from something else, before the first of the others takes its hours."""
    keys = {}
    for name, (context, sources, learn_from) in trainings.items():
        objectives = context.objectives(learns_from_sources=bool(learn_from))
        keys[context.config.folder / "train" / name] = _training_key(context, sources, learn_from, objectives)
    refuse_other_keys(keys, "fusion train")


def _training_spec(
    context: RunContext,
    sources: list[TrainingSource],
    learn_from: list[str],
    objectives: Sequence[AnyObjective],
    pivot: Cache | None,
) -> TrainingSpec:
    from fusion.training.fit import TrainingSpec

    config, encoded, tokenizer = context.config, context.encoded("pivot"), context.tokenizers["pivot"]
    exported_template(tokenizer, prompt_format(context, "pivot"))  # raises now, rather than when the model is trained
    collator = TrainingCollator(
        [context.train_examples[n] for n in context.training_indices],
        encoded.select(context.training_indices),
        sources,
        context.weighting,
        alignment=config.alignment,
        pad_id=tokenizer.pad_token_id or 0,
        learn_from=learn_from,
        pivot_cache=pivot if sources and context.weighting.required_pivot_fields else None,
        other_answers=_other_answers(context, objectives),
        eligibility=context.eligibility if sources else None,
        rollouts=context.rollout_data(sources, objectives),
        preferences=context.preference_data(),
    )
    return TrainingSpec(
        config.pivot.ref,
        tokenizer,
        collator,
        objectives,
        context.training | context.validation_arguments,
        config.seed,
        config.dtype,
        logits_chunk=config.logits_chunk,
        logits_budget=config.logits_budget << 18,
        pack_length=config.data.max_length if config.packing else None,
        engine=config.engine,
        adapter=config.adapter,
        validation=_validation(context),
        quantizer=config.quantization_aware_training,
        eos_token_ids=pivot_ends(context),
        stop_ids=context.pivot_stop_ids,
    )


def _validation(context: RunContext) -> ValidationTexts | None:
    """Return what the training is watched on, if on anything."""
    if not context.validation_arguments:
        return None
    return ValidationTexts(context.validation_examples, context.validation_texts)


def pivot_ends(context: RunContext) -> list[int]:
    """Return the ids that end the pivot's answers in training, of all formats that its examples have."""
    formats, examples = (
        prompt_formats(context, "pivot"),
        map(context.train_examples.__getitem__, context.training_indices),
    )
    refuse_stop_of_several_tokens(context)
    tokenizer = context.tokenizers["pivot"]
    return sorted(
        {id for form in {formats(each, each.messages) for each in examples} for id in trained_ends(tokenizer, form)}
    )


def refuse_stop_of_several_tokens(context: RunContext) -> None:
    """Raise ValueError where the pivot's first `stop` is a text of several tokens: an exported model ends at one."""
    tokenizer, stop = context.tokenizers["pivot"], context.config.pivot.stop
    if stop and isinstance(stop[0], str) and token_of_text(tokenizer, stop[0]) is None:
        raise ValueError(
            f"pivot.stop: {stop[0]!r} takes several tokens of {context.config.pivot.path}, and an exported model ends at one. "
            "Name first a token id, or a text that is one token."
        )


def _other_answers(context: RunContext, objectives: Sequence[AnyObjective]) -> list[str | None] | None:
    """Id of another answer to the prompt of each example that is learned from, where an objective reads it."""
    if not any(objective.requirements.other_answers for objective in objectives):
        return None
    others = other_answers(context.train_examples)
    return [others[n] for n in context.training_indices]


def _training_key(
    context: RunContext, sources: list[TrainingSource], learn_from: list[str], objectives: Sequence[AnyObjective]
) -> dict[str, Any]:
    config, training, encoded = context.config, context.training, context.encoded("pivot")
    return {
        "pivot": context.fingerprints["pivot"],
        "prompts": prompt_format(context, "pivot").key()
        | {"tokens": tokens_digest(encoded[n] for n in context.training_indices)},
        "examples": fingerprint(
            {"ids": [context.ids[n] for n in context.training_indices], "max_length": config.data.max_length}
        ),
        "sources": {source.name: source.cache.artifact_key for source in sources},
        "transforms": {source.name: [each.model_dump() for each in source.transforms] for source in sources},
        "learn_from": learn_from,
        "objectives": [_objective_key(objective) for objective in objectives],
        "fusion": [config.alignment, config.vocabulary_map, context.weighting.model_dump()] if sources else [],
        "training": {
            name: value
            for name, value in training.items()
            if name not in (BATCH_SIZE[0], ACCUMULATION[0], *EVAL_ARGUMENTS)
        },
        "examples_per_step": examples_per_step(training),
        "adapter": config.adapter.model_dump() if config.adapter else None,
        "quantization_aware_training": (
            config.quantization_aware_training.model_dump() if config.quantization_aware_training else None
        ),
        "seed": config.seed,
        "dtype": config.dtype,
        "packing": config.packing,
        **(_eligibility_key(context) if sources else {}),
        **_validation_key(context),
        **context.training_key,
    }


def _eligibility_key(context: RunContext) -> dict[str, Any]:
    """Which sources may teach which of the prompts that are trained on, where the weighting asks for it."""
    if (found := context.eligibility) is None:
        return {}
    prompts = {context.train_examples[n].prompt_id for n in context.training_indices}
    return {"eligibility": fingerprint({prompt: found.get(prompt) for prompt in prompts})}


def _validation_key(context: RunContext) -> dict[str, Any]:
    """Where a training is watched: on what and when. It changes no weight, and yet the log that belongs to it."""
    if not (arguments := context.validation_arguments):
        return {}
    when = {name: value for name, value in arguments.items() if name != EVAL_BATCH_SIZE}
    examples = fingerprint({"ids": [each.id for each in context.validation_examples]})
    return {"validation": {"examples": examples, "tokens": tokens_digest(context.validation_texts), **when}}


def _objective_key(objective: AnyObjective) -> dict[str, Any]:
    """All that makes an objective what it is: its settings, and the contents of files that they name."""
    files = {str(file): hashlib.sha256(file.read_bytes()).hexdigest() for file in objective.requirements.files}
    return objective.model_dump() | ({"files": files} if files else {})


def _sizes(model: Path) -> str:
    found = quantization_aware.read_sizes(model)
    return (
        f"  {found['kind']}: {found['quantized']:,} of {found['parameters']:,} weights in {found['bytes'] / 1e6:,.1f} MB "
        f"instead of {found['bytes_before'] / 1e6:,.1f} MB"
    )
