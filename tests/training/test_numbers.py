"""A training whose numbers are none stops before they reach the weights, and says where they came from."""

import pytest
import torch

from fusion.config.loading import ConfigError
from fusion.objectives import CrossEntropy, ForwardKL
from fusion.training.loss import StepGuard
from tests.helpers import runs
from tests.training.test_trainer import context, sources, trainer  # noqa: F401  (fixtures)

NAN, INF = float("nan"), float("inf")


def weights_of(made):
    return {name: weight.detach().clone() for name, weight in made.model.named_parameters()}


def stops(made, message):
    """Train until it stops with `message`; return what was saved."""
    before = weights_of(made)
    with pytest.raises(ValueError, match=message):
        made.train()
    return before


class Spoiling:
    """A collator that spoils what the one below it makes."""

    def __init__(self, below, spoil):
        self.below, self.spoil = below, spoil
        self.examples = below.examples

    def __call__(self, numbers):
        batch = self.below(numbers)
        self.spoil(batch["targets"])
        return batch

    def __getattr__(self, name):
        return getattr(self.__dict__["below"], name)


def spoiled(context, sources, tmp_path, spoil, **arguments):  # noqa: F811
    made = trainer(context, sources, [CrossEntropy(), ForwardKL()], tmp_path, **arguments)
    made.data_collator = Spoiling(made.data_collator, spoil)
    return made


def test_a_source_that_says_nan_is_named_with_its_example_and_nothing_is_learned_of_it(context, sources, tmp_path):  # noqa: F811
    def spoil(targets):
        source = targets.sources["qwen"]
        source.rows.logprobs[source.rows.example == 3] = NAN
        source.mapped.logprobs[source.mapped.example == 3] = NAN

    made = spoiled(context, sources, tmp_path, spoil)
    before = stops(
        made, r"^Step 1: the term forward_kl/qwen of the loss is nan: source qwen in example \w{8,}, behind 0 bytes"
    )
    assert all(torch.equal(value, before[name]) for name, value in weights_of(made).items())


def test_a_weight_that_is_no_number_is_named_with_source_and_example(context, sources, tmp_path):  # noqa: F811
    made = spoiled(context, sources, tmp_path, lambda targets: targets.sources["neox"].weight.fill_(INF))
    stops(
        made,
        r"^Step 1: the term forward_kl/neox of the loss is inf: weighting gives source neox a weight of inf in example \w+",
    )


def test_the_micro_batch_before_the_last_of_a_step_is_looked_at_too(context, sources, tmp_path):  # noqa: F811
    seen = []

    def spoil(targets):
        seen.append(targets)
        if len(seen) == 3:  # the first of the second step
            targets.sources["neox"].weight.fill_(NAN)

    shape = {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 2}
    stops(spoiled(context, sources, tmp_path, spoil, **shape), r"^Step 2: the term forward_kl/neox")


def test_weights_that_a_step_has_broken_are_named_and_not_saved(context, sources, tmp_path):  # noqa: F811
    made = trainer(
        context, sources, [CrossEntropy()], tmp_path, learning_rate=1e38, save_steps=1, save_strategy="steps"
    )
    stops(
        made,
        r"^Step [12]: the pivot's weights are NaN or infinite \(\S+\), so they are not written\. Lower training\.learning_rate",
    )
    assert not list(tmp_path.glob("checkpoint-*/*.safetensors"))


def test_weights_that_a_step_has_broken_are_found_at_the_next_one(context, sources, tmp_path):  # noqa: F811
    made = trainer(
        context,
        sources,
        [CrossEntropy()],
        tmp_path,
        learning_rate=1e38,
        save_strategy="no",
        lr_scheduler_type="constant",
    )
    stops(made, r"^Step [23]: the pivot's (weights|hidden states) .*Lower training\.learning_rate")


def test_gradients_that_are_no_numbers_stop_before_the_step(context, sources, tmp_path):  # noqa: F811
    made = trainer(context, sources, [CrossEntropy()], tmp_path)
    made.model.get_output_embeddings().weight.register_hook(lambda gradient: gradient * INF)
    before = stops(
        made, r"^Step 1: the norm of the gradients is (nan|inf), and the loss of this process is a finite number"
    )
    assert all(torch.equal(value, before[name]) for name, value in weights_of(made).items())


def test_a_training_of_numbers_is_none_of_the_guards_business(context, sources, tmp_path):  # noqa: F811
    made = trainer(context, sources, [CrossEntropy(), ForwardKL()], tmp_path)
    made.train()
    assert made.state.global_step == 3
    assert made.args.logging_nan_inf_filter is False


def test_steps_that_a_loss_scaler_skips_are_no_fault_and_skipping_forever_is():
    guard, most = StepGuard(scaled=True), StepGuard.MAX_SKIPPED
    for step in range(1, 3 * most):
        guard.check(torch.tensor(INF if step % most else 1.0), step)
    guard.check(1.0, 3 * most)
    for step in range(1, most):
        guard.check(NAN, step)
    with pytest.raises(
        ValueError, match=rf"^Step 7: .* overflow float16 at this and the {most - 1} steps before.*bf16 instead"
    ):
        guard.check(NAN, 7)


@pytest.mark.parametrize("norm", [None, 1.0, torch.tensor(2.0), -1.0])
def test_a_norm_that_is_a_number_or_not_known_is_no_fault(norm):
    StepGuard(scaled=False).check(norm, 1)


def test_a_fault_is_told_though_gradients_are_finite():
    guard = StepGuard(scaled=True)
    guard.note("here")
    guard.note("there")
    with pytest.raises(ValueError, match=r"^Step 3: here$"):
        guard.check(1.0, 3)


def test_a_filter_for_losses_that_are_no_numbers_is_a_setting_without_effect(tmp_path):
    with pytest.raises(ConfigError, match="logging_nan_inf_filter has nothing to filter"):
        runs.config(tmp_path, training={"logging_nan_inf_filter": False})
