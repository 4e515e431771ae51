"""What a model really takes, measured: bytes of saved tensors, the peak of allocations, floating-point operations."""

from __future__ import annotations

import torch
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count
from transformers import AutoConfig, AutoModelForCausalLM

from fusion.core.rows import Positions
from fusion.models.head import Head, hidden_states
from fusion.plan import architecture

SMALL = {
    "hidden_size": 64,
    "intermediate_size": 160,
    "num_attention_heads": 8,
    "num_hidden_layers": 5,
    "vocab_size": 300,
}
SHARED = {
    "llama": {"num_key_value_heads": 2},
    "qwen2": {"num_key_value_heads": 2},
    "mistral": {"num_key_value_heads": 2, "head_dim": 8, "sliding_window": None},
    "phi3": {"num_key_value_heads": 2, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2},
    "qwen3": {"num_key_value_heads": 2, "head_dim": 8},
    "gemma2": {"num_key_value_heads": 2, "head_dim": 8},
    "gemma3_text": {"num_key_value_heads": 2, "head_dim": 8},
    "olmo2": {"num_key_value_heads": 2, "eos_token_id": 2},
    "gpt_neox": {},
}


def model(kind="llama", dtype=torch.float32, checkpointed=False, **changes):
    """A random model in training mode, and its sizes."""
    torch.manual_seed(0)
    config = AutoConfig.for_model(kind, **{**SMALL, **SHARED[kind], "max_position_embeddings": 512, **changes})
    made = AutoModelForCausalLM.from_config(config, dtype=dtype).train()
    if checkpointed:
        made.gradient_checkpointing_enable()
    return made, architecture.describe(config)


def text(model, B, T, padded=False):
    """Token ids [B, T] and their mask, the first row with padding before it where `padded`."""
    mask = torch.ones(B, T, dtype=torch.long)
    mask[0, : 3 * padded] = 0
    return {"input_ids": torch.randint(5, model.config.vocab_size, (B, T)), "attention_mask": mask}


def saved_bytes(model, inputs):
    """Bytes of all tensors that a forward pass keeps for the backward pass, weights aside."""
    own = {t.untyped_storage().data_ptr() for t in [*model.parameters(), *model.buffers()]}
    kept = {}

    def keep(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage  # held, so that no other takes its place
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        hidden_states(model, **inputs)
    return sum(storage.nbytes() for storage in kept.values())


def loss(model, head, inputs):
    """A loss that reads the gold token, the ten largest entries and the moments of every row."""
    hidden, ids = hidden_states(model, **inputs).flatten(0, 1), inputs["input_ids"].flatten()
    positions = Positions(prefix=torch.arange(len(ids)), example=torch.zeros_like(ids), token=ids)
    rows, _ = head.rows(hidden, positions, 10)
    return rows.gold.sum() + rows.logprobs.sum() + rows.mean.sum()


def step_peak(model, inputs, chunk):
    """Peak bytes of a step of two micro-batches, weights and AdamW's moments included."""
    head = Head.from_model(model, model.config.vocab_size, chunk)
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)

    def step():
        for _ in range(2):
            loss(model, head, inputs).backward()
        optimizer.step()
        optimizer.zero_grad()

    step()  # makes the moments
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        step()
    events = sorted(
        (event.start_ns(), event.nbytes())
        for event in seen.profiler.kineto_results.events()
        if event.name() == "[memory]"
    )
    assert events
    live = torch.tensor([size for _, size in events]).cumsum(0).max().item()
    moments = sum(t.nbytes for state in optimizer.state.values() for t in state.values() if t.ndim)
    return live + moments + sum(p.nbytes for p in model.parameters())


def operations(run):
    """Floating-point operations of `run`, as torch counts them; fused attention on a CPU counted as on a GPU."""
    aten = torch.ops.aten

    def forward(query, key, value, *args, out_shape=None, **kwargs):
        return sdpa_flop_count(query, key, value)

    def backward(grad, query, key, value, *args, out_shape=None, **kwargs):
        return sdpa_backward_flop_count(grad, query, key, value)

    mapping = {
        aten._scaled_dot_product_flash_attention_for_cpu: forward,
        aten._scaled_dot_product_flash_attention_for_cpu_backward: backward,
    }
    with FlopCounterMode(display=False, custom_mapping=mapping) as counter:
        run()
    return counter.get_total_flops()
