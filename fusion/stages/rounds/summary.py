"""What came of the texts of a round: how many are right, and what there is to learn from them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from fusion.objectives import CrossEntropy, GroupReward
from fusion.runtime.run_file import RoundTexts
from fusion.stages.rounds.texts import WrittenText, encode_written

if TYPE_CHECKING:
    from fusion.stages.rounds.context import RoundContext


def count_texts(texts: Sequence[WrittenText]) -> list[RoundTexts]:
    """Count the texts of a round by domain, in the order in which domains come."""
    domains: dict[str, list[WrittenText]] = defaultdict(list)
    for text in texts:
        domains[text.example.domain].append(text)
    return [_count(domain, of) for domain, of in domains.items()]


def _count(domain: str, texts: Sequence[WrittenText]) -> RoundTexts:
    rewards: dict[str, set[float]] = defaultdict(set)
    for text in texts:
        rewards[text.example.prompt_id].add(text.reward)
    judged = [text for text in texts if text.passed is not None]
    return RoundTexts(
        domain,
        prompts=len(rewards),
        texts=len(texts),
        judged=len(judged),
        passed=sum(bool(text.passed) for text in judged),
        cut=sum(text.rollout.end is None for text in texts),
        differing=sum(len(each) > 1 for each in rewards.values()),
    )


def describe_texts(context: RoundContext, counts: Sequence[RoundTexts]) -> Iterator[str]:
    """Yield, for people, a line for each domain, and one for each objective that finds nothing in this round."""
    for each in counts:
        right = (
            f"{each.passed} of {each.judged} right ({each.passed / each.judged:.0%})" if each.judged else "none judged"
        )
        if 0 < each.judged < each.texts:
            right += f", {each.texts - each.judged} not judged, for there is no reference"
        yield (
            f"  {each.domain}: {each.texts} texts to {each.prompts} prompts, {right}, {each.cut} cut; rewards differ among the "
            f"answers to {each.differing}"
        )
        if each.cut == each.texts:
            yield (
                f"  {each.domain}: every text was cut at rounds.max_completion_length = "
                f"{context.rounds.max_completion_length}, so none can be right; raise it, or let the first training teach the "
                "pivot to end"
            )
    limit = context.config.data.max_length
    if longer := sum(len(each.input_ids) > limit for each in encode_written(context)):
        yield (
            f"  {longer} texts are longer with their prompt than data.max_length = {limit} tokens and are learned from up to "
            "there; rewards are of the whole text"
        )
    yield from _nothing_to_learn(context, counts)


def _nothing_to_learn(context: RoundContext, counts: Sequence[RoundTexts]) -> Iterator[str]:
    counted = [objective for objective in context.rounds.objectives if objective.weight]
    for objective in counted:
        found = f"  round {context.number}: {objective.kind} has nothing to learn from"
        if isinstance(objective, GroupReward) and not any(each.differing for each in counts):
            yield f"{found}: all answers to a prompt have the same reward, for every prompt"
        if isinstance(objective, CrossEntropy) and objective.part == "right_rollouts" and not _passed(counts):
            yield f"{found} (part: right_rollouts): no text is right"
    if any(objective.requirements.sources for objective in counted):
        for source in context.config.sources:
            if not any(context.may_teach(source.name)):
                yield (
                    f"  round {context.number}: {source.name} may teach none of these texts (weighting: "
                    f"{context.weighting.kind}), so that nothing is learned from it"
                )


def _passed(counts: Sequence[RoundTexts]) -> int:
    return sum(each.passed for each in counts)
