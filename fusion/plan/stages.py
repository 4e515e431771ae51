"""What each stage of a run will take: examples, tokens, steps, disk, memory, FLOPs. No weights are read."""

from __future__ import annotations

import math
from dataclasses import replace

from fusion.cache import sampled_entries
from fusion.cache.codec import bytes_per_row
from fusion.config import Extract
from fusion.plan import memory
from fusion.plan.architecture import load_architecture
from fusion.plan.counts import heldout_counts
from fusion.plan.estimates import BYTES_PER_NUMBER, Planner, RunPlan, StageEstimate
from fusion.plan.flops import Counts, forward_flops
from fusion.plan.memory import Memory
from fusion.plan.response_costs import generation_counts, generation_memory, scoring_counts
from fusion.plan.trainings import (
    checkpoints_activations,
    configured_engine,
    engine_options,
    fine_tunings,
    model_bytes,
    training_memory,
    training_stage,
)
from fusion.responses import EverySource
from fusion.stages.context import RunContext
from fusion.training import trainings_of


def plan(context: RunContext, count: bool = False) -> RunPlan:
    """Estimates of every stage, in order. With `plan.tokens` and not `count` neither data nor tokenizers are read."""
    context = context.planned
    sizes = {
        name: load_architecture(model.ref)
        for name, model in context.models.items()
        if context.backend(name).has_weights
    }
    planner = Planner(context, sizes, context.config.plan.tokens is not None and not count)
    names = list(
        trainings_of(
            context.config.strategies, context.config.baseline, [source.name for source in context.config.sources]
        )
    )
    own = checkpoints_activations(context.config.training)
    engines = {engine: training_memory(planner, engine, own) for engine in engine_options(context.config)}
    checkpointed = {engine: training_memory(planner, engine, True) for engine in engines}
    chosen = configured_engine(context.config)
    stages = [
        *fine_tunings(planner, chosen),
        *_responses(planner),
        *(_extract(planner, name) for name in context.models),
        *(training_stage(planner, name, engines[chosen]) for name in names),
        *_files(planner),
        *_evaluations(planner, names),
    ]
    bundled = [name for name, size in sizes.items() if size.bundled]
    return RunPlan(stages, engines, checkpointed, chosen, planner.from_settings, bundled)


def _responses(planner: Planner) -> list[StageEstimate]:
    """Estimate the answering of each source that runs here; none where the data's own responses are learned from."""
    context = planner.context
    if not context.has_generated_responses:
        return []
    how, copies = (
        context.response_settings,
        len(context.responding_sources) if isinstance(context.response_settings, EverySource) else 1,
    )
    stages = []
    for name in (name for name in context.responding_sources if name in planner.sizes):
        counts = generation_counts(planner.counts(name, once=True), copies, how.samples, how.max_new_tokens)
        stages.append(_written(planner, f"respond {name}", name, counts))
    for name in (name for name in context.answer_readers if name in planner.sizes):
        others = sum(other != name for other in context.responding_sources)
        counts = scoring_counts(planner.counts(name, once=True), copies, how.samples, how.max_new_tokens, others)
        stages.append(_written(planner, f"read responses {name}", name, counts))
    return stages


def _written(planner: Planner, stage: str, name: str, counts: Counts) -> StageEstimate:
    extract, size = planner.config.extract, planner.sizes[name]
    at_once = max(extract.batch_tokens, counts.longest)
    memory_estimate = generation_memory(
        size, at_once, BYTES_PER_NUMBER[extract.resolved_dtype], planner.read_logits(name)
    )
    disk = 4 * counts.rows  # about so many bytes of text a token
    return StageEstimate(
        stage, counts.examples, counts.tokens, disk=disk, memory=memory_estimate, flops=forward_flops(size, counts)
    )


def _extract(planner: Planner, name: str) -> StageEstimate:
    extract, counts, vocabulary = planner.config.extract, planner.counts(name, once=True), planner.vocabulary(name)
    width = planner.sizes[name].hidden_size if extract.hidden_states and name != "pivot" else 0
    disk = round(counts.rows * _row(extract, name == "pivot", vocabulary, width))
    found = StageEstimate(f"extract {name}", counts.examples, counts.tokens, disk=disk)
    if name not in planner.sizes:  # runs behind a server, not here
        return found
    size, at_once = planner.sizes[name], max(extract.batch_tokens, counts.longest)
    memory_estimate = memory.extraction(
        size, at_once, BYTES_PER_NUMBER[extract.resolved_dtype], planner.read_logits(name)
    )
    parts = next((s.fine_tune.folds for s in planner.config.sources if s.name == name and s.fine_tune), 1)
    return replace(
        found,
        memory=replace(memory_estimate, weights=parts * memory_estimate.weights),
        flops=forward_flops(size, counts),
    )


def _row(extract: Extract, pivot: bool, vocabulary: int, width: int) -> float:
    """Return the bytes that a cached row takes, with `width` numbers of hidden state.

    Of entries drawn at random, the share of different ones is the paper's: 12 of 50 (a guess here).
    """
    if extract.sampling is not None and not pivot:
        different = min(vocabulary, math.ceil(extract.sampling.draws * 12 / 50))
        return bytes_per_row(0, extract.resolved_value_format, vocabulary, width) + sampled_entries.bytes_per_row(
            different, vocabulary
        )
    k = 1 if pivot else vocabulary if extract.top_k == "all" else min(extract.top_k, vocabulary)
    return float(bytes_per_row(k, extract.resolved_value_format, vocabulary, width))


def _files(planner: Planner) -> list[StageEstimate]:
    config, size = planner.config, planner.sizes["pivot"]
    saved = model_bytes(size, config)
    at_once = 4 * (len(config.sources) + 2) * size.largest_tensor  # float32
    merge = StageEstimate("merge", disk=2 * saved, memory=Memory(host=at_once))
    return [*([merge] if "pairwise" in config.strategies else []), StageEstimate("fuse", disk=saved)]


def _evaluations(planner: Planner, trained: list[str]) -> list[StageEstimate]:
    """Every model of the run on the held-out examples; answers that are generated are not counted."""
    like = {name: name for name in planner.sizes if planner.config.evaluation.original_models}
    like |= {name: "pivot" for name in trained if not name.startswith("pairwise/")}
    if "pairwise" in planner.config.strategies:
        like["pairwise"] = "pivot"
    return [_evaluate(planner, name, kind) for name, kind in like.items()]


def _evaluate(planner: Planner, name: str, kind: str) -> StageEstimate:
    size, counts = planner.sizes[kind], heldout_counts(planner.context, kind, planner.from_settings)
    at_once = max(planner.config.evaluation.batch_tokens, counts.longest)
    memory_estimate = memory.extraction(
        size, at_once, BYTES_PER_NUMBER[planner.config.extract.resolved_dtype], planner.read_logits(kind)
    )
    disk = 1000 * counts.examples
    flops = forward_flops(size, counts)
    return StageEstimate(
        f"evaluate {name}",
        counts.examples,
        counts.tokens,
        disk=disk,
        memory=memory_estimate,
        flops=flops,
        parallel=False,
    )
