"""The trainer against plain fine-tuning, against transformers' own loss, and against what must not change a step."""

import dataclasses

import pytest
import torch
from transformers import Trainer

from fusion import pipeline
from fusion.config import plain_fine_tuning
from fusion.core.rows import Positions
from fusion.data.batching import pad_texts
from fusion.models.head import Head
from fusion.objectives import GLD, CrossEntropy, ForwardKL, InfiFusion, PolicyGradient
from fusion.stages import train
from fusion.stages.context import RunContext
from fusion.stages.lineage import lineage
from fusion.training import TrainingCollator
from fusion.training.fit import training_arguments
from fusion.training.trainer import FusionTrainer
from fusion.weighting import GoldPosterior
from tests.helpers import runs, tiny
from tests.helpers.rollouts import as_rollouts


@pytest.fixture(scope="module")
def context(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trainer")
    context = RunContext(runs.config(folder))
    context.record.update(**lineage(context))
    return context


@pytest.fixture(scope="module")
def sources(context):
    caches = pipeline.extract(context)
    return [train.training_source(context, name, cache) for name, cache in caches.items() if name != "pivot"]


def collator(context, sources):
    return TrainingCollator(context.train_examples, context.encoded("pivot"), sources, context.config.weighting)


def trainer(context, sources, objectives, tmp_path, kind=FusionTrainer, **arguments):
    model = tiny.AutoModelForCausalLM.from_pretrained(context.config.pivot.path)
    given = {"max_steps": 3, "per_device_train_batch_size": 8, "learning_rate": 1e-2, "report_to": [], **arguments}
    shared = {
        "model": model,
        "args": training_arguments(given, tmp_path, 0),
        "train_dataset": range(len(context.train_examples)),
        "data_collator": collator(context, sources),
    }
    if kind is FusionTrainer:
        vocabulary = max(context.tokenizers["pivot"].get_vocab().values()) + 1
        shared |= {"head": Head.from_model(model, vocabulary), "objectives": objectives}
    return kind(**shared)


def weights(*args, **kwargs):
    made = trainer(*args, **kwargs)
    made.train()
    return {name: weight.detach().clone() for name, weight in made.model.named_parameters()}, made.state.log_history


def test_all_fusion_weights_at_zero_are_plain_fine_tuning_to_the_bit(context, sources, tmp_path):
    silent = [CrossEntropy(weight=1.0), InfiFusion(weight=0.0), GLD(weight=0.0), ForwardKL(weight=0.0)]
    fused, _ = weights(context, sources, silent, tmp_path)
    plain, _ = weights(context, [], plain_fine_tuning(), tmp_path)
    assert all(torch.equal(fused[name], weight) for name, weight in plain.items())


def test_a_fusion_term_with_any_weight_is_not_plain_fine_tuning(context, sources, tmp_path):
    for objective in (InfiFusion(weight=1e-3), GLD(weight=1e-3), ForwardKL(weight=1e-3)):
        fused, _ = weights(context, sources, [CrossEntropy(), objective], tmp_path)
        plain, _ = weights(context, [], plain_fine_tuning(), tmp_path)
        assert not all(torch.equal(fused[name], weight) for name, weight in plain.items())


@pytest.mark.parametrize("line", [None, 60])
def test_mixed_precision_trains_about_as_float32_does(context, sources, tmp_path, line):
    _, whole = weights(context, sources, [CrossEntropy(), ForwardKL()], tmp_path)
    made = trainer(context, sources, [CrossEntropy(), ForwardKL()], tmp_path, bf16=True)
    made.data_collator = dataclasses.replace(made.data_collator, line_length=line)
    made.train()
    for entry, expected in zip(made.state.log_history[:3], whole[:3], strict=True):
        assert entry["loss"] == pytest.approx(expected["loss"], rel=0.02)
        assert entry["loss"] != expected["loss"]


def test_cross_entropy_trains_as_transformers_own_loss_does(context, tmp_path):
    """Same batches, labels shifted by transformers, and the ids of padded heads masked by hand."""
    texts = context.encoded("pivot")

    def labelled(numbers):
        inputs, _, _ = pad_texts([texts[n] for n in numbers], "cpu")
        labels = inputs["input_ids"].clone()
        labels[inputs["attention_mask"] == 0] = -100
        for b, n in enumerate(numbers):
            labels[b, : texts[n].start] = -100
        return {**inputs, "labels": labels}

    theirs = trainer(context, [], [], tmp_path, Trainer)
    theirs.data_collator = labelled
    head = theirs.model.get_output_embeddings()
    vocabulary = max(context.tokenizers["pivot"].get_vocab().values()) + 1
    head.register_forward_hook(lambda _m, _i, out: out.index_fill(-1, torch.arange(vocabulary, out.shape[-1]), -1e9))
    theirs.train()
    ours, log = weights(context, [], plain_fine_tuning(), tmp_path)
    for entry, other in zip(log[:-1], theirs.state.log_history[:-1], strict=True):
        assert entry["loss"] == pytest.approx(other["loss"], rel=1e-4)
    for name, weight in theirs.model.named_parameters():
        torch.testing.assert_close(ours[name], weight.detach(), atol=2e-4, rtol=1e-3)


EVERYTHING = [CrossEntropy(weight=0.5), InfiFusion(weight=0.2), GLD(weight=0.1), ForwardKL(weight=0.3)]


def test_the_number_of_micro_batches_does_not_change_the_step(context, sources, tmp_path):
    _, log = weights(context, sources, EVERYTHING, tmp_path, per_device_train_batch_size=16, max_steps=1)
    _, other = weights(
        context, sources, EVERYTHING, tmp_path,
        per_device_train_batch_size=4, gradient_accumulation_steps=4, max_steps=1,
    )  # fmt: skip
    sampled = {
        "entropy",
        "calibration/confidence",
        "calibration/accuracy",
    }  # of some rows a micro-batch, for the log alone
    assert sampled < log[0].keys()
    for name in log[0].keys() & other[0].keys() - {"epoch"} - sampled:
        assert log[0][name] == pytest.approx(other[0][name], rel=1e-4), name
    assert log[0]["loss"] > 0


class OwnTexts(TrainingCollator):
    """A collator of texts that the pivot wrote, all but those of the first domain."""

    def __call__(self, numbers):
        made = super().__call__(numbers)
        targets = as_rollouts(made["targets"])
        examples = [info._replace(part="replay" if info.domain == "d0" else "rollouts") for info in targets.examples]
        return made | {"targets": dataclasses.replace(targets, examples=examples)}


def test_what_objectives_log_are_means_over_the_whole_step(context, sources, tmp_path):
    """Micro-batches hold different numbers of rollouts; what each adds to the log counts by its tokens."""
    objectives, logs = [PolicyGradient(beta=0.1), CrossEntropy(part="replay")], []
    for size, steps in ((16, 1), (3, 6)):
        made = trainer(
            context, sources, objectives, tmp_path,
            per_device_train_batch_size=size, gradient_accumulation_steps=steps, max_steps=1,
        )  # fmt: skip
        made.data_collator = OwnTexts(**vars(made.data_collator))
        made.train()
        logs.append({name: each for name, each in made.state.log_history[0].items() if "/" in name})
    whole, parts = logs
    sampled = {"calibration/confidence", "calibration/accuracy"}
    names = {"ratio", "clip_ratio", "kl_old", "kl", "comparable/qwen", "comparable/neox", "signal/qwen", "signal/neox"}
    assert {f"policy_gradient/{name}" for name in names} < whole.keys() == parts.keys()
    for name in whole.keys() - sampled:
        assert parts[name] == pytest.approx(whole[name], rel=1e-4), name
    assert 0 < whole["policy_gradient/clip_ratio"] < 1
    targets = made.data_collator(range(16))["targets"]
    own = targets.is_row_of(lambda info: info.part == "rollouts")
    inside = targets.sources["neox"].spans.pivot_span >= 0
    share = (own & inside).sum().item() / own.sum().item()
    assert 0.3 < share < 1
    assert whole["policy_gradient/comparable/neox"] == pytest.approx(share)


@pytest.mark.parametrize("batch", [(16, 1), (4, 4)])
def test_entropy_confidence_and_accuracy_in_the_log_are_those_of_the_models_predictions(
    context, sources, tmp_path, monkeypatch, batch
):
    monkeypatch.setattr("fusion.training.trainer.PROBED_ROWS", 10_000)  # all rows
    assert len(context.train_examples) == 16  # one step reads all of them
    made = trainer(
        context, sources, EVERYTHING, tmp_path,
        per_device_train_batch_size=batch[0], gradient_accumulation_steps=batch[1], max_steps=1,
    )  # fmt: skip
    texts = collator(context, sources)(range(16))
    hidden, targets = tiny_hidden(made, texts).detach().flatten(0, 1), texts["targets"]
    p = made.loss.head.logits(hidden[targets.hidden_index]).double().softmax(-1)
    made.train()
    log = made.state.log_history[0]
    assert log["entropy"] == pytest.approx(-(p * p.log()).sum(-1).mean().item(), rel=1e-4)
    assert log["calibration/confidence"] == pytest.approx(p.amax(-1).mean().item(), rel=1e-4)
    right = (p.argmax(-1) == targets.positions.token).double().mean().item()
    assert log["calibration/accuracy"] == pytest.approx(right, rel=1e-4)


def test_gradient_checkpointing_does_not_change_the_step(context, sources, tmp_path):
    plain, log = weights(context, sources, EVERYTHING, tmp_path)
    again, other = weights(context, sources, EVERYTHING, tmp_path, gradient_checkpointing=True)
    assert [entry["loss"] for entry in log[:-1]] == [entry["loss"] for entry in other[:-1]]
    assert all(torch.equal(weight, again[name]) for name, weight in plain.items())


def test_unified_with_equal_sources_adds_them_up(context, sources, tmp_path):
    """(1 - lambda) SFT + S lambda pair: a sum over sources, not their mean."""
    made = trainer(context, sources, EVERYTHING, tmp_path)
    twins = [dataclasses.replace(sources[0], name=name) for name in "abc"]
    objectives = [CrossEntropy(weight=0.9), InfiFusion(weight=0.1)]
    alone, three = (loss_of(made, context, chosen, objectives) for chosen in (twins[:1], twins))
    sft, pair = alone["cross_entropy"], alone["infifusion/a"]
    assert pair > 0.1
    assert three["total"] == pytest.approx(0.9 * sft + 3 * 0.1 * pair, rel=1e-5)


def loss_of(made, context, sources, objectives):
    made.loss = dataclasses.replace(made.loss, objectives=objectives)
    batch = collator(context, sources)(range(8))
    hidden = tiny_hidden(made, batch)
    terms = made.loss(hidden, batch["targets"], made.loss.counts(batch["targets"]))
    found = {term.name: term.mean.item() for term in terms}
    return found | {"total": sum(term.weight * term.mean.item() for term in terms)}


def tiny_hidden(made, batch):
    from fusion.models.head import hidden_states

    return hidden_states(made.model, input_ids=batch["input_ids"], attention_mask=batch["attention_mask"])


def test_prompts_and_padding_contribute_nothing(context, sources, tmp_path):
    """Hidden states at positions without rows may be anything, NaN even, and get no gradient."""
    made = trainer(context, sources, EVERYTHING, tmp_path)
    batch = collator(context, sources)(range(8))
    hidden = tiny_hidden(made, batch).detach()
    used = torch.zeros(hidden.shape[:2], dtype=torch.bool).flatten()
    used[batch["targets"].hidden_index] = True
    poisoned = hidden.flatten(0, 1).masked_fill(~used[:, None], torch.nan).view_as(hidden).requires_grad_()
    terms = made.loss(poisoned, batch["targets"], made.loss.counts(batch["targets"]))
    total = sum(term.weight * term.mean for term in terms)
    total.backward()
    assert total.isfinite()
    gradient = poisoned.grad.flatten(0, 1)
    assert gradient[~used].abs().max() == 0
    assert gradient[used].isfinite().all()
    assert (gradient[used].abs().sum(-1) > 0).float().mean() > 0.9


def test_a_source_learned_alone_counts_as_it_does_among_the_others(context, sources):
    everyone = TrainingCollator(context.train_examples, context.encoded("pivot"), sources, GoldPosterior())
    alone = dataclasses.replace(everyone, learn_from=["qwen"])
    together, single = everyone(range(8))["targets"].sources, alone(range(8))["targets"].sources
    assert list(single) == ["qwen"]
    assert torch.equal(single["qwen"].weight, together["qwen"].weight)
    assert 0 < single["qwen"].weight.mean() < 1


def test_a_batch_pairs_rows_of_the_same_text(context, sources):
    targets = collator(context, sources)([3, 1, 7])["targets"]
    for source in targets.sources.values():
        pivot, theirs = targets.positions.select(source.pairs.pivot), source.rows.select(source.pairs.source)
        assert torch.equal(pivot.prefix, theirs.prefix)
        assert torch.equal(pivot.example, theirs.example)
        assert len(source.pairs) >= 6
    assert isinstance(targets.positions, Positions)


def test_mixed_precision_is_that_of_the_models_own_loss_also_in_the_output_layer(context, sources, tmp_path):
    head = trainer(context, sources, [CrossEntropy()], tmp_path, bf16=True).loss.head
    logits = head.logits(torch.randn(3, head.module.weight.shape[1]))
    assert logits.equal(logits.bfloat16().float())


def test_fp16_without_a_gpu_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"training\.fp16 needs a GPU.*Set training\.bf16"):
        training_arguments({"fp16": True}, tmp_path, 0)


def test_trainer_itself_removes_no_checkpoint_and_two_are_left(context, sources, tmp_path, monkeypatch):
    limits = []
    monkeypatch.setattr(
        "transformers.trainer.rotate_checkpoints", lambda **given: limits.append(given["save_total_limit"])
    )
    trainer(context, sources, [CrossEntropy()], tmp_path, save_strategy="steps", save_steps=1).train()
    assert limits == [None] * 3
    assert sorted(place.name for place in tmp_path.glob("checkpoint-*")) == ["checkpoint-2", "checkpoint-3"]
