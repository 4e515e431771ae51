"""A weighting beside the sources, the domains and the objectives."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from fusion.config.conflicts.choices import Choices
from fusion.weighting import ALL_DOMAINS, AnyWeighting, Learned, Product, RandomSource


def named_sources_both_count(chosen: Choices) -> Iterator[str]:
    """A weighting that lets one source count leaves nothing to a term that needs two."""
    for number, objective in enumerate(chosen.objectives):
        needed = len(objective.requirements.source_names)
        if needed > 1 and (picky := picks_one(chosen.weighting)):
            yield (
                f"objectives[{number}] ({objective.kind}) needs {needed} sources at each row, and weighting: "
                f"{picky} lets one count; use another weighting, such as mean"
            )


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


def picks_one(weighting: AnyWeighting) -> str | None:
    """The kind of weighting that gives all weight to one source, if it is one or has one for a factor."""
    return next((each.kind for each in factors(weighting) if each.selects_one_source), None)


def factors(weighting: AnyWeighting) -> Sequence[AnyWeighting]:
    """What a weighting multiplies; itself, if it is no product."""
    return weighting.factors if isinstance(weighting, Product) else [weighting]


WEIGHTING_RULES = (
    named_sources_both_count,
    there_is_a_number_for_each_source,
    a_draw_needs_all_sources,
    every_domain_has_its_shares,
    every_share_has_its_domain,
)
