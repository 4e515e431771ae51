"""Rewards of a group against TRL's GRPOTrainer: the number of its loss where both have one, and its gradient."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from fusion.core.example import ExampleInfo
from fusion.objectives import GroupReward, RolloutTargets
from tests.helpers import tiny
from tests.helpers.rollouts import inputs_of
from tests.helpers.rows import rows_of

PROMPT = torch.tensor([[5, 6, 7], [0, 8, 9], [5, 6, 7]])
PROMPT_MASK = torch.tensor([[1, 1, 1], [0, 1, 1], [1, 1, 1]])
TEXT = torch.tensor([[11, 12, 13, 14, 15], [21, 22, 23, 0, 0], [31, 32, 33, 34, 0]])
MASK = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0], [1, 1, 1, 1, 0]])
ADVANTAGES = torch.tensor([0.7, -1.2, 0.5])
# texts that are to become likelier, and one that is to become less likely: TRL's loss has the same number where no token has
# moved as far as it is to go, and the same gradient where none that is to become less likely has become far likelier
NOT_CLIPPED = torch.tensor([[0.0, 0.6, -0.9, 0.1, -2.0], [0.0, -0.3, 1.5, 0, 0], [0.2, -0.2, 0.3, 0.69, 0]])
CLIPPED = torch.tensor([[0.0, 0.9, -0.9, 3.0, -2.0], [0.0, -0.9, 0.6, 0, 0], [0.2, -0.2, 0.8, 0.69, 0]])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny.folder("llama", tmp_path_factory.mktemp("grpo") / "pivot", padding=0)


def trl(folder, out, moved, **arguments):
    """TRL's loss of one batch in evaluation, where it is divided by the tokens of this batch, and the model with gradients."""
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import GRPOConfig, GRPOTrainer

    shared = {
        "use_cpu": True,
        "bf16": False,
        "report_to": [],
        "beta": 0.0,
        "per_device_train_batch_size": 2,
        "num_generations": 2,
    }
    trainer = GRPOTrainer(
        model=AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32),
        processing_class=AutoTokenizer.from_pretrained(folder),
        reward_funcs=lambda completions, **_: [0.0] * len(completions),
        args=GRPOConfig(output_dir=str(out), **shared, **arguments),
        train_dataset=Dataset.from_dict({"prompt": ["a"] * 4}),
    )
    model = trainer.model.eval()
    inputs = {
        "prompt_ids": PROMPT,
        "prompt_mask": PROMPT_MASK,
        "completion_ids": TEXT,
        "completion_mask": MASK,
        "advantages": ADVANTAGES,
        "old_per_token_logps": logprobs(model).gather(2, TEXT[:, :, None])[:, :, 0].detach() - moved,
        "num_items_in_batch": MASK.sum(),
    }
    loss = trainer._compute_loss(model, inputs)
    loss.backward()
    return loss.item(), model


def logprobs(model):
    """Log-probabilities of every token at each place of the texts: [3, 5, V]."""
    ids, mask = torch.cat([PROMPT, TEXT], 1), torch.cat([PROMPT_MASK, MASK], 1)
    return model(input_ids=ids, attention_mask=mask).logits[:, PROMPT.shape[1] - 1 : -1].log_softmax(-1)


def ours(model, moved, **settings):
    """The mean of our term on the same texts, with gradients in the model."""
    kept = MASK.bool()
    example = torch.arange(3)[:, None].expand(3, 5)[kept]
    pivot = rows_of(logprobs(model)[kept], 0, TEXT[kept], example)
    infos = [ExampleInfo("d", f"e{n}", "rollouts") for n in range(3)]
    known = RolloutTargets(pivot.gold.detach() - moved[kept], ADVANTAGES)
    inputs, objective = inputs_of(pivot, {}, infos, known), GroupReward(**settings)
    (term,) = objective.terms(inputs)
    mean = term.total / objective.counts(inputs.targets)["group_reward"]
    mean.backward()
    return mean.item()


def gradients(model):
    return {name: weight.grad for name, weight in model.named_parameters()}


def test_a_batch_has_the_number_and_the_gradient_of_trls_truncated_ratios(folder, tmp_path):
    pytest.importorskip("trl")
    loss, model = trl(folder, tmp_path, NOT_CLIPPED, loss_type="cispo", epsilon_high=2.0)
    theirs = gradients(model)
    model.zero_grad()
    assert ours(model, NOT_CLIPPED) == pytest.approx(loss, rel=1e-5)
    for name, gradient in gradients(model).items():
        torch.testing.assert_close(gradient, theirs[name], rtol=1e-4, atol=1e-6)
    assert loss > 0.1


def test_a_batch_with_clipped_tokens_has_the_gradient_of_trls_token_mean(folder, tmp_path):
    pytest.importorskip("trl")
    _, model = trl(folder, tmp_path, CLIPPED, loss_type="dapo", epsilon=0.5, epsilon_high=1.0)
    theirs = gradients(model)
    model.zero_grad()
    ours(model, CLIPPED)
    found = gradients(model)
    for name, gradient in found.items():
        torch.testing.assert_close(gradient, theirs[name], rtol=1e-4, atol=1e-6)
    model.zero_grad()
    ours(model, CLIPPED, epsilon=1.0, epsilon_high=1e6)
    assert any((gradient - found[name]).abs().max() > 1e-3 for name, gradient in gradients(model).items())


def test_texts_without_an_advantage_take_no_step_and_other_texts_none_at_all():
    pivot = rows_of(torch.randn(6, 4, dtype=torch.float64), 0, None, torch.tensor([0, 0, 1, 1, 2, 2]))
    gold = pivot.gold.requires_grad_()
    infos = [ExampleInfo("d", "e0", "rollouts"), ExampleInfo("d", "e1", "replay"), ExampleInfo("d", "e2", "rollouts")]
    old = gold.detach().clone().index_fill(0, torch.tensor([2, 3]), torch.nan)
    inputs = inputs_of(
        dataclasses.replace(pivot, gold=gold), {}, infos, RolloutTargets(old, torch.tensor([0.5, 9.0, 0.0]))
    )
    (term,) = GroupReward().terms(inputs)
    assert GroupReward().counts(inputs.targets) == {"group_reward": 4}
    assert torch.autograd.grad(term.total, gold)[0].tolist() == [-0.5, -0.5, 0, 0, 0, 0]
    assert term.row_weight is None


def test_the_anchor_pulls_back_to_where_the_pivot_began():
    pivot = rows_of(torch.randn(2, 4, dtype=torch.float64), 0)
    gold = pivot.gold.requires_grad_()
    start = gold.detach() - torch.tensor([1.0, -2.0])
    infos = [ExampleInfo("d", "e0", "rollouts")]
    known = RolloutTargets(gold.detach(), torch.zeros(1), start)
    objective = GroupReward(beta=0.25)
    assert objective.requirements.reference_pivot
    assert not GroupReward().requirements.reference_pivot
    (term,) = objective.terms(inputs_of(dataclasses.replace(pivot, gold=gold), {}, infos, known))
    assert torch.autograd.grad(term.total, gold)[0].tolist() == pytest.approx([0.25, -0.5])
