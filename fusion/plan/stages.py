"""What each stage of a run will take: examples, tokens, steps, disk, memory, FLOPs. No weights are read."""

from __future__ import annotations

from dataclasses import replace

from fusion.plan import memory
from fusion.plan.architecture import load_architecture
from fusion.plan.counts import answered_counts, heldout_counts
from fusion.plan.estimates import BYTES_PER_NUMBER, Planner, RunPlan, StageEstimate
from fusion.plan.flops import forward_flops
from fusion.plan.inference import extraction_stage, writing_stage
from fusion.plan.memory import Memory
from fusion.plan.preferences import preference_stages
from fusion.plan.response_costs import generation_counts, generation_memory, reading_counts
from fusion.plan.rounds import round_stages
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
from fusion.stages.respond.answers import first_prompts
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
        *(extraction_stage(planner, f"extract {name}", name) for name in context.models),
        *(training_stage(planner, name, engines[chosen]) for name in names),
        *_merges(planner),
        *round_stages(planner),
        *preference_stages(planner),
        StageEstimate("fuse", disk=model_bytes(sizes["pivot"], context.config)),
        *_evaluations(planner, names),
    ]
    bundled = [name for name, size in sizes.items() if size.bundled]
    return RunPlan(stages, engines, checkpointed, chosen, planner.from_settings, bundled)


def _responses(planner: Planner) -> list[StageEstimate]:
    """Estimate the answering of each source that runs here; none where the data's own responses are learned from."""
    context = planner.context
    if not context.has_generated_responses:
        return []
    how = context.response_settings
    copies = len(context.responding_sources) if isinstance(how, EverySource) else 1
    stages, share, largest = [], _answered_by_all(planner), _largest_responding(planner)
    for name in (name for name in context.responding_sources if name in planner.sizes):
        texts = planner.counts(name, once=True)
        prompts = texts.examples // copies if name == largest else round(share * texts.examples) // copies
        counts = generation_counts(texts, prompts, how.samples, how.max_new_tokens)
        stages.append(writing_stage(planner, f"respond {name}", name, counts))
    for name in (name for name in context.answer_readers if name in planner.sizes):
        reads_answers = name == "pivot" or name in context.scoring_sources
        others = sum(other != name for other in context.responding_sources) if reads_answers else 0
        texts = planner.counts(name, once=True)
        answers = texts.examples // copies * how.samples * others
        references = 0 if name == "pivot" or planner.from_settings else len(context.scored_references)
        counts = reading_counts(texts, answers + references, how.max_new_tokens)
        stages.append(writing_stage(planner, f"read responses {name}", name, counts))
    return stages


def _answered_by_all(planner: Planner) -> float:
    """The share of the prompts that every source answers; the rest are answered by one of them (`responses.unlabelled`)."""
    context = planner.context
    if not context.best_answers_unlabelled:
        return 1.0
    if planner.from_settings:
        sizes = [(data.limit or 0, data.response is not None) for data in planner.config.data.train]
        return sum(size for size, labelled in sizes if labelled) / max(1, sum(size for size, _ in sizes))
    return len(first_prompts(context)) / len({example.prompt_id for example in context.original_examples})


def _largest_responding(planner: Planner) -> str | None:
    """Who is counted for the prompts that one source answers: it is not known yet which, so the largest."""
    names = [name for name in planner.context.responding_sources if name in planner.sizes]
    return max(names, key=lambda name: planner.sizes[name].parameters, default=None)


def _merges(planner: Planner) -> list[StageEstimate]:
    config, size = planner.config, planner.sizes["pivot"]
    if "pairwise" not in config.strategies:
        return []
    at_once = 4 * (len(config.sources) + 2) * size.largest_tensor  # float32
    return [StageEstimate("merge", disk=2 * model_bytes(size, config), memory=Memory(host=at_once))]


def _evaluations(planner: Planner, trained: list[str]) -> list[StageEstimate]:
    """Every model of the run on the held-out examples; answers are as long as they may get, where it gives any."""
    like = {name: name for name in planner.sizes if planner.config.evaluation.original_models}
    like |= {name: "pivot" for name in trained if not name.startswith("pairwise/")}
    like |= {name: "pivot" for name in planner.config.results if name not in like}
    return [_evaluate(planner, name, kind) for name, kind in like.items()]


def _evaluate(planner: Planner, name: str, kind: str) -> StageEstimate:
    size, counts = planner.sizes[kind], heldout_counts(planner.context, kind, planner.from_settings)
    how, width = planner.config.evaluation, BYTES_PER_NUMBER[planner.config.extract.resolved_dtype]
    at_once = max(how.batch_tokens, counts.longest)
    found = StageEstimate(
        f"evaluate {name}",
        counts.examples,
        counts.tokens,
        disk=1000 * counts.examples,
        memory=memory.extraction(size, at_once, width, planner.read_logits(kind)),
        flops=forward_flops(size, counts),
        parallel=False,
    )
    if (prompts := answered_counts(planner.context, kind, planner.from_settings)) is None:
        return found
    answers = generation_counts(prompts, prompts.examples, 1, how.max_new_tokens)
    return replace(
        found,
        tokens=found.tokens + answers.tokens,
        flops=found.flops + forward_flops(size, answers),
        memory=generation_memory(size, max(at_once, answers.longest), width, planner.read_logits(kind)),
    )
