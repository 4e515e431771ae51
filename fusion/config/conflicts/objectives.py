"""Objectives beside sources, alignment, entries drawn at random, engine and output layers."""

from __future__ import annotations

from collections.abc import Iterator

from fusion.config.conflicts.choices import Choices

WHOLE = ("auto", "single", "ddp")
"""Engines that keep the whole model in each process."""


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


OBJECTIVE_RULES = (
    named_sources_exist,
    named_sources_are_learned_together,
    aligned_spans_need_bytes,
    sampled_entries_are_read_linearly,
    some_term_counts,
    trained_modules_need_the_whole_model,
    output_layers_come_with_weights,
    output_layers_are_recovered_from_whole_rows,
)
