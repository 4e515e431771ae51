"""Preference objectives against a slow float64 loop, TRL's loss, and what must not change."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from pydantic import TypeAdapter, ValidationError

from fusion.objectives import DPO, OBJECTIVES, WRPO, AnyObjective, InfiFPO, PreferenceObjective
from fusion.objectives.preference.answers import answer_logprobs
from tests.helpers import tiny
from tests.helpers.preferences import PAIRS, answers, preference_inputs, preferences, two_sources
from tests.helpers.rows import rows_of

EXAMPLES = [
    DPO(),
    DPO(beta=2.0, label_smoothing=0.1, length="tokens"),
    DPO(beta=20.0, length="bytes"),
    WRPO(beta=0.3),
    WRPO(beta=2.0, alpha=0.7, length="tokens", label_smoothing=0.2),
    InfiFPO(),
    InfiFPO(clip=False),
    InfiFPO(fusion="mean", length="bytes"),
    InfiFPO(beta=0.1, fusion="mean", clip=False, length="none"),
    InfiFPO(source_length="own_tokens"),
]
every = pytest.mark.parametrize("objective", EXAMPLES, ids=repr)


def values(objective, pivot=None, known=None):
    inputs = preference_inputs(answers() if pivot is None else pivot, preferences() if known is None else known)
    objective.check_answers(inputs)
    return objective(answer_logprobs(inputs))


def slow(objective, pivot, known):
    """One value after the other, from the formulas of the papers."""
    found = []
    for pair, (chosen, rejected) in enumerate(zip(known.chosen.tolist(), known.rejected.tolist(), strict=True)):

        def divided(logprob, answer, own=None):
            tokens = int((pivot.example == answer).sum())
            by = {"none": 1, "tokens": tokens if own is None else own, "bytes": int(known.num_bytes[answer])}
            return float(logprob) / by[objective.length]

        def now(answer):
            return divided(sum(pivot.gold[pivot.example == answer].tolist()), answer)

        def before(answer):
            return divided(known.reference_logprobs[answer], answer)

        def fused(answer, right):
            said = []
            for name, logprobs in known.source_logprobs.items():
                own = int(known.source_tokens[name][answer]) if objective.source_length == "own_tokens" else None
                value = divided(logprobs[answer], answer, own)
                if objective.clip:
                    value = max(value, before(answer)) if right else min(value, before(answer))
                said.append(value)
            if objective.fusion == "mean":
                return sum(said) / len(said)
            return max(said, key=lambda value: abs(value - before(answer)))

        if objective.kind == "infifpo":
            margin = now(chosen) - fused(chosen, True) - (now(rejected) - fused(rejected, False))
        else:
            reward = {answer: now(answer) - before(answer) for answer in range(len(known.num_bytes))}
            right = reward[chosen]
            if objective.kind == "wrpo":
                right = objective.alpha * reward[int(known.source_chosen[pair])] + (1 - objective.alpha) * right
            margin = right - reward[rejected]
        z, eps = objective.beta * margin, objective.label_smoothing
        found.append((1 - eps) * math.log1p(math.exp(-z)) + eps * math.log1p(math.exp(z)))
    return torch.tensor(found, dtype=torch.float64)


def test_every_preference_objective_is_tried():
    listed = {kind for kind in OBJECTIVES if issubclass(kind, PreferenceObjective)}
    assert {type(objective) for objective in EXAMPLES} == listed
    assert len(listed) == 3


@every
def test_the_values_are_those_of_the_definition(objective):
    pivot, known = answers(), preferences()
    torch.testing.assert_close(values(objective, pivot, known), slow(objective, pivot, known))


@every
def test_the_gradient_agrees_with_finite_differences(objective):
    pivot = answers()

    def loss(gold):
        return values(objective, dataclasses.replace(pivot, gold=gold))

    assert torch.autograd.gradcheck(loss, pivot.gold.detach().requires_grad_(), fast_mode=True)


@every
def test_swapping_right_and_wrong_flips_the_sign_of_the_margin(objective):
    plain = objective
    if objective.kind == "wrpo":
        plain = objective.model_copy(update={"alpha": 0.0})  # the source's answer is on the right side alone
    if objective.kind == "infifpo":
        plain = objective.model_copy(update={"clip": False})  # clipping knows which answer is the right one
    known = preferences()
    swapped = dataclasses.replace(known, chosen=known.rejected, rejected=known.chosen)
    there, back = (plain.rewards(answer_logprobs(preference_inputs(answers(), each))) for each in (known, swapped))
    torch.testing.assert_close(there[0] - there[1], back[1] - back[0])
    assert (there[0] - there[1]).abs().min() > 1e-3


@every
def test_the_order_of_pairs_answers_and_sources_changes_nothing(objective):
    pivot, known = answers(), preferences()
    found, order = values(objective, pivot, known), torch.tensor([2, 0, 1])
    pairs = {name: getattr(known, name)[order] for name in ("chosen", "rejected", "source_chosen")}
    sources = dict(reversed(list(known.source_logprobs.items())))
    moved = dataclasses.replace(known, **pairs, source_logprobs=sources)
    torch.testing.assert_close(values(objective, pivot, moved), found[order])


def test_a_source_with_other_tokens_says_the_same_where_it_finds_the_answers_as_likely():
    known = preferences()
    other = dataclasses.replace(known, source_tokens={name: each * 3 + 1 for name, each in known.source_tokens.items()})
    for objective in (InfiFPO(), InfiFPO(length="bytes"), InfiFPO(clip=False, fusion="mean", length="none")):
        assert torch.equal(values(objective, known=known), values(objective, known=other))
    own = InfiFPO(source_length="own_tokens")
    assert not torch.equal(values(own, known=known), values(own, known=other))


@every
def test_before_the_first_step_dpo_is_log_two_and_so_is_infifpo_where_sources_are_the_pivot(objective):
    pivot = answers()
    now = answer_logprobs(preference_inputs(pivot, preferences())).pivot.detach()
    tokens = torch.bincount(pivot.example)
    itself = preferences(
        {"itself": now, "again": now}, reference_logprobs=now, source_tokens={"itself": tokens, "again": tokens}
    )
    expected = torch.full((3,), math.log(2), dtype=torch.float64)
    torch.testing.assert_close(values(objective, pivot, itself), expected)


def test_with_one_source_that_is_the_reference_infifpo_is_dpo():
    known = preferences()
    alone = preferences({"itself": known.reference_logprobs})
    for length in ("none", "tokens", "bytes"):
        dpo, infifpo = DPO(beta=0.7, length=length), InfiFPO(beta=0.7, length=length)
        torch.testing.assert_close(values(infifpo, known=alone), values(dpo, known=known))


def test_a_source_that_knows_less_than_the_pivot_teaches_nothing():
    known = preferences()
    right = torch.tensor([0.0, 1.0, 0.0, 1.0, 1.0], dtype=torch.float64)
    worse = known.reference_logprobs + torch.where(right == 0, -4.0, 4.0)
    plain, clipped = preferences({}, source_logprobs={"worse": worse}), InfiFPO(beta=0.7)
    torch.testing.assert_close(values(clipped, known=plain), values(DPO(beta=0.7, length="tokens"), known=known))
    unclipped = InfiFPO(beta=0.7, clip=False)
    assert not torch.allclose(values(unclipped, known=plain), values(clipped, known=plain))


def test_wrpo_without_a_share_of_the_source_is_dpo_and_its_share_grows_by_step():
    known = preferences()
    torch.testing.assert_close(values(WRPO(beta=0.5, alpha=0.0)), values(DPO(beta=0.5)))
    growing = WRPO(beta=0.5, alpha=0.4, alpha_steps=10)
    for step, alpha in ((0, 0.0), (5, 0.2), (10, 0.4), (30, 0.4)):
        (term,) = growing.terms(preference_inputs(answers(), known, step))
        expected = values(WRPO(beta=0.5, alpha=alpha)).sum()
        torch.testing.assert_close(term.total, expected)


@every
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_gradients_are_finite_and_values_are_float32_whatever_the_rows(objective, dtype):
    for scale in (1.0, 300.0):
        pivot = answers(dtype)
        pivot = dataclasses.replace(pivot, gold=pivot.gold.detach().mul(scale).requires_grad_())
        found = values(objective, pivot)
        found.sum().backward()
        assert found.dtype == torch.float32
        assert found.isfinite().all()
        assert pivot.gold.grad.isfinite().all()


@every
def test_the_log_has_the_margin_and_the_share_of_pairs_in_which_it_is_positive(objective):
    (term,) = objective.terms(preference_inputs(answers(), preferences()))
    kind = objective.kind
    assert objective.counts(preference_inputs(answers(), preferences()).targets) == {kind: 3}
    logged = {name: each.total.item() for name, each in term.metrics.items()}
    assert logged[f"{kind}/margins"] == pytest.approx(logged[f"{kind}/chosen"] - logged[f"{kind}/rejected"])
    assert logged[f"{kind}/accuracies"] in (0, 1, 2, 3)
    assert {each.count for each in term.metrics.values()} == {kind}


@every
def test_settings_survive_being_written_down_and_read(objective):
    assert TypeAdapter(AnyObjective).validate_python(objective.model_dump()) == objective
    described = {name: field.description for name, field in type(objective).model_fields.items() if name != "kind"}
    assert all(described.values()), described


def test_what_is_not_known_is_refused_with_the_answer():
    pivot = answers()
    with pytest.raises(ValueError, match="no pairs of a right and a wrong answer"):
        list(DPO().terms(preference_inputs(pivot, None)))
    unknown = preferences(reference_logprobs=torch.tensor([-1.0, -2.0, torch.nan, -3.0, -4.0]))
    with pytest.raises(ValueError, match=r"1 of 5 answers .* before it learned from preferences.* example e2 \(nan\)"):
        list(DPO().terms(preference_inputs(pivot, unknown)))
    blind = two_sources() | {"writer": torch.tensor([-1.0, -torch.inf, -1.0, -1.0, -1.0])}
    with pytest.raises(ValueError, match="source writer, the first of them example e1"):
        list(InfiFPO().terms(preference_inputs(pivot, preferences(blind))))
    with pytest.raises(ValueError, match="source_logprobs` is empty"):
        list(InfiFPO().terms(preference_inputs(pivot, preferences({}))))
    with pytest.raises(ValueError, match="no right one of a source"):
        list(WRPO().terms(preference_inputs(pivot, preferences(source_chosen=None))))
    with pytest.raises(ValidationError, match="set length to tokens, or source_length to same"):
        InfiFPO(length="bytes", source_length="own_tokens")


TEXTS = {
    "prompt": ["the lazy"] * 2,
    "chosen": [" dog", " fox 12"],
    "rejected": [" café", " is 42 as well"],
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny.folder("llama", tmp_path_factory.mktemp("dpo") / "pivot", padding=0)


@pytest.mark.parametrize(("loss_type", "length", "beta"), [("sigmoid", "none", 0.3), ("sigmoid_norm", "tokens", 3.0)])
def test_dpo_is_the_loss_of_trl_with_its_gradient(folder, tmp_path, loss_type, length, beta):
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import DPOConfig, DPOTrainer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    moved = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    with torch.no_grad():
        for weight in moved.parameters():
            weight += 0.02 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(1))
    shared = {"use_cpu": True, "bf16": False, "report_to": [], "per_device_train_batch_size": 2}
    trainer = DPOTrainer(
        model=moved,
        ref_model=model,
        processing_class=tokenizer,
        args=DPOConfig(output_dir=str(tmp_path), loss_type=[loss_type], beta=beta, **shared),
        train_dataset=Dataset.from_dict(TEXTS),
    )
    batch = next(iter(trainer.get_train_dataloader()))
    trainer.model.eval()
    loss = trainer.compute_loss(trainer.model, dict(batch))
    loss.backward()
    theirs = {name: weight.grad.clone() for name, weight in moved.named_parameters() if weight.grad is not None}
    moved.zero_grad()
    term = ours(moved, model, batch, DPO(beta=beta, length=length))
    term.backward()
    assert term.item() == pytest.approx(loss.item(), rel=1e-5)
    for name, weight in moved.named_parameters():
        torch.testing.assert_close(weight.grad, theirs[name], rtol=1e-3, atol=1e-5)


def ours(model, reference, batch, objective):
    """Our mean over the pairs of TRL's batch, which holds all right answers before all wrong ones."""
    ids, mask = batch["input_ids"], batch["completion_mask"].bool()[:, 1:]
    pairs = len(ids) // 2

    def logprobs(of):
        return of(input_ids=ids, attention_mask=batch["attention_mask"]).logits[:, :-1].log_softmax(-1)

    token = ids[:, 1:][mask]
    example = torch.arange(len(ids))[:, None].expand_as(mask)[mask]
    before = rows_of(logprobs(reference)[mask].detach(), 0, token, example).gold
    pivot = rows_of(logprobs(model)[mask], 0, token, example)
    known = preferences(
        {},
        source_tokens={},
        source_chosen=None,
        chosen=torch.arange(pairs),
        rejected=torch.arange(pairs) + pairs,
        reference_logprobs=torch.zeros(len(ids)).index_add(0, example, before),
        num_bytes=torch.ones(len(ids), dtype=torch.long),
    )
    return objective(answer_logprobs(preference_inputs(pivot, known))).mean()


def test_pairs_share_answers():
    assert len({answer for pair in PAIRS for answer in pair}) < 2 * len(PAIRS)
