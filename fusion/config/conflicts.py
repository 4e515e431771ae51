"""Choices that do not go together, each refused with its reason when the configuration is read.

A rule looks at everything that was chosen and gives one sentence for each offence; `RULES` is the table. What a single type
can tell of itself is checked there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from fusion.objectives import AnyObjective
from fusion.transforms import AnyTransform, MappedTransform, Power, SourceTransform, TopKUniform
from fusion.weighting import ALL_DOMAINS, AnyWeighting, Learned, Product, RandomSource

WHOLE = ("auto", "single", "ddp")
"""Engines that keep the whole model in each process."""


@dataclass(frozen=True)
class Choices:
    """The settings of a run that rules about combinations look at."""

    objectives: Sequence[AnyObjective]
    weighting: AnyWeighting
    transforms: Mapping[str, Sequence[AnyTransform]]
    """Of each source, by name."""
    top_k: int | str
    """Entries that a cache keeps, or `all`."""
    alignment: str
    strategies: Sequence[str]
    domains: Sequence[str] = ()
    """Of the training examples."""
    sampled: bool = False
    """Whether entries are drawn at random."""
    engine: str = "auto"
    adapter: str | None = None
    weightless: Sequence[str] = ()
    """Names of sources whose weights are not here."""
    later_objectives: Sequence[AnyObjective] = ()
    """Those of rounds, which see the same transforms."""

    def placed(self) -> Iterator[tuple[str, AnyTransform]]:
        """Each transform with the place where it stands in the configuration."""
        for source, (name, each) in enumerate(self.transforms.items()):
            for number, transform in enumerate(each):
                yield f"sources[{source}] ({name}).transforms[{number}] ({transform.kind})", transform


def conflicts(chosen: Choices) -> list[str]:
    """One sentence for each pair of choices that do not go together."""
    return [sentence for rule in RULES for sentence in rule(chosen)]


def exact_sums_need_whole_rows(chosen: Choices) -> Iterator[str]:
    """A temperature other than 1 needs the sum over the whole vocabulary, which the largest entries give within bounds."""
    for place, each in [(f"weighting ({chosen.weighting.kind})", chosen.weighting), *chosen.placed()]:
        if each.required_top_k is None and chosen.top_k != "all":
            yield (
                f"{place} with tail: exact sums over whole rows, and extract.top_k keeps {chosen.top_k} entries. From those "
                "the sum is known within bounds only: set tail to the one you accept (single; for a transform also even), "
                "or extract.top_k to all"
            )


def transforms_find_their_entries(chosen: Choices) -> Iterator[str]:
    """A transform may keep no more entries than a cache does."""
    for place, each in chosen.placed():
        if chosen.top_k != "all" and (each.required_top_k or 0) > int(chosen.top_k):
            yield (
                f"{place} reads {each.required_top_k} entries of each row, extract.top_k keeps {chosen.top_k}; raise it "
                "or lower the transform's"
            )


def objectives_find_what_transforms_leave(chosen: Choices) -> Iterator[str]:
    """After a transform that keeps few entries, a term can read no more."""
    for place, each in chosen.placed():
        for number, objective in enumerate(chosen.objectives):
            if isinstance(each, TopKUniform) and _reads_more(objective, each.top_k):
                needed = objective.requirements.source_top_k or "all"
                yield (
                    f"{place} leaves {each.top_k} entries of each row, objectives[{number}] ({objective.kind}) reads {needed}; "
                    "raise the transform's top_k or lower the objective's"
                )


def named_sources_exist(chosen: Choices) -> Iterator[str]:
    """A term that names sources needs them."""
    for number, objective in enumerate(chosen.objectives):
        for name in sorted(objective.requirements.source_names - set(chosen.transforms)):
            there = ", ".join(chosen.transforms)
            yield f"objectives[{number}] ({objective.kind}) names source {name}; the sources are {there}"


def named_sources_are_learned_together(chosen: Choices) -> Iterator[str]:
    """Pairwise training shows a term one source at a time."""
    for number, objective in enumerate(chosen.objectives):
        needed = len(objective.requirements.source_names)
        if needed and "pairwise" in chosen.strategies:
            yield (
                f"objectives[{number}] ({objective.kind}) needs {needed} sources at once, and the strategy "
                "pairwise learns from one at a time; use strategies: [unified]"
            )


def named_sources_both_count(chosen: Choices) -> Iterator[str]:
    """A weighting that lets one source count leaves nothing to a term that needs two."""
    for number, objective in enumerate(chosen.objectives):
        needed = len(objective.requirements.source_names)
        if needed > 1 and (picky := picks_one(chosen.weighting)):
            yield (
                f"objectives[{number}] ({objective.kind}) needs {needed} sources at each row, and weighting: "
                f"{picky} lets one count; use another weighting, such as mean"
            )


def a_change_of_mapped_rows_is_seen(chosen: Choices) -> Iterator[str]:
    """A transform of mapped rows is a mistake where no objective reads mapped rows."""
    if any(objective.requirements.mapped_rows for objective in (*chosen.objectives, *chosen.later_objectives)):
        return
    for place, transform in chosen.placed():
        if isinstance(transform, MappedTransform):
            yield (
                f"{place} changes rows in the pivot's vocabulary, and none of the objectives reads those; add one that "
                "compares by token, such as forward_kl, or remove the transform"
            )


def a_temperature_is_seen(chosen: Choices) -> Iterator[str]:
    """Standardising, or looking at directions or hidden states alone, takes a factor on the logits out again."""
    fusing = [o for o in (*chosen.objectives, *chosen.later_objectives) if o.requirements.sources]
    if not fusing or any(objective.requirements.logit_scale for objective in fusing):
        return
    for place, transform in chosen.placed():
        if isinstance(transform, Power):
            names = " and ".join(sorted({objective.kind for objective in fusing}))
            yield (
                f"{place} is a factor on the logits, which nothing here sees: {names} look at the shape of a row or at "
                "hidden states; remove it or add another term"
            )


def transforms_stand_in_the_order_they_are_done(chosen: Choices) -> Iterator[str]:
    """Those in the source's own vocabulary come before the map, and so before all others."""
    for name, each in chosen.transforms.items():
        own = [isinstance(transform, SourceTransform) for transform in each]
        if own != sorted(own, reverse=True):
            yield (
                f"source {name}: {each[own.index(True, own.index(False))].kind} works in the source's own vocabulary, before "
                f"rows are mapped; list it before {each[own.index(False)].kind}"
            )


def aligned_spans_need_bytes(chosen: Choices) -> Iterator[str]:
    """Other alignments match rows that have not read the same text, so there is no common span between them."""
    for number, objective in enumerate(chosen.objectives):
        if objective.requirements.aligned_spans and chosen.alignment != "prefix":
            yield (
                f"objectives[{number}] ({objective.kind}) compares the text between shared byte boundaries, which alignment: "
                f"{chosen.alignment} does not give; use alignment: prefix"
            )


def sampled_entries_are_read_linearly(chosen: Choices) -> Iterator[str]:
    """Counts are unbiased estimates of probabilities, and stay so only where a term is linear in them."""
    if not chosen.sampled:
        return
    why = (
        "reads ranks, ratios, powers or the largest of a source's entries, and extract.sampling draws them at random; "
        "remove one of them. What stays unbiased: cross_entropy, uskd, span_likelihood, forward_kl (without top_k, select "
        "by the source and tail: residual_to_gold), a mixture of it"
    )
    for number, objective in enumerate(chosen.objectives):
        if objective.requirements.exact_entries:
            yield f"objectives[{number}] ({objective.kind}) {why}"
    if chosen.weighting.exact_entries:
        yield f"weighting ({chosen.weighting.kind}) {why}"
    for place, _ in chosen.placed():
        yield f"{place} {why}; no transform"


def there_is_a_number_for_each_source(chosen: Choices) -> Iterator[str]:
    """Numbers that are listed in the order of the sources."""
    for each in factors(chosen.weighting):
        listed: Mapping[str, Sequence[float]] = {}
        if isinstance(each, RandomSource) and each.probabilities is not None:
            listed = {"probabilities": each.probabilities}
        if isinstance(each, Learned):
            listed = {f"shares.{domain}": numbers for domain, numbers in (each.shares or {}).items()}
        for name, numbers in listed.items():
            if len(numbers) != len(chosen.transforms):
                there = ", ".join(chosen.transforms)
                yield f"weighting ({each.kind}).{name} has {len(numbers)} numbers, one is needed for each of {there}"


def a_draw_needs_all_sources(chosen: Choices) -> Iterator[str]:
    """Pairwise training shows one source at a time, of which a draw would only leave steps out."""
    if "pairwise" in chosen.strategies and any(isinstance(each, RandomSource) for each in factors(chosen.weighting)):
        yield (
            "weighting: random_source draws among all sources, and the strategy pairwise learns from one at a time; use "
            "strategies: [unified], or another weighting"
        )


def every_domain_has_its_shares(chosen: Choices) -> Iterator[str]:
    """Shares that are given are given for all that is learned from."""
    for each in factors(chosen.weighting):
        if isinstance(each, Learned) and each.shares is not None and ALL_DOMAINS not in each.shares:
            for domain in sorted(set(chosen.domains) - set(each.shares)):
                yield f"weighting (learned).shares has none for domain {domain}; add them, or `{ALL_DOMAINS}` for all others"


def every_share_has_its_domain(chosen: Choices) -> Iterator[str]:
    """Shares of a domain that nothing is learned from would do nothing."""
    for each in factors(chosen.weighting):
        if isinstance(each, Learned) and each.shares is not None:
            for domain in sorted(each.shares.keys() - {*chosen.domains, ALL_DOMAINS}):
                there = ", ".join(dict.fromkeys(chosen.domains))
                yield f"weighting (learned).shares names domain {domain}; the domains of data.train are {there}"


def some_term_counts(chosen: Choices) -> Iterator[str]:
    """Without a term that counts there is no loss."""
    if not any(objective.weight for objective in chosen.objectives):
        yield "objectives: every weight is 0, so nothing would be learned; give one more than 0"


def trained_modules_need_the_whole_model(chosen: Choices) -> Iterator[str]:
    """A term's own modules are trained and saved as part of a model that each process holds whole."""
    for number, objective in enumerate(chosen.objectives):
        if not objective.requirements.trains_module:
            continue
        what = f"objectives[{number}] ({objective.kind}) trains a module of its own beside the pivot"
        if chosen.engine not in WHOLE:
            yield f"{what}, which engine.kind {chosen.engine} does not; use {', '.join(WHOLE)}"
        if chosen.adapter:
            yield f"{what}, which checkpoints with adapter: {chosen.adapter} do not keep; leave out the adapter or the term"


def output_layers_come_with_weights(chosen: Choices) -> Iterator[str]:
    """A term that is made from a source's output layer needs its weights."""
    for number, objective in enumerate(chosen.objectives):
        if objective.requirements.output_layer == "source":
            for name in chosen.weightless:
                yield (
                    f"objectives[{number}] ({objective.kind}) with head: source reads the output layer of source {name}, whose "
                    "weights are not here; set head to a file with a basis or to cache, or give the source backend transformers"
                )


def output_layers_are_recovered_from_whole_rows(chosen: Choices) -> Iterator[str]:
    """Which ids the largest entries are differs from row to row, so they span no common space."""
    for number, objective in enumerate(chosen.objectives):
        if objective.requirements.output_layer == "cache" and chosen.top_k != "all":
            yield (
                f"objectives[{number}] ({objective.kind}) with head: cache recovers a source's output layer from whole rows, "
                f"and extract.top_k keeps {chosen.top_k} entries of each; set it to all, or head to source"
            )


def _reads_more(objective: AnyObjective, top_k: int) -> bool:
    needed = objective.requirements.source_top_k
    return needed is None or needed > top_k


def picks_one(weighting: AnyWeighting) -> str | None:
    """The kind of weighting that gives all weight to one source, if it is one or has one for a factor."""
    return next((each.kind for each in factors(weighting) if each.selects_one_source), None)


def factors(weighting: AnyWeighting) -> Sequence[AnyWeighting]:
    """What a weighting multiplies; itself, if it is no product."""
    return weighting.factors if isinstance(weighting, Product) else [weighting]


RULES: tuple[Callable[[Choices], Iterator[str]], ...] = (
    exact_sums_need_whole_rows,
    transforms_find_their_entries,
    objectives_find_what_transforms_leave,
    named_sources_exist,
    named_sources_are_learned_together,
    named_sources_both_count,
    a_change_of_mapped_rows_is_seen,
    a_temperature_is_seen,
    transforms_stand_in_the_order_they_are_done,
    aligned_spans_need_bytes,
    sampled_entries_are_read_linearly,
    there_is_a_number_for_each_source,
    a_draw_needs_all_sources,
    every_domain_has_its_shares,
    every_share_has_its_domain,
    some_term_counts,
    trained_modules_need_the_whole_model,
    output_layers_come_with_weights,
    output_layers_are_recovered_from_whole_rows,
)
