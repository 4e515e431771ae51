"""FusionMixin in transformers' Trainer and TRL's SFTTrainer: the loss is that of a run, whatever the batches are split into."""

from typing import Literal

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, Trainer, TrainingArguments

import fusion
from fusion.models.head import Head
from fusion.objectives import CrossEntropy, ForwardKL, GroupReward, HiddenProjector, InfiFusion, MappedObjective
from fusion.training.fit import training_arguments
from fusion.training.trainer import FusionTrainer
from fusion.weighting import Eligibility, GoldPosterior, Learned, MaxMargin, Product, RandomSource
from tests.helpers import tiny

ROWS = [
    {"prompt": f"how much is {a} + {b}?", "response": f"it is {a + b}, and the lazy dog jumps over it."}
    for a, b in [(1, 2), (30, 12), (7, 6), (5, 5), (9, 14), (22, 3), (8, 80), (4, 44)]
]
STEPS = {"max_steps": 3, "per_device_train_batch_size": 2, "gradient_accumulation_steps": 2, "learning_rate": 1e-2}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trainers")
    tiny.folder("llama", folder / "pivot", padding=0)
    tiny.folder("gpt_neox", folder / "source")
    return folder


@pytest.fixture(scope="module")
def cache(place):
    return fusion.extract(place / "source", ROWS, top_k=5, folder=place / "cache")


@pytest.fixture
def collator(place, cache):
    return fusion.FusionCollator(place / "pivot", ROWS, {"one": cache}, {"one": place / "source"})


@pytest.mark.parametrize(("weighting", "message"), [
    (Product(factors=[GoldPosterior(), Eligibility()]), "product asks which sources answered each prompt rightly; fusion.run"),
    (MaxMargin(), "max_margin reads what the pivot said before training; fusion.run has that"),
    (Learned(), "learned finds its shares on validation text; fusion.run has that. Here give it shares"),
    ({"kind": "learned"}, "learned finds its shares"),
    (RandomSource(), "random_source draws anew at each step of a training; fusion.run has that"),
    (Product(factors=[GoldPosterior(), RandomSource()]), "product draws anew at each step"),
])  # fmt: skip
def test_what_only_a_run_knows_is_refused_as_a_weighting(place, cache, weighting, message):
    with pytest.raises(ValueError, match=message):
        fusion.FusionCollator(place / "pivot", ROWS, {"one": cache}, {"one": place / "source"}, weighting=weighting)


def test_shares_that_are_given_are_taken(place, cache):
    shares = Learned(shares={"*": [0.25]})
    one = fusion.FusionCollator(place / "pivot", ROWS, {"one": cache}, {"one": place / "source"}, weighting=shares)
    weight = one([0, 1])["targets"].sources["one"].weight
    assert len(weight) > 0
    assert (weight == 0.25).all()


def test_rows_of_another_collator_are_refused_instead_of_read_as_its_own(place, cache, collator):
    """A trainer gives the rows of its evaluation to the collator of its training: by number alone they would be other texts."""
    given = {"one": cache}, {"one": place / "source"}
    other = fusion.FusionCollator(place / "pivot", ROWS[2:], *given)
    assert collator(list(collator.dataset().select([5, 1])))["input_ids"].shape[0] == 2
    with pytest.raises(ValueError, match="row with number 0 is not of this collator's dataset"):
        collator([other.dataset()[0]])
    with pytest.raises(ValueError, match="row with number 7 is not of this collator's dataset"):
        other([collator.dataset()[7]])
    with pytest.raises(ValueError, match="row with number 0"):
        collator([other.dataset().with_format("torch")[0]])


def test_rows_that_a_trainer_has_cut_are_said_to_be_cut(place, collator, tmp_path):
    """SFTTrainer cuts what it is not told to leave as it is; other rows that begin alike are none of its doing."""
    trl = pytest.importorskip("trl")
    args = arguments(trl.SFTConfig, tmp_path, bf16=False, max_length=8)
    trainer = mixed(trl.SFTTrainer, place, collator, args, TERMS)
    with pytest.raises(ValueError, match=r"first 8 tokens of \d+: .*skip_prepare_dataset.*FusionCollator max_length=8"):
        trainer.train()
    row = collator.dataset()[0]
    with pytest.raises(ValueError, match="row with number 0 is not of this collator's dataset"):
        collator([row | {"input_ids": [*row["input_ids"], 5]}])
    with pytest.raises(ValueError, match="row with number 0 is not of this collator's dataset"):
        collator([row | {"input_ids": []}])


def arguments(kind, out, **more):
    shared = STEPS | {"report_to": [], "use_cpu": True, "remove_unused_columns": False, "logging_steps": 1}
    return kind(output_dir=str(out), save_strategy="no", disable_tqdm=True, seed=0, **shared | more)


def pivot_of(place):
    return AutoModelForCausalLM.from_pretrained(place / "pivot", dtype=torch.float32)


def head_alone(place):
    model = pivot_of(place)
    for weight in model.parameters():
        weight.requires_grad_(weight is model.lm_head.weight)
    return model


def mixed(base, place, collator, args, objectives, model=None, **more):
    class Mixed(fusion.FusionMixin, base):
        pass

    return Mixed(
        model=model or pivot_of(place), args=args, objectives=objectives, train_dataset=collator.dataset(),
        data_collator=collator, processing_class=AutoTokenizer.from_pretrained(place / "pivot"), **more,
    )  # fmt: skip


def of(base, place, collator, out, **more):
    """What `mixed` takes first, for transformers' trainer or TRL's, which is told to leave encoded texts as they are."""
    if base == "Trainer":
        return Trainer, place, collator, arguments(TrainingArguments, out, **more)
    trl = pytest.importorskip("trl")
    plain = {"bf16": False, "loss_type": "nll", "gradient_checkpointing": False}
    args = arguments(trl.SFTConfig, out, dataset_kwargs={"skip_prepare_dataset": True}, **plain | more)
    return trl.SFTTrainer, place, collator, args


def history(trainer):
    trainer.train()
    return [entry for entry in trainer.state.log_history if "loss" in entry]


@pytest.fixture(scope="module")
def expected(place, cache, tmp_path_factory):
    """Losses and weights of the trainer that a run uses, with cross-entropy as one of its terms."""
    collator = fusion.FusionCollator(place / "pivot", ROWS, {"one": cache}, {"one": place / "source"})
    return as_a_run(collator, pivot_of(place), tmp_path_factory.mktemp("run"))


def as_a_run(collator, model, folder):
    trainer = FusionTrainer(
        model=model, head=Head.from_model(model, model.config.vocab_size),
        objectives=[CrossEntropy(), ForwardKL(weight=0.5), InfiFusion(weight=0.1, top_k=5)],
        args=training_arguments(STEPS | {"report_to": [], "save_strategy": "no"}, folder, 0),
        train_dataset=range(len(ROWS)), data_collator=collator._batches,
    )  # fmt: skip
    return history(trainer), trainer.model.state_dict()


TERMS = [ForwardKL(weight=0.5), InfiFusion(weight=0.1, top_k=5)]
NAMES = ("fusion/forward_kl/one", "fusion/infifusion/one")


def assert_same(trainer, expected):
    losses, weights = expected
    found = history(trainer)
    assert len(found) == len(losses) == 3
    for entry, other in zip(found, losses, strict=True):
        assert entry["loss"] == pytest.approx(other["loss"], rel=1e-5)
        assert entry["fusion/forward_kl/one"] == pytest.approx(other["loss/forward_kl/one"], rel=1e-5)
        assert entry["fusion/infifusion/one"] == pytest.approx(other["loss/infifusion/one"], rel=1e-5)
    for name, weight in trainer.model.state_dict().items():
        torch.testing.assert_close(weight, weights[name], rtol=1e-4, atol=1e-4)


def test_a_trainer_with_the_mixin_learns_what_a_run_learns(place, collator, expected, tmp_path):
    assert_same(mixed(Trainer, place, collator, arguments(TrainingArguments, tmp_path), TERMS), expected)


def test_workers_and_evaluation_in_between_change_nothing(place, collator, expected, tmp_path):
    args = arguments(
        TrainingArguments,
        tmp_path,
        dataloader_num_workers=2,
        eval_strategy="steps",
        eval_steps=1,
        label_names=["labels"],
    )
    trainer = mixed(Trainer, place, collator, args, TERMS, eval_dataset=collator.dataset())
    assert_same(trainer, expected)
    assert len([entry for entry in trainer.state.log_history if "eval_loss" in entry]) == 3


def test_trls_sft_trainer_with_two_workers_accumulation_and_evaluation_learns_what_a_run_learns(
    place, collator, expected, tmp_path
):
    trl = pytest.importorskip("trl")
    args = arguments(
        trl.SFTConfig, tmp_path, dataloader_num_workers=2, eval_strategy="steps", eval_steps=1, loss_type="nll",
        gradient_checkpointing=False, bf16=False, dataset_kwargs={"skip_prepare_dataset": True}, max_grad_norm=1.0,
        lr_scheduler_type="linear", logging_first_step=False,
    )  # fmt: skip
    trainer = mixed(trl.SFTTrainer, place, collator, args, TERMS, eval_dataset=collator.dataset())
    assert_same(trainer, expected)


def cross_entropy(outputs, labels, num_items_in_batch=None):
    logits = outputs.logits[:, :-1].flatten(0, 1)
    sums = torch.nn.functional.cross_entropy(logits, labels[:, 1:].flatten(), ignore_index=-100, reduction="sum")
    return sums / num_items_in_batch


@pytest.mark.parametrize("base", ["Trainer", "SFTTrainer"])
def test_a_loss_function_of_ones_own_changes_no_term(place, collator, expected, tmp_path, base):
    """TRL runs the model a second time then, without gradients, for what it logs."""
    trainer = mixed(*of(base, place, collator, tmp_path), TERMS, compute_loss_func=cross_entropy)
    assert_same(trainer, expected)


def test_label_smoothing_of_trl_learns_what_that_of_transformers_learns(place, collator, tmp_path):
    one, other = (
        mixed(*of(base, place, collator, tmp_path / base, label_smoothing_factor=0.1), TERMS)
        for base in ("Trainer", "SFTTrainer")
    )
    losses, found = history(one), history(other)
    assert [entry["loss"] for entry in found] == pytest.approx([entry["loss"] for entry in losses], rel=1e-5)
    for name in NAMES:
        assert [entry[name] for entry in found] == pytest.approx([entry[name] for entry in losses], rel=1e-5)
    for name, weight in other.model.state_dict().items():
        torch.testing.assert_close(weight, one.model.state_dict()[name], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("base", ["Trainer", "SFTTrainer"])
def test_the_output_layer_alone_learns_what_it_learns_in_a_run(place, collator, tmp_path, base):
    """The states below it have no gradient then, and the terms have one all the same."""
    before = pivot_of(place).state_dict()
    losses, weights = as_a_run(collator, head_alone(place), tmp_path / "run")
    assert [name for name in weights if not torch.equal(weights[name], before[name])] == ["lm_head.weight"]
    assert_same(mixed(*of(base, place, collator, tmp_path), TERMS, model=head_alone(place)), (losses, weights))


def test_an_adapter_on_the_output_layer_alone_is_trained_by_the_terms(place, collator, expected, tmp_path):
    peft = pytest.importorskip("peft")
    model = peft.get_peft_model(pivot_of(place), peft.LoraConfig(target_modules=["lm_head"], task_type="CAUSAL_LM"))
    trainer = mixed(*of("Trainer", place, collator, tmp_path), TERMS, model=model)
    found = history(trainer)
    assert found[0]["fusion/forward_kl/one"] == pytest.approx(expected[0][0]["loss/forward_kl/one"], rel=1e-5)
    assert found[2]["fusion/forward_kl/one"] != pytest.approx(expected[0][0]["loss/forward_kl/one"], rel=1e-3)


def test_a_trainer_that_never_has_gradients_is_refused(place, collator, tmp_path):
    class Blind(Trainer):
        def compute_loss(self, *args, **kwargs):
            with torch.no_grad():
                return super().compute_loss(*args, **kwargs)

    trainer = mixed(Blind, place, collator, arguments(TrainingArguments, tmp_path), TERMS)
    with pytest.raises(ValueError, match="ran the model without gradients alone, so that no term could be learned"):
        trainer.train()
    frozen = pivot_of(place).requires_grad_(False)
    trainer = mixed(Trainer, place, collator, arguments(TrainingArguments, tmp_path), TERMS, model=frozen)
    with pytest.raises(ValueError, match="No weight that the logits depend on is trained"):
        trainer.train()


def test_what_is_logged_after_a_checkpoint_is_what_would_have_been_logged(place, collator, tmp_path):
    args = arguments(TrainingArguments, tmp_path, max_steps=4).set_save(strategy="steps", steps=2)
    whole = history(mixed(Trainer, place, collator, args, TERMS))
    again = mixed(Trainer, place, collator, args, TERMS)
    again.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
    found = [entry for entry in again.state.log_history if "loss" in entry]
    assert [entry["step"] for entry in found] == [1, 2, 3, 4]
    for name in NAMES:
        assert [entry[name] for entry in found[2:]] == pytest.approx([entry[name] for entry in whole[2:]], rel=1e-5)


def test_a_second_training_logs_its_own_steps_alone(place, collator, tmp_path):
    """Nothing is learned at a rate of 0, so that both see the same; the last step of the first was never logged."""
    args = arguments(TrainingArguments, tmp_path, learning_rate=0.0, logging_steps=2)
    trainer = mixed(Trainer, place, collator, args, TERMS)
    first, second = history(trainer), history(trainer)
    assert [entry["step"] for entry in first] == [entry["step"] for entry in second] == [2]
    for name in NAMES:
        assert second[0][name] == pytest.approx(first[0][name], rel=1e-6)


def test_an_adapter_of_peft_begins_with_the_same_loss_and_alone_is_trained(place, collator, expected, tmp_path):
    """An adapter is nothing before its first step, so losses and terms of that step are those of the whole model."""
    trl, peft = pytest.importorskip("trl"), pytest.importorskip("peft")
    args = arguments(
        trl.SFTConfig, tmp_path, max_steps=1, bf16=False, loss_type="nll", dataset_kwargs={"skip_prepare_dataset": True}
    )
    config = peft.LoraConfig(target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM")
    trainer = mixed(trl.SFTTrainer, place, collator, args, TERMS, peft_config=config)
    (entry,) = history(trainer)
    assert entry["loss"] == pytest.approx(expected[0][0]["loss"], rel=1e-5)
    assert entry["fusion/forward_kl/one"] == pytest.approx(expected[0][0]["loss/forward_kl/one"], rel=1e-5)
    trained = [name for name, weight in trainer.model.named_parameters() if weight.requires_grad]
    assert trained
    assert all("lora" in name for name in trained)


def test_without_objectives_it_is_the_trainer_itself(place, collator, tmp_path):
    plain = history(
        Trainer(
            model=AutoModelForCausalLM.from_pretrained(place / "pivot", dtype=torch.float32),
            args=arguments(TrainingArguments, tmp_path), train_dataset=collator.dataset(),
            data_collator=lambda rows: {name: each for name, each in collator(rows).items() if name != "targets"},
        )
    )  # fmt: skip
    mine = history(mixed(Trainer, place, collator, arguments(TrainingArguments, tmp_path), []))
    assert [entry["loss"] for entry in mine] == [entry["loss"] for entry in plain]


def test_another_collator_is_refused_in_training(place, collator, tmp_path):
    def without_targets(rows):
        return {name: each for name, each in collator(rows).items() if name != "targets"}

    trainer = mixed(Trainer, place, collator, arguments(TrainingArguments, tmp_path), TERMS)
    trainer.data_collator = without_targets
    with pytest.raises(ValueError, match=r"no targets.*data_collator must be a fusion\.FusionCollator"):
        trainer.train()


def test_what_needs_more_than_logits_is_refused_by_name(place, collator, tmp_path):
    args = arguments(TrainingArguments, tmp_path)
    with pytest.raises(ValueError, match=r"objective hidden_projector needs hidden states.*fusion\.run"):
        mixed(Trainer, place, collator, args, [HiddenProjector()])
    with pytest.raises(
        ValueError, match=r"objective group_reward needs texts that the pivot wrote itself.*fusion\.run"
    ):
        mixed(Trainer, place, collator, args, [GroupReward()])


def test_arguments_that_would_drop_the_number_of_an_example_are_refused(place, collator, tmp_path):
    args = arguments(TrainingArguments, tmp_path, remove_unused_columns=True)
    with pytest.raises(ValueError, match="remove_unused_columns=False"):
        mixed(Trainer, place, collator, args, TERMS)


def test_a_loss_that_is_no_number_stops_before_it_reaches_the_weights(place, collator, tmp_path):
    class Endless(MappedObjective):
        """Infinite, as where an empty entry is not masked."""

        kind: Literal["endless"] = "endless"

        def __call__(self, pivot, source):
            return pivot.logprobs.sum(-1) + torch.inf

    args = arguments(TrainingArguments, tmp_path)
    trainer = mixed(Trainer, place, collator, args, [Endless()])
    before = {name: weights.clone() for name, weights in trainer.model.state_dict().items()}
    with pytest.raises(ValueError, match=r"^Step 1: The loss is no finite number: endless/\w+ is inf"):
        trainer.train()
    assert all(torch.equal(weights, before[name]) for name, weights in trainer.model.state_dict().items())
