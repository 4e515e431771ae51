"""Preferences step by step: answers are paired, read by whoever is asked, and the pivot learns from the pairs."""

from __future__ import annotations

from fusion.runtime.run_file import PairCounts
from fusion.stages.context import RunContext
from fusion.stages.preferences.context import PreferenceContext
from fusion.stages.preferences.learn import read_answers, refuse_unread
from fusion.stages.preferences.pairs import make_pairs, pair_counts
from fusion.stages.train import train_one


def learn_from_pairs(context: RunContext) -> list[PairCounts]:
    """Pair right answers with wrong ones, let them be read, and train the pivot as it is by then; how many pairs there were."""
    last = PreferenceContext.of(context)
    with context.record.stage("preferences: pair") as note:
        note["skipped"] = not make_pairs(last)
    for name in last.readers:
        with context.record.stage(f"preferences: {name} reads") as note:
            note["skipped"] = not read_answers(last, name)
    refuse_unread(last)
    with context.record.stage("preferences: train") as note:
        note["skipped"] = not train_one(last, "unified", [], [], title="preferences")
    return pair_counts(last)
