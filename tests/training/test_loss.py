"""What the trainer makes of every objective on real batches: finite terms, and what must not change them."""

import dataclasses
import json

import pytest
import torch

from fusion import pipeline
from fusion.models.head import Head, hidden_states
from fusion.objectives import (
    Confident,
    CrossEntropy,
    ForwardKL,
    InfiFusion,
    KnowsMore,
    Mixture,
    PolicyGradient,
    SourcewiseObjective,
    SpanLikelihood,
)
from fusion.stages import train
from fusion.stages.context import RunContext
from fusion.stages.lineage import lineage
from fusion.training import TrainingCollator
from fusion.training.auxiliary_modules import build_modules
from fusion.training.fit import training_arguments
from fusion.training.trainer import FusionTrainer
from fusion.transforms import LogitSwap, Power
from fusion.weighting import GoldPosterior, Learned, MaxMargin, Mean, RandomSource, Sum
from tests.helpers import runs, tiny
from tests.helpers.contract import EXAMPLES
from tests.helpers.rollouts import as_rollouts

FUSED = list({o.kind: o for o in EXAMPLES if o.requirements.source_top_k is not None}.values())
every_objective = pytest.mark.parametrize("objective", FUSED, ids=repr)


@pytest.fixture(scope="module")
def context(tmp_path_factory):
    folder = tmp_path_factory.mktemp("terms")
    context = RunContext(runs.config(folder, extract=runs.raw(folder)["extract"] | {"hidden_states": True}))
    context.record.update(**lineage(context))
    return context


@pytest.fixture(scope="module")
def sources(context):
    caches = pipeline.extract(context)
    found = [train.training_source(context, name, cache) for name, cache in caches.items() if name != "pivot"]
    return [dataclasses.replace(each, read_hidden=True) for each in found]


@pytest.fixture(scope="module")
def trainer(context, sources, tmp_path_factory):
    model = tiny.AutoModelForCausalLM.from_pretrained(context.config.pivot.path)
    vocabulary = max(context.tokenizers["pivot"].get_vocab().values()) + 1
    made = FusionTrainer(
        model=model,
        args=training_arguments({"report_to": []}, tmp_path_factory.mktemp("trainer"), 0),
        train_dataset=range(len(context.train_examples)),
        head=Head.from_model(model, vocabulary),
        objectives=[],
    )
    width = model.config.hidden_size
    made.build = lambda objectives: build_modules(objectives, sources, width, dtype="float32", seed=0)
    return made


def batch(context, sources, numbers=range(8), weighting=None):
    collator = TrainingCollator(context.train_examples, context.encoded("pivot"), sources, weighting or GoldPosterior())
    made = collator(numbers)
    return made | {"targets": as_rollouts(made["targets"])}


@pytest.mark.parametrize("weighting", [Learned(shares={"*": [0.5, 0.5]}), RandomSource()], ids=lambda each: each.kind)
def test_plain_fine_tuning_weighs_nothing_whatever_the_weighting(context, weighting):
    collator = TrainingCollator(context.train_examples, context.encoded("pivot"), [], weighting)
    targets = collator([0, 1])["targets"]
    assert collator.at_step(targets, 0) is targets


def terms(trainer, given, objectives, hidden=None, counts=None):
    """Values of the terms by name, and the gradient at the hidden states."""
    trainer.loss = dataclasses.replace(trainer.loss, objectives=objectives, modules=trainer.build(objectives))
    inputs = {name: value for name, value in given.items() if name != "targets"}
    hidden = (hidden_states(trainer.model, **inputs) if hidden is None else hidden).detach().requires_grad_()
    found = trainer.loss(hidden, given["targets"], counts or trainer.loss.counts(given["targets"]))
    sum((term.weight * term.mean for term in found), torch.zeros(())).backward()
    return {term.name: term.mean.item() for term in found}, hidden.grad


@every_objective
def test_every_term_is_finite_and_teaches(context, sources, trainer, objective):
    found, gradient = terms(trainer, batch(context, sources), [objective])
    count = len(sources) if isinstance(objective, SourcewiseObjective | PolicyGradient) else 1
    assert len(found) == count
    assert all(value == value and abs(value) < 1e6 for value in found.values())
    assert gradient.isfinite().all()
    assert gradient.abs().max() > 0


@every_objective
def test_the_number_of_rows_computed_at_once_changes_nothing(context, sources, trainer, objective):
    given = batch(context, sources)
    whole, gradient = terms(trainer, given, [objective])
    before = trainer.loss
    trainer.loss = dataclasses.replace(before, head=dataclasses.replace(before.head, chunk=7))
    chunked, other = terms(trainer, given, [objective])
    trainer.loss = before
    assert chunked == pytest.approx(whole, rel=1e-4, abs=1e-7)
    torch.testing.assert_close(other, gradient, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("objective", [o for o in FUSED if not o.requirements.whole_batch], ids=repr)
def test_micro_batches_with_shared_denominators_add_up_to_the_whole_batch(context, sources, trainer, objective):
    parts = [batch(context, sources, numbers) for numbers in (range(8), range(8, 11), range(11, 16))]
    loss = dataclasses.replace(trainer.loss, objectives=[objective])
    counts = [loss.counts(part["targets"]) for part in parts]
    total = {name: sum(count[name] for count in counts) for name in counts[0]}
    each = [terms(trainer, part, [objective], counts=total)[0] for part in parts]
    whole, _ = terms(trainer, batch(context, sources, range(16)), [objective])
    assert {name: sum(part[name] for part in each) for name in whole} == pytest.approx(whole, rel=1e-4, abs=1e-7)


@every_objective
def test_the_order_of_sources_and_of_examples_changes_no_term(context, sources, trainer, objective):
    forward, _ = terms(trainer, batch(context, sources), [objective])
    backward, _ = terms(trainer, batch(context, sources[::-1], list(range(8))[::-1]), [objective])
    assert backward == pytest.approx(forward, rel=1e-3, abs=1e-6)


@every_objective
def test_a_term_means_the_same_alone_and_among_others(context, sources, trainer, objective):
    given = batch(context, sources)
    alone, _ = terms(trainer, given, [objective])
    others = [CrossEntropy(), InfiFusion(), ForwardKL(), SpanLikelihood(), Mixture()]
    among, _ = terms(trainer, given, [*[other for other in others if other.kind != objective.kind], objective])
    assert {name: among[name] for name in alone} == pytest.approx(alone, rel=1e-4, abs=1e-7)


@every_objective
def test_positions_without_rows_contribute_nothing(context, sources, trainer, objective):
    """Hidden states of prompts and padding may be anything, NaN even, and get no gradient."""
    given = batch(context, sources)
    inputs = {name: value for name, value in given.items() if name != "targets"}
    hidden = hidden_states(trainer.model, **inputs).detach()
    used = torch.zeros(hidden.shape[:2], dtype=torch.bool).flatten()
    used[given["targets"].hidden_index] = True
    poisoned = hidden.flatten(0, 1).masked_fill(~used[:, None], torch.nan).view_as(hidden)
    clean, _ = terms(trainer, given, [objective], hidden)
    found, gradient = terms(trainer, given, [objective], poisoned)
    assert found == pytest.approx(clean)
    assert gradient.flatten(0, 1)[~used].abs().max() == 0


def test_a_source_weighted_zero_contributes_nothing_to_any_term(context, sources, trainer):
    given = batch(context, sources)
    targets = given["targets"]
    silent = dataclasses.replace(targets.sources["qwen"], weight=torch.zeros_like(targets.sources["qwen"].weight))
    muted = dataclasses.replace(targets, sources=targets.sources | {"qwen": silent})
    found, _ = terms(trainer, given | {"targets": muted}, [o for o in FUSED if isinstance(o, SourcewiseObjective)][:6])
    assert all(value == 0 for name, value in found.items() if name.endswith("/qwen"))
    mixed, _ = terms(trainer, given | {"targets": muted}, [Mixture()])
    alone = dataclasses.replace(targets, sources={"neox": targets.sources["neox"]})
    counts = dataclasses.replace(trainer.loss, objectives=[Mixture()]).counts(targets)
    known, _ = terms(trainer, given | {"targets": alone}, [Mixture()], counts=counts)
    assert mixed == pytest.approx(known, rel=1e-4)


def test_spans_use_rows_that_no_source_matches(context, sources, trainer):
    given = batch(context, sources, weighting=Mean())
    targets, matched = given["targets"], torch.zeros(len(given["targets"].positions), dtype=torch.bool)
    for source in targets.sources.values():
        matched[source.pairs.pivot] = True
    assert not matched.all()
    _, gradient = terms(trainer, given, [SpanLikelihood()])
    reached = gradient.flatten(0, 1)[targets.hidden_index].abs().sum(-1) > 0
    assert reached[~matched].any()
    assert reached[matched].float().mean() > 0.9


def test_rows_where_nobody_is_sure_are_left_out_and_stay_in_the_denominator(context, sources, trainer):
    given = batch(context, sources, weighting=Mean())
    for kind in (ForwardKL, InfiFusion):
        every, _ = terms(trainer, given, [kind()])
        loosest, _ = terms(trainer, given, [kind(select=Confident(threshold=1e-9))])
        strictest, _ = terms(trainer, given, [kind(select=Confident(threshold=1.0))])
        assert loosest == pytest.approx(every)
        assert all(value == 0 for value in strictest.values())
        known, _ = terms(trainer, given, [kind(select=KnowsMore())])
        assert all(0 < known[name] < value for name, value in every.items())


def remaining(trainer, given, *others):
    """What each row counts in a cross-entropy with the remaining weight: from its gradient by the rows' values."""
    hidden = hidden_states(trainer.model, **{n: v for n, v in given.items() if n != "targets"}).detach()
    targets, rows = given["targets"], []
    every = [CrossEntropy(use_remaining_weight=True), *others]
    trainer.loss = dataclasses.replace(trainer.loss, objectives=every, modules=trainer.build([]))
    counts = trainer.loss.counts(targets)
    original = CrossEntropy.__call__

    def kept(self, pivot):
        rows.append(original(self, pivot).detach().requires_grad_())
        return rows[0]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(CrossEntropy, "__call__", kept)
        mean = next(term.mean for term in trainer.loss(hidden, targets, counts) if term.name == "cross_entropy")
    return torch.autograd.grad(mean, rows[0])[0] * counts["rows"]


def test_the_remaining_weight_is_all_where_no_other_term_counts(context, sources, trainer):
    given = batch(context, sources, weighting=Mean())
    assert torch.equal(remaining(trainer, given), torch.ones(len(given["targets"].positions)))
    silent = ForwardKL(weight=0.8, select=Confident(threshold=1.0))
    assert torch.equal(remaining(trainer, given, silent), torch.ones(len(given["targets"].positions)))
    plain, _ = terms(trainer, given, [CrossEntropy()])
    every, _ = terms(trainer, given, [CrossEntropy(use_remaining_weight=True), silent])
    assert every["cross_entropy"] == plain["cross_entropy"]


@pytest.mark.parametrize("other", [ForwardKL(weight=0.8), InfiFusion(weight=0.5), SpanLikelihood(weight=0.8)], ids=repr)
def test_the_remaining_weight_is_what_other_terms_and_their_sources_leave_of_each_row(context, sources, trainer, other):
    given = batch(context, sources)
    targets, expected = given["targets"], torch.ones(len(given["targets"].positions))
    for source in targets.sources.values():
        if isinstance(other, SpanLikelihood):
            for row, span in enumerate(source.spans.pivot_span.tolist()):
                expected[row] -= other.weight * source.weight[source.spans.pair[span]] if span >= 0 else 0
        else:
            pairs = zip(source.pairs.pivot.tolist(), source.weight.tolist(), strict=True)
            kept = (
                set(source.pivot_index.tolist()) if isinstance(other, ForwardKL) else set(source.pairs.pivot.tolist())
            )
            for row, weight in pairs:
                expected[row] -= other.weight * weight if row in kept else 0
    found = remaining(trainer, given, other)
    torch.testing.assert_close(found, expected.clamp(min=0))
    assert found.min() < 1 - 0.9 * other.weight
    assert found.max() == 1


def test_two_terms_leave_less_and_never_less_than_nothing(context, sources, trainer):
    given = batch(context, sources)
    one, both = (remaining(trainer, given, *([ForwardKL(weight=0.4)] * n)) for n in (1, 2))
    torch.testing.assert_close(1 - both, 2 * (1 - one))
    mixed = remaining(trainer, given, Mixture(weight=0.8))
    torch.testing.assert_close(mixed, both)
    every = batch(context, sources, weighting=Sum())
    assert remaining(trainer, every, ForwardKL(weight=0.8)).min() == 0


def test_transforms_change_the_rows_that_objectives_see_and_no_weight(context, sources):
    plain = batch(context, sources)["targets"].sources["qwen"]
    changed = [dataclasses.replace(each, transforms=[Power(gamma=0.5, tail="even"), LogitSwap()]) for each in sources]
    source = batch(context, changed)["targets"].sources["qwen"]
    assert torch.equal(source.weight, plain.weight)
    ratio = plain.rows.logprobs[:, :1] - plain.rows.logprobs
    torch.testing.assert_close(source.rows.logprobs[:, :1] - source.rows.logprobs, ratio / 2, atol=1e-4, rtol=1e-4)
    first = source.mapped.ids.gather(1, source.mapped.logprobs.argmax(-1, keepdim=True))[:, 0]
    known = ~source.mapped.pivot_token_logprob.isnan()
    assert known.float().mean() > 0.5
    assert torch.equal(first[known], source.mapped.token[known])
    before = plain.mapped.ids.gather(1, plain.mapped.logprobs.argmax(-1, keepdim=True))[:, 0]
    assert not torch.equal(before[known], plain.mapped.token[known])


def test_transformed_rows_train(context, sources, trainer):
    changed = [dataclasses.replace(each, transforms=[LogitSwap()]) for each in sources]
    objectives = [ForwardKL(), Mixture(), InfiFusion()]
    found, gradient = terms(trainer, batch(context, changed), objectives)
    plain, _ = terms(trainer, batch(context, sources), objectives)
    assert gradient.isfinite().all()
    assert {name for name in found if found[name] != pytest.approx(plain[name])} == {
        "forward_kl/neox", "forward_kl/qwen", "mixture",
    }  # fmt: skip


def test_max_margin_compares_with_what_the_pivot_said_before_training(context, sources):
    collator = TrainingCollator(
        context.train_examples,
        context.encoded("pivot"),
        sources,
        MaxMargin(),
        pivot_cache=pipeline.extract(context)["pivot"],
    )
    sources = collator(range(8))["targets"].sources
    for e in range(8):
        weights = [source.weight[source.rows.example[source.pairs.source] == e] for source in sources.values()]
        assert sorted(weight.mean().item() for weight in weights) == [0.0, 1.0]
    with pytest.raises(ValueError, match="max_margin compares sources with the pivot"):
        dataclasses.replace(collator, pivot_cache=None)(range(8))


def test_a_run_may_learn_from_its_own_pivot_with_swapped_logits_and_a_product_of_weightings(tmp_path):
    raw = runs.raw(tmp_path)
    itself = {"name": "itself", "path": raw["pivot"]["path"], "transforms": [{"kind": "logit_swap"}]}
    factors = [{"kind": "max_margin"}, {"kind": "token_scaled"}]
    config = runs.config(
        tmp_path,
        sources=[*raw["sources"], itself],
        weighting={"kind": "product", "factors": factors},
        objectives=[{"kind": "forward_kl"}, {"kind": "span_likelihood"}, {"kind": "mixture"}],
        training=raw["training"] | {"max_steps": 2},
    )
    pipeline.run(config, until="train")
    log = (config.folder / "train/unified/log.json").read_text()
    for name in ("forward_kl/itself", "span_likelihood/neox", "mixture", "weight/itself"):
        assert name in log


def test_inspect_shows_how_each_source_rescales_the_examples(context, sources):
    from fusion.analysis import rescaling_by_source

    found = rescaling_by_source(context, share=0.5)
    assert list(found) == ["neox", "qwen"]
    for entries in found.values():
        assert {entry.domain for entry in entries} == {"d0", "d1"}
        assert all(entry.rows > 0 and entry.tenth <= entry.median <= entry.ninetieth <= 1 for entry in entries)
    assert all(entry.median == 1 for entries in rescaling_by_source(context, share=0.0).values() for entry in entries)


def test_a_run_matches_tokens_by_their_spelling(tmp_path):
    raw = runs.raw(tmp_path)
    config = runs.config(
        tmp_path, objectives=[{"kind": "hungarian"}], training=raw["training"] | {"max_steps": 2}, baseline=False
    )
    pipeline.run(config, until="train")
    log = json.loads((config.folder / "train/unified/log.json").read_text())
    assert all(0 < entry["loss/hungarian/qwen"] < 1e6 for entry in log)


def test_two_sources_with_the_pivots_tokenizer_are_composed(tmp_path):
    raw = runs.raw(tmp_path)
    sources = [
        {"name": n, "path": str(tiny.folder("llama", tmp_path / n, seed))} for seed, n in ((7, "dpo"), (8, "rev"))
    ]
    objectives = [{"kind": "cross_entropy"}, {"kind": "aligndistil", "expert": "dpo", "opposite": "rev", "weight": 0.1}]
    whole = {"top_k": "all", "value_format": "float32", "shard_size": 5, "batch_tokens": 256}
    config = runs.config(
        tmp_path, sources=sources, objectives=objectives, extract=whole, training=raw["training"] | {"max_steps": 2}
    )
    pipeline.run(config, until="train")
    log = json.loads((config.folder / "train/unified/log.json").read_text())
    assert all(0 < entry["loss/aligndistil"] < 1e6 for entry in log)
