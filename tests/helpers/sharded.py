"""Bytes that each process of a real sharded training holds: python -m tests.helpers.sharded FOLDER, under torchrun."""

import json
import os
import sys
from pathlib import Path

import torch

from tests.helpers import measured_memory


def nbytes(tensors):
    local = [t.to_local() if hasattr(t, "to_local") else t for t in tensors]
    return sum(t.numel() * t.element_size() for t in local)


def deepspeed_states(stage):
    """Weights, and the float32 copy with both moments, after a step."""
    import deepspeed

    model, _ = measured_memory.model(dtype=torch.bfloat16)
    config = {
        "train_micro_batch_size_per_gpu": 1,
        "bf16": {"enabled": True},
        "zero_allow_untested_optimizer": True,
        "zero_optimization": {"stage": stage, "reduce_bucket_size": 10000, "stage3_param_persistence_threshold": 0},
    }
    optimizer = torch.optim.AdamW(model.parameters())
    engine, *_ = deepspeed.initialize(model=model, optimizer=optimizer, config=config)
    engine.backward(engine(**measured_memory.text(model, 1, 8)).logits.float().sum())
    engine.step()
    held = [p.ds_tensor if stage == 3 else p.data for p in engine.module.parameters()]
    inner = engine.optimizer.optimizer
    copies = {p for group in inner.param_groups for p in group["params"]}
    if stage == 3:
        copies = set(engine.optimizer.fp32_partitioned_groups_flat)
    moments = [t for state in inner.state.values() for t in state.values() if torch.is_tensor(t) and t.ndim]
    return {"weights": nbytes(held), "optimizer": nbytes(copies) + nbytes(moments)}


def fsdp_states():
    """Weights, gradients and both moments, after a step."""
    from torch.distributed.fsdp import fully_shard

    model, _ = measured_memory.model()
    for layer in model.model.layers:
        fully_shard(layer)
    fully_shard(model)
    optimizer = torch.optim.AdamW(model.parameters())
    model(**measured_memory.text(model, 1, 8)).logits.sum().backward()
    optimizer.step()
    moments = [t for state in optimizer.state.values() for t in state.values() if t.ndim]
    weights = list(model.parameters())
    return {
        "weights": nbytes(weights),
        "gradients": nbytes([p.grad for p in weights if p.grad is not None]),
        "optimizer": nbytes(moments),
    }


if __name__ == "__main__":
    import deepspeed
    import deepspeed.ops

    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False  # else a compiler runs for minutes
    deepspeed.init_distributed("gloo")
    found = {f"zero{stage}": deepspeed_states(stage) for stage in (1, 2, 3)} | {"fsdp2": fsdp_states()}
    (Path(sys.argv[1]) / f"{os.environ['RANK']}.json").write_text(json.dumps(found))
    os._exit(0)  # groups of two libraries do not always part in peace
