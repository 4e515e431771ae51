"""An objective of a new kind, written outside the package, trains without an edit in the loss or the collator.

It reads what no kind of ours reads: pairs of neighbouring matched rows, of which it asks for the same change of confidence.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator

import pytest
import torch

from fusion import pipeline
from fusion.objectives import BatchTargets, CrossEntropy, Objective, ObjectiveInputs, Requirements, Term
from fusion.stages.context import RunContext
from fusion.stages.train import training_source
from fusion.training import TrainingCollator
from fusion.training.fit import TrainingSpec, train
from fusion.weighting import Mean
from tests.helpers import runs


class SameChange(Objective):
    """Squared difference of how much the log-probability of the text changes from one matched row to the next."""

    kind: str = "same_change"

    @property
    def required_top_k(self) -> int | None:
        return 0

    @property
    def required_source_fields(self) -> frozenset[str]:
        return frozenset({"gold"})

    @property
    def requirements(self) -> Requirements:
        return dataclasses.replace(super().requirements, exact_entries=False)

    def counts(self, targets: BatchTargets) -> dict[str, int]:
        return {f"{self.kind}/{name}": max(0, len(s.pairs) - 1) for name, s in targets.sources.items()}

    def terms(self, inputs: ObjectiveInputs) -> Iterator[Term]:
        for name, source in inputs.targets.sources.items():
            pivot, rows = inputs.pivot.gold[source.pairs.pivot], source.rows.gold[source.pairs.source]
            values = source.weight[1:] * (pivot.diff() - rows.diff()).square()
            row_weight = torch.zeros(len(inputs.pivot)).index_put((source.pairs.pivot[1:],), source.weight[1:])
            yield Term(f"{self.kind}/{name}", values.sum(), row_weight)


@pytest.fixture(scope="module")
def context(tmp_path_factory):
    context = RunContext(runs.config(tmp_path_factory.mktemp("outside")))
    pipeline.run(context.config, until="extract")
    return context


def trained(context, folder, objectives, **arguments):
    sources = [
        training_source(context, name, cache) for name, cache in pipeline.extract(context).items() if name != "pivot"
    ]
    collator = TrainingCollator(context.train_examples, context.encoded("pivot"), sources, Mean())
    given = {
        "max_steps": 3,
        "per_device_train_batch_size": 8,
        "learning_rate": 1e-2,
        "report_to": [],
        "save_strategy": "no",
    }
    spec = TrainingSpec(
        context.config.pivot.ref, context.tokenizers["pivot"], collator, objectives, given | arguments, 0, "float32"
    )
    train(spec, folder)
    return json.loads((folder / "log.json").read_text())


def test_it_trains_beside_ours_and_is_logged_by_its_name(context, tmp_path):
    log = trained(context, tmp_path / "a", [CrossEntropy(weight=0.5), SameChange(weight=0.5)])
    for entry in log:
        assert entry["loss/same_change/neox"] > 0
        parts = [entry["loss/cross_entropy"], entry["loss/same_change/neox"], entry["loss/same_change/qwen"]]
        assert entry["loss"] == pytest.approx(0.5 * sum(parts), rel=1e-5)
    alone = trained(context, tmp_path / "b", [SameChange()])
    assert sum(alone[-1][f"loss/same_change/{n}"] for n in ("neox", "qwen")) < sum(
        alone[0][f"loss/same_change/{n}"] for n in ("neox", "qwen")
    )


def test_its_denominators_count_all_micro_batches(context, tmp_path):
    whole = trained(context, tmp_path / "a", [SameChange()], per_device_train_batch_size=16, max_steps=1)
    parts = trained(
        context,
        tmp_path / "b",
        [SameChange()],
        per_device_train_batch_size=8,
        gradient_accumulation_steps=2,
        max_steps=1,
    )
    # a neighbour in the next micro-batch is lost: two pairs of some eighty
    assert parts[0]["loss"] == pytest.approx(whole[0]["loss"], rel=0.1)


def test_what_it_counts_is_taken_from_the_text(context, tmp_path):
    rest = [CrossEntropy(use_remaining_weight=True), SameChange(weight=0.9)]
    both, text = (
        trained(context, tmp_path / "a", rest, max_steps=1),
        trained(context, tmp_path / "b", [CrossEntropy()], max_steps=1),
    )
    assert both[0]["loss/cross_entropy"] < 0.9 * text[0]["loss/cross_entropy"]
