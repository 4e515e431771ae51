"""Stages in which a model reads texts into its cache, or writes answers: what one takes."""

from __future__ import annotations

import math
from dataclasses import replace

from fusion.cache import sampled_entries
from fusion.cache.codec import bytes_per_row
from fusion.config import Extract
from fusion.plan import memory
from fusion.plan.estimates import BYTES_PER_NUMBER, Planner, StageEstimate
from fusion.plan.flops import Counts, forward_flops
from fusion.plan.response_costs import generation_memory


def extraction_stage(planner: Planner, stage: str, name: str) -> StageEstimate:
    """The model `name` reads all examples, and its rows are cached."""
    extract, counts, vocabulary = planner.config.extract, planner.counts(name, once=True), planner.vocabulary(name)
    width = planner.sizes[name].hidden_size if extract.hidden_states and name != "pivot" else 0
    disk = round(counts.rows * _row(extract, name == "pivot", vocabulary, width))
    found = StageEstimate(stage, counts.examples, counts.tokens, disk=disk)
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


def writing_stage(planner: Planner, stage: str, name: str, counts: Counts) -> StageEstimate:
    """The model `name` writes answers, or says how likely it finds those of others."""
    extract, size = planner.config.extract, planner.sizes[name]
    at_once = max(extract.batch_tokens, counts.longest)
    memory_estimate = generation_memory(
        size, at_once, BYTES_PER_NUMBER[extract.resolved_dtype], planner.read_logits(name)
    )
    disk = 4 * counts.rows  # about so many bytes of text a token
    return StageEstimate(
        stage, counts.examples, counts.tokens, disk=disk, memory=memory_estimate, flops=forward_flops(size, counts)
    )


def _row(extract: Extract, pivot: bool, vocabulary: int, width: int) -> float:
    """Bytes that a row takes, with `width` numbers of hidden state.

    Of entries drawn at random, the share of different ones is the paper's: 12 of 50 (a guess here).
    """
    if extract.sampling is not None and not pivot:
        different = min(vocabulary, math.ceil(extract.sampling.draws * 12 / 50))
        return bytes_per_row(0, extract.resolved_value_format, vocabulary, width) + sampled_entries.bytes_per_row(
            different, vocabulary
        )
    k = 1 if pivot else vocabulary if extract.top_k == "all" else min(extract.top_k, vocabulary)
    return float(bytes_per_row(k, extract.resolved_value_format, vocabulary, width))
