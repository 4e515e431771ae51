"""Floating-point work against torch's own counter, and against published GPU hours."""

import pytest
import torch

from fusion.models.head import Head
from fusion.plan import flops
from fusion.plan.flops import Counts
from tests.helpers import measured_memory


def counts(B, T):
    return Counts(examples=B, tokens=B * T, squared_lengths=B * T**2, rows=B * T, longest=T)


@pytest.mark.parametrize("kind", ["llama", "phi3", "gpt_neox", "olmo2"])
@pytest.mark.parametrize(("B", "T"), [(1, 64), (3, 17)])
def test_a_forward_pass_costs_what_the_counter_counts(kind, B, T):
    model, sizes = measured_memory.model(kind)
    inputs, head = measured_memory.text(model, B, T), Head.from_model(model, model.config.vocab_size)
    with torch.no_grad():
        counted = measured_memory.operations(lambda: measured_memory.loss(model, head, inputs))
    assert flops.forward_flops(sizes, counts(B, T)) == counted


@pytest.mark.parametrize("checkpointed", [False, True])
@pytest.mark.parametrize("chunk", [None, 16])
def test_a_training_step_costs_what_the_counter_counts(checkpointed, chunk):
    model, sizes = measured_memory.model(checkpointed=checkpointed)
    inputs, head = measured_memory.text(model, 2, 48), Head.from_model(model, model.config.vocab_size, chunk)
    counted = measured_memory.operations(lambda: measured_memory.loss(model, head, inputs).backward())
    estimate = flops.training_flops(sizes, counts(2, 48), checkpointed=checkpointed, recompute_logits=chunk is not None)
    assert estimate == pytest.approx(counted, rel=1e-3)


def test_attention_grows_with_the_square_of_the_length():
    _, sizes = measured_memory.model()
    short, long = counts(8, 100), counts(1, 800)
    more = flops.forward_flops(sizes, long) - flops.forward_flops(sizes, short)
    head = 7 * 2 * sizes.vocab_size * sizes.hidden_size  # one position an example that the model computes by itself
    assert more + head == 4 * sizes.layers * sizes.query_size * (800**2 - 8 * 100**2)


def test_seconds_are_work_over_what_the_gpus_reach():
    assert flops.seconds(8e15, gpus=4, peak=1e15, mfu=0.5) == 4.0
