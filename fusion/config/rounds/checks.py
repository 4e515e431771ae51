"""What the settings of rounds must be besides right one by one; each mistake says its way out."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from fusion.config.data import DataSettings
from fusion.config.rounds.settings import Rounds
from fusion.objectives import AnyObjective, CrossEntropy, GroupReward, PolicyObjective
from fusion.responses import AgreementCheck, AnyCheck, DatasetResponses, FunctionCheck, TestsCheck
from fusion.sources import Imported, Transformers
from fusion.training.adapter import QLoRA

if TYPE_CHECKING:
    from fusion.config.run import Config


def as_a_run(config: Config, rounds: Rounds) -> Config:
    """Return a configuration whose objectives, weighting and training are those of a round, for rules about these."""
    sources = config.sources
    if rounds.learn_from == "pairwise":  # models like the pivot in the sources' places
        plain = {"backend": Transformers(), "transforms": [], "look_ahead": False, "fine_tune": None}
        sources = [source.model_copy(update=plain) for source in sources]
    update = {
        "sources": sources,
        "objectives": rounds.objectives,
        "weighting": rounds.weighting or config.weighting,
        "training": rounds.arguments(config.training),
        "strategies": ["unified"],
        "result": None,
        "rounds": None,
    }
    return config.model_copy(update=update)


def placed(sentence: str, rounds: Rounds) -> str | None:
    """Return what is wrong with such a run, with the places that are those of `rounds`; None where it is about none of them."""
    own = [r"objectives(?=[\[:])"]
    own += [r"weighting(?=[ :])"] if rounds.weighting is not None else []
    own += [rf"training\.(?={re.escape(name)}\b)" for name in rounds.training]
    found, changes = re.subn(rf"(?<![\w.])({'|'.join(own)})", r"rounds.\1", sentence)
    return found if changes else None


def round_mistakes(config: Config, rounds: Rounds) -> Iterator[str]:
    """Yield a sentence for each mistake that is about rounds alone."""
    yield from _objectives(config, rounds)
    yield from _replay(rounds)
    yield from _lengths_and_counts(config, rounds)
    yield from _rollouts(rounds)
    yield from _domain_shares(config, rounds)
    yield from _models(config, rounds)
    yield from _relatives(config, rounds)
    for number, data in enumerate(config.data.train):
        yield from _prompts(f"data.train[{number}]", data, config)
    for number, data in enumerate(config.data.validation):
        yield from _validated(f"data.validation[{number}]", data, config.data.train)


def _objectives(config: Config, rounds: Rounds) -> Iterator[str]:
    counted = [objective.requirements for objective in rounds.objectives if objective.weight]
    for number, objective in enumerate(rounds.objectives):
        if objective.requirements.other_answers:
            yield (
                f"rounds.objectives[{number}] ({objective.kind}) with other_answers looks at other answers to a prompt, and in "
                "rounds sources read what the pivot wrote alone; set other_answers to false there"
            )
    if rounds.weighting is not None and rounds.weighting.missing_shares is not None:
        yield "rounds.weighting: learned finds its shares before the first training; set it as the run's weighting"
    if rounds.weighting is not None and not any(each.sources for each in counted):
        yield (
            f"rounds.weighting ({rounds.weighting.kind}) says how much sources count, and none of rounds.objectives reads "
            "them; leave it out, or add one that does, such as forward_kl"
        )
    rewarded = any(isinstance(each, GroupReward) and each.weight for each in rounds.objectives)
    if not rounds.scale_rewards and not rewarded:
        yield (
            "rounds.scale_rewards is for objectives that read rewards, and none of rounds.objectives does; leave it out, or "
            "add group_reward"
        )
    policy = any(isinstance(each, PolicyObjective) and each.weight for each in rounds.objectives)
    if rounds.max_clip_ratio != Rounds.model_fields["max_clip_ratio"].default and not policy:
        yield (
            "rounds.max_clip_ratio is for objectives that clip, and none of rounds.objectives does; leave it out, or add one, "
            "such as policy_gradient"
        )
    if rounds.num_generations == 1 and rewarded:
        yield (
            "rounds.num_generations is 1, and group_reward compares the answers to a prompt with each other: all its "
            "advantages would be 0. Raise it, or leave out group_reward"
        )


def _replay(rounds: Rounds) -> Iterator[str]:
    """Sources have not read in a round what is replayed, so that only the text itself can be learned from there."""
    counted = [objective for objective in rounds.objectives if objective.weight]
    if rounds.replay and counted and not any(_learns_from_replay(each) for each in counted):
        yield (
            f"rounds.replay is {rounds.replay:g}, and of examples that are replayed none of rounds.objectives learns: set it "
            "to 0, or add cross_entropy, such as {kind: cross_entropy, part: replay, weight: 0.1}"
        )
    for number, objective in enumerate(rounds.objectives):
        if not rounds.replay and isinstance(objective, CrossEntropy) and objective.part == "replay":
            yield (
                f"rounds.objectives[{number}] (cross_entropy) is part: replay, and rounds.replay is 0, so that none is; raise "
                "it, or leave the objective out"
            )


def _learns_from_replay(objective: AnyObjective) -> bool:
    if isinstance(objective, CrossEntropy):
        return objective.part in ("all", "replay")
    return not objective.requirements.sources and not objective.requirements.rollouts


def _lengths_and_counts(config: Config, rounds: Rounds) -> Iterator[str]:
    if rounds.max_completion_length > config.data.max_length:
        yield (
            f"rounds.max_completion_length is {rounds.max_completion_length}, and of a text together with its prompt at most "
            f"data.max_length = {config.data.max_length} tokens are learned from; lower it, or raise data.max_length"
        )
    unvalidated = rounds.validation_generations != Rounds.model_fields["validation_generations"].default
    if unvalidated and not config.data.validation:
        yield (
            "rounds.validation_generations is for validation prompts, and data.validation has none; leave it out, or give it "
            "data sets"
        )


def _domain_shares(config: Config, rounds: Rounds) -> Iterator[str]:
    """A gap is one of several domains, between answers of sources and those of the pivot."""
    domains = list(dict.fromkeys(data.domain for data in config.data.train))
    if rounds.domain_shares == "proportional":
        if rounds.gap_floor != Rounds.model_fields["gap_floor"].default:
            yield "rounds.gap_floor is for domain_shares: gap; leave it out, or set that"
    elif isinstance(config.data.responses, DatasetResponses):
        yield (
            "rounds.domain_shares is gap, which compares how often answers of sources pass with how often the pivot's do, and "
            f"data.responses is {config.data.responses.kind}: no source answers. Set it to proportional, or data.responses to "
            "best_source"
        )
    elif len(domains) == 1:
        yield (
            f"rounds.domain_shares is gap, which divides prompts among domains, and data.train has one, {domains[0]}; leave it "
            "out, or give data sets domains of their own"
        )


def _rollouts(rounds: Rounds) -> Iterator[str]:
    """Each round has a file of its own."""
    if rounds.rollouts is not None and rounds.count > 1 and "{round}" not in rounds.rollouts:
        yield (
            f"rounds.rollouts is {rounds.rollouts}, one file for {rounds.count} rounds; write {{round}} where its number "
            "stands, as in rollouts/{round}.jsonl"
        )


def _models(config: Config, rounds: Rounds) -> Iterator[str]:
    if config.quantization_aware_training is not None:
        yield (
            f"quantization_aware_training.kind {config.quantization_aware_training.kind}: every round would begin with weights "
            "of few bits, without the full ones that were trained behind them; leave it out here, and train the result with it "
            "in a run of its own (pivot.path: the folder fused/ of this one)"
        )
    policy = [objective.kind for objective in rounds.objectives if isinstance(objective, PolicyObjective)]
    if policy and isinstance(config.adapter, QLoRA):
        yield (
            f"rounds.objectives have {policy[0]}, which compares the pivot that is trained with the one that wrote, and "
            "adapter.kind qlora trains on weights of 4 bits while it writes with whole ones; use lora, or objectives that read "
            "sources alone, such as forward_kl"
        )
    if rounds.learn_from == "pairwise" and "pairwise" not in config.strategies:
        yield (
            f"rounds.learn_from is pairwise, and strategies ({', '.join(config.strategies)}) make no pairwise models; add "
            "pairwise there, or set it to sources"
        )
    reads = any(objective.requirements.sources for objective in rounds.objectives if objective.weight)
    if rounds.learn_from == "pairwise" and not reads:
        yield (
            "rounds.learn_from is pairwise, and none of rounds.objectives reads these models; leave it out, or add one that "
            "does, such as forward_kl"
        )
    if reads and rounds.learn_from == "sources":
        for source in config.sources:
            if isinstance(source.backend, Imported):
                yield (
                    f"source {source.name} has backend imported: its rows are those of texts that are there, and in rounds it "
                    "would read what the pivot writes; give it a backend that reads, such as transformers, or leave out rounds"
                )


def _relatives(config: Config, rounds: Rounds) -> Iterator[str]:
    """Weaker relatives are read by somebody, and their folders are no other source's."""
    names = {source.name.casefold() for source in config.sources}
    taken = {"reference"} | {f"{source.name.casefold()}-weaker" for source in config.sources if source.weaker}
    if clash := sorted(names & taken):
        yield f"no source may be called {clash[0]} in a run with rounds, which keep rows under that name; give it another name"
    having = [source.name for source in config.sources if source.weaker is not None]
    counted = [objective.requirements for objective in rounds.objectives if objective.weight]
    if having and rounds.learn_from == "pairwise":
        yield (
            f"sources.{having[0]}.weaker is read beside the source, and with rounds.learn_from: pairwise no source reads; "
            "leave one of them out"
        )
    elif having and not any(each.sources and each.rollouts for each in counted):
        yield (
            f"sources.{having[0]}.weaker is for objectives on a source's signal, and rounds.objectives have none; leave it "
            "out, or add policy_gradient"
        )
    elif lacking := [source.name for source in config.sources if having and source.weaker is None]:
        yield (
            f"sources.{having[0]}.weaker is set, and there is none for {', '.join(lacking)}: a signal over a weaker relative "
            "and one over the pivot are of different sizes, and are not added up. Name a relative for "
            "every source (of one with shots the same model without them: weaker: {}), or for none"
        )


def _prompts(place: str, data: DataSettings, config: Config) -> Iterator[str]:
    if data.as_raw_text or not (data.messages or data.prompt):
        yield f"{place} has no prompts, which the pivot would answer in rounds; leave it out, or rounds"
    if data.check.needs_likelihood or data.check.needs_reference_likelihood:
        yield (
            f"{place}.check {data.check.kind} compares answers of several sources, and in rounds the pivot answers alone; "
            "choose another check, such as final_answer"
        )
    elif isinstance(data.check, AgreementCheck) and isinstance(config.data.responses, DatasetResponses):
        yield (
            f"{place}.check agreement goes by what most sources answer, and data.responses is {config.data.responses.kind}: "
            "none answers. Choose another check, such as final_answer, or set data.responses: best_source"
        )


def _validated(place: str, data: DataSettings, train: Sequence[DataSettings]) -> Iterator[str]:
    """Rounds are compared by answers to validation prompts, which must pass what answers of their domain must in training."""
    of_domain = [each for each in train if each.domain == data.domain]
    checks = [each.check for each in of_domain if each.is_judged] or [each.check for each in of_domain]
    if not checks:
        there = ", ".join(dict.fromkeys(each.domain for each in train))
        yield (
            f"{place}.domain is {data.domain}, and rounds are compared by answers that pass the check of their domain in "
            f"data.train, whose domains are {there}; name one of these, or leave {place} out"
        )
    elif any(check != checks[0] for check in checks):
        other = next(check for check in checks if check != checks[0])
        yield (
            f"{place}: answers to its prompts must pass what those of domain {data.domain} must in data.train, and there are "
            f"different checks ({_difference(checks[0], other)}); give that domain one check, or its data sets domains of "
            "their own"
        )
    else:
        yield from _checked_as_in_training(place, data, checks[0])


def _checked_as_in_training(place: str, data: DataSettings, check: AnyCheck) -> Iterator[str]:
    """What a check needs of validation prompts stands with them, and nothing else does."""
    whose = f"{place}: answers of domain {data.domain} are checked by {check.kind}"
    columns = check.columns if isinstance(check, FunctionCheck) else []
    if data.check not in (DataSettings.model_fields["check"].default, check):
        way_out = "make it the same" if columns else "leave it out"
        yield f"{whose} as data.train says, and {place}.check is another ({_difference(check, data.check)}); {way_out}"
    elif columns and data.check != check:
        yield (
            f"{whose}, which gets the columns {', '.join(columns)}; set {place}.check to the same, so that they are read "
            "there too"
        )
    if isinstance(check, TestsCheck) and data.tests is None:
        yield f'{whose}, and {place}.tests is not set, such as "{{test_list}}"'
    if data.tests is not None and not isinstance(check, TestsCheck):
        yield f"{whose}, which runs no tests; leave out {place}.tests"


def _difference(check: AnyCheck, other: AnyCheck) -> str:
    """Say what two checks do not have in common: their kinds, or the first setting that differs."""
    if check.kind != other.kind:
        return f"{check.kind} and {other.kind}"
    one, two = check.model_dump(), other.model_dump()
    name = next(name for name in one if one[name] != two[name])
    return f"{check.kind} with {name}: {one[name]} and with {name}: {two[name]}"
