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
from fusion.stages.evaluate import original_models
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
            context.config.strategies, bool(context.config.baseline), [source.name for source in context.config.sources]
        )
    )
    own = checkpoints_activations(context.config.training)
    engines = {engine: training_memory(planner, engine, own) for engine in engine_options(context.config)}
    checkpointed = {engine: training_memory(planner, engine, True) for engine in engines}
    chosen = configured_engine(context.config)
    stages = [
        *fine_tunings(planner, chosen),
        *_responses(planner),
        *(extraction_stage(planner, f"extract {name}", name) for name in context.extracted_models),
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
    how = context.responding.settings
    copies = len(context.responding.sources) if isinstance(how, EverySource) else 1
    names, stages = [name for name in context.responding.sources if name in planner.sizes], []
    asked, rest = _prompts(planner, copies)
    for name in names:
        counts = generation_counts(planner.counts(name, once=True), asked, how.samples, how.max_new_tokens)
        stages.append(writing_stage(planner, f"respond {name}", name, counts))
    if rest and names:  # by whom is not known yet: at most by the largest
        largest = max(names, key=lambda name: planner.sizes[name].parameters)
        counts = generation_counts(planner.counts(largest, once=True), rest, how.samples, how.max_new_tokens)
        stages.append(writing_stage(planner, "respond, unlabelled", largest, counts))
    for name in (name for name in context.responding.readers if name in planner.sizes):
        reads_answers = name == "pivot" or name in context.responding.scoring_sources
        others = sum(other != name for other in context.responding.sources) if reads_answers else 0
        texts = planner.counts(name, once=True)
        answers = asked * how.samples * others
        references = 0 if name == "pivot" or planner.from_settings else len(context.responding.scored_references)
        counts = reading_counts(texts, answers + references, how.max_new_tokens)
        stages.append(writing_stage(planner, f"read responses {name}", name, counts))
    return stages


def _prompts(planner: Planner, copies: int) -> tuple[int, int]:
    """How many prompts each source answers, and how many one of them does (`responses.unlabelled`)."""
    context, data = planner.context, planner.config.data.train
    if planner.from_settings:
        every = planner.counts(context.responding.sources[0]).examples // copies
        bare = sum(each.limit or 0 for each in data if each.response is None)
    else:
        every = len({example.prompt_id for example in context.original_examples})
        bare = every - len(first_prompts(context))
    bare = min(bare, every) if context.responding.best_answers_unlabelled else 0
    return every - bare, bare


def _merges(planner: Planner) -> list[StageEstimate]:
    config, size = planner.config, planner.sizes["pivot"]
    if "pairwise" not in config.strategies:
        return []
    at_once = 4 * (len(config.sources) + 2) * size.largest_tensor  # float32
    return [StageEstimate("merge", disk=2 * model_bytes(size, config), memory=Memory(host=at_once))]


def _evaluations(planner: Planner, trained: list[str]) -> list[StageEstimate]:
    """Every model of the run on the held-out examples; answers are as long as they may get, where it gives any."""
    like = {name: name for name in original_models(planner.context) if name in planner.sizes}
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
