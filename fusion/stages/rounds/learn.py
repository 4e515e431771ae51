"""What the training of a round knows of the texts that the pivot wrote."""

from __future__ import annotations

import dataclasses
import statistics
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from fusion.cache import Cache
from fusion.config import Config, Rounds
from fusion.objectives import AnyObjective, BatchTargets
from fusion.training import TrainingCollator, TrainingSource
from fusion.training.rollouts import RolloutData, WeakerRelative, signal_scales

if TYPE_CHECKING:
    from fusion.stages.rounds.context import RoundContext

WEAKER = "-weaker"
"""What the name of a source's weaker relative ends in, in folders."""
AT_ONCE = 64
"""Texts whose cached rows are looked at together."""
LEAST_SPREAD = 1e-4
"""Added to the spread of rewards that it divides, as in TRL."""


def rollout_data(
    context: RoundContext, sources: Sequence[TrainingSource], objectives: Sequence[AnyObjective]
) -> RolloutData:
    """Bring together what is known of the texts of a round, for the training that learns from them."""
    counted = [objective for objective in objectives if objective.weight]
    reads_reference = any(objective.requirements.reference_pivot for objective in counted)
    data = RolloutData(
        ids=context.ids,
        passed=[bool(text.passed) for text in context.written],
        advantages=advantages(context),
        written_by=Cache(context.config.folder / "cache" / "pivot"),
        reference=Cache(context.config.folder / "cache" / "reference") if reads_reference else None,
        weaker={
            source.name: WeakerRelative(
                Cache(context.config.folder / "cache" / f"{source.name}{WEAKER}"), source.stop_ids
            )
            for source in sources
            if source.name in weaker_relatives(context.config, context.rounds)
        },
    )
    if any(objective.requirements.rollouts and objective.requirements.sources for objective in counted):
        return dataclasses.replace(data, scales=signal_scales(_batches(context, data, sources)))
    return data


def weaker_relatives(config: Config, rounds: Rounds) -> list[str]:
    """Return the sources whose weaker relatives are read too, for objectives on their signal."""
    counted = [objective.requirements for objective in rounds.objectives if objective.weight]
    asked_for = any(each.rollouts and each.sources for each in counted)
    return [source.name for source in config.sources if source.weaker is not None] if asked_for else []


def _batches(context: RoundContext, data: RolloutData, sources: Sequence[TrainingSource]) -> Iterator[BatchTargets]:
    """Yield all texts of the round as they will be compared, each once."""
    texts = range(len(data.passed))
    collator = TrainingCollator(
        context.train_examples, context.encoded("pivot"), sources, context.weighting, alignment=context.config.alignment,
        rollouts=data, eligibility=context.eligibility,
        pivot_cache=data.written_by if context.weighting.required_pivot_fields else None,
    )  # fmt: skip
    for begin in range(0, len(texts), AT_ONCE):
        yield collator(texts[begin : begin + AT_ONCE])["targets"]


def advantages(context: RoundContext) -> list[float]:
    """Return how much better each text's reward is than the mean over the texts for its prompt, over their spread if so set."""
    groups: dict[str, list[float]] = defaultdict(list)
    for text in context.written:
        groups[text.example.prompt_id].append(text.reward)
    means = {id: statistics.fmean(rewards) for id, rewards in groups.items()}
    spreads = {id: statistics.stdev(rewards) if len(rewards) > 1 else 0.0 for id, rewards in groups.items()}
    found = []
    for text in context.written:
        id = text.example.prompt_id
        by = spreads[id] + LEAST_SPREAD if context.rounds.scale_rewards else 1.0
        found.append((text.reward - means[id]) / by)
    return found
