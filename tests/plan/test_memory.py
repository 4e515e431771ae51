"""Memory of a process against tensors that torch really makes, and against what must hold between engines."""

import dataclasses

import pytest
import torch

from fusion.models.loading import ModelRef
from fusion.plan import architecture, memory
from fusion.plan.memory import ENGINE_OPTIONS, EngineOption, Memory, Precision
from tests.helpers import measured_memory

FLOAT32, BFLOAT16 = Precision(4, 4), Precision(2, 2)
MIXED = Precision(4, 2, mixed=True)


@pytest.mark.parametrize(("dtype", "precision"), [(torch.float32, FLOAT32), (torch.bfloat16, BFLOAT16)])
@pytest.mark.parametrize("tied", [False, True])
def test_weights_gradients_and_moments_are_the_bytes_that_torch_allocates(dtype, precision, tied):
    model, sizes = measured_memory.model(dtype=dtype, tie_word_embeddings=tied)
    optimizer = torch.optim.AdamW(model.parameters())
    model(**measured_memory.text(model, 1, 8)).logits.sum().backward()
    optimizer.step()
    found = memory.model_states(sizes, EngineOption("single"), precision, 1)
    assert found.weights == sum(p.nbytes for p in model.parameters())
    assert found.gradients == sum(p.grad.nbytes for p in model.parameters())
    assert found.optimizer == sum(t.nbytes for state in optimizer.state.values() for t in state.values() if t.ndim)
    assert found.buffers == 0


def test_deepspeed_keeps_sixteen_bytes_a_parameter_and_zero3_divides_them_all():
    _, sizes = measured_memory.model()
    for processes in (1, 3, 8):
        one = memory.model_states(sizes, EngineOption("zero3"), MIXED, processes)
        whole = processes * (one.weights + one.gradients + one.optimizer)
        assert whole == pytest.approx(16 * sizes.parameters)


def test_each_zero_stage_divides_one_thing_more():
    _, sizes = measured_memory.model()
    one, two, three = (memory.model_states(sizes, EngineOption(f"zero{n}"), MIXED, 4) for n in (1, 2, 3))
    P = sizes.parameters
    assert (one.weights, one.gradients, one.optimizer) == (2 * P, 2 * P, 12 * P / 4)
    assert (two.weights, two.gradients, two.optimizer) == (2 * P, 2 * P / 4, 12 * P / 4)
    assert (three.weights, three.gradients, three.optimizer) == (2 * P / 4, 2 * P / 4, 12 * P / 4)


@pytest.mark.parametrize("engine", ENGINE_OPTIONS)
@pytest.mark.parametrize("precision", [FLOAT32, BFLOAT16, MIXED])
def test_offloading_moves_bytes_and_loses_none(engine, precision):
    _, sizes = measured_memory.model()
    here = memory.model_states(sizes, EngineOption(engine.kind), precision, 4)
    moved = memory.model_states(sizes, engine, precision, 4)
    assert moved.total + moved.host == pytest.approx(here.total)
    assert (moved.host > 0) == (engine.offload != "none")


def test_sharded_float32_weights_are_what_fsdp2_keeps_of_bfloat16_ones_in_mixed_precision():
    _, sizes = measured_memory.model()
    assert memory.model_states(sizes, EngineOption("fsdp2"), Precision(2, 2, mixed=True), 4).weights == sizes.parameters
    assert memory.model_states(sizes, EngineOption("fsdp2"), BFLOAT16, 4).weights == sizes.parameters / 2


CLOSE = dict.fromkeys(["llama", "qwen2", "mistral"], 0.02) | {"phi3": 0.12}


@pytest.mark.parametrize("kind", measured_memory.SHARED)
@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize(("dtype", "precision"), [(torch.float32, FLOAT32), (torch.bfloat16, BFLOAT16)])
def test_activations_are_what_autograd_keeps(kind, padded, dtype, precision):
    """The families of the papers closely; others, whose norms and caps differ, within a fifth."""
    model, sizes = measured_memory.model(kind, dtype)
    B, T = 1 + padded, 96
    kept = measured_memory.saved_bytes(model, measured_memory.text(model, B, T, padded))
    estimate = memory.activations(sizes, B * T, T, precision, padded, checkpointed=False)
    assert estimate == pytest.approx(kept, rel=CLOSE.get(kind, 0.2))


def test_gradient_checkpointing_keeps_the_input_of_each_layer_and_one_layer():
    model, sizes = measured_memory.model(checkpointed=True)
    kept = measured_memory.saved_bytes(model, measured_memory.text(model, 1, 96))
    plain = memory.activations(sizes, 96, 96, FLOAT32, False, checkpointed=False)
    estimate = memory.activations(sizes, 96, 96, FLOAT32, False, checkpointed=True)
    one_layer = (plain - 96 * 2 * sizes.hidden_size * 8) / sizes.layers
    assert estimate - one_layer == pytest.approx(kept, rel=0.15)


def total(sizes, B, T, checkpointed, at_once):
    """The sum of the items of a float32 training in one process."""
    kept = memory.activations(sizes, B * T, T, FLOAT32, B > 1, checkpointed)
    chunk = memory.logits(sizes.vocab_size, at_once, copies=1) + memory.head_gradient(sizes, FLOAT32)
    states = memory.model_states(sizes, EngineOption("single"), FLOAT32, 1)
    return dataclasses.replace(states, activations=kept, logits=chunk).total


@pytest.mark.parametrize("checkpointed", [False, True])
@pytest.mark.parametrize("T", [96, 256])
def test_a_real_step_peaks_just_below_the_sum_of_the_items(T, checkpointed):
    """The sum assumes that all items are there at once, so it is hardly ever less, and it is not much more."""
    model, sizes = measured_memory.model(
        checkpointed=checkpointed, hidden_size=128, intermediate_size=384, vocab_size=5000
    )
    peak = measured_memory.step_peak(model, measured_memory.text(model, 1, T), chunk=64)
    assert 0.98 * peak < total(sizes, 1, T, checkpointed, at_once=64 * 5000) < 1.12 * peak


@pytest.mark.slow
@pytest.mark.parametrize("checkpointed", [False, True])
def test_a_larger_step_peaks_just_below_the_sum_of_the_items(checkpointed):
    shape = {"hidden_size": 384, "intermediate_size": 1024, "num_hidden_layers": 8, "vocab_size": 32000}
    model, sizes = measured_memory.model("qwen2", checkpointed=checkpointed, **shape)
    peak = measured_memory.step_peak(model, measured_memory.text(model, 2, 400), chunk=128)
    assert 0.98 * peak < total(sizes, 2, 400, checkpointed, at_once=128 * 32000) < 1.12 * peak


def test_a_tenth_of_the_gpu_is_left_free():
    assert Memory(weights=72e9).fits(80e9)
    assert not Memory(weights=72.1e9).fits(80e9)
    assert Memory(weights=10e9, host=500e9).fits(80e9)


def test_the_pivot_of_the_papers_takes_what_its_parameters_say():
    phi = architecture.load_architecture(ModelRef("microsoft/phi-4"))
    ddp, zero3 = (memory.model_states(phi, EngineOption(kind), BFLOAT16, 8) for kind in ("ddp", "zero3"))
    assert ddp.weights + ddp.gradients + ddp.optimizer == pytest.approx(8 * 14.66e9, rel=1e-3)
    assert zero3.weights + zero3.gradients + zero3.optimizer == pytest.approx(16 * 14.66e9 / 8, rel=1e-3)
