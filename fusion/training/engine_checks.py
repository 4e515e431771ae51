"""The model inside its engine: the libraries set up, what they leave wrong set right, and proof that it is where it should be.

Libraries fall back from one engine to another without a word; this does not.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from fusion.runtime import distributed
from fusion.training.engine import Engine


def process_problems(engine: Engine) -> Iterator[str]:
    """Yield a sentence where the engine does not go together with the processes and devices that there are."""
    if engine.name == "single" and distributed.world_size() > 1:
        yield f"engine.kind is single, but there are {distributed.world_size()} processes; set it to auto, zero2 or fsdp2."
    if engine.name == "ddp" and distributed.world_size() == 1:
        yield "engine.kind is ddp, but there is one process; start several with torchrun, or set it to auto."
    if engine.name == "fsdp2" and engine.offload != "none" and distributed.device() == "cpu":
        yield "engine.offload moves what fsdp2 keeps on GPUs to the CPU, and there is no GPU; leave it out."


def device_problems(given: Mapping[str, Any]) -> Iterator[str]:
    """Yield a sentence for each of the user's TrainingArguments that the device of this machine cannot do."""
    import torch

    if not torch.cuda.is_available():
        if given.get("use_liger_kernel"):
            yield "training.use_liger_kernel needs a GPU, and there is none; leave it out."
        if given.get("tf32"):
            yield "training.tf32 needs a GPU, and there is none; leave it out."
        if given.get("fp16"):
            yield (
                "training.fp16 needs a GPU, and there is none: accelerate would train in float32 without a word. Set "
                "training.bf16, or leave both out."
            )
    elif given.get("bf16") and not torch.cuda.is_bf16_supported():
        yield f"training.bf16: {torch.cuda.get_device_name()} cannot compute in bfloat16; set training.fp16 instead."
    elif given.get("tf32") and torch.cuda.get_device_capability() < (8, 0):
        yield f"training.tf32: {torch.cuda.get_device_name()} cannot do it (Ampere and newer can); leave it out."


@contextmanager
def running(engine: Engine) -> Iterator[None]:
    """Prepares this process for a training, and makes the libraries forget it afterwards: they keep it in globals.

    Raises ValueError where the engine and the number of processes do not go together.
    """
    if problem := next(process_problems(engine), None):
        raise ValueError(problem)
    if engine.stage or engine.name == "fsdp2":
        distributed.set_single_process_env()
    _forget()
    distributed.init_process_group()
    if engine.stage:
        _start_deepspeed()
    try:
        yield
    finally:
        _forget()


def shard_on_cpu(accelerator: Any, settings: dict[str, Any]) -> None:
    """Make accelerate shard with FSDP2 where there is no GPU: it would fall back to DDP without a word.

    `settings` are those of its plugin, as on a GPU.
    """
    from accelerate.state import PartialState
    from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin

    state = accelerator.state
    PartialState._shared_state["distributed_type"] = state.distributed_type = DistributedType.FSDP
    state.fsdp_plugin = FullyShardedDataParallelPlugin(**settings)


def engine_of(wrapped: Any) -> str:
    """The engine that really holds this model, by looking at it: single, ddp, zero1, zero2, zero3 or fsdp2."""
    from torch.nn.parallel import DistributedDataParallel

    if hasattr(wrapped, "zero_optimization_stage"):
        return f"zero{wrapped.zero_optimization_stage()}"
    if isinstance(wrapped, DistributedDataParallel):  # accelerate wraps a lone process of a launcher too
        return "ddp" if distributed.world_size() > 1 else "single"
    return "fsdp2" if _sharded(wrapped) else "single"


def check(engine: Engine, wrapped: Any) -> None:
    """Raise ValueError unless the model is spread over processes as the engine says."""
    found = engine_of(wrapped)
    if found != engine.name:
        raise ValueError(
            f"engine.kind is {engine.kind}, but the model ended up in {found} ({type(wrapped).__name__}, "
            f"{distributed.world_size()} processes). Nothing was trained. Set engine.kind to what you want, "
            "and check the versions of accelerate, transformers and deepspeed."
        )
    if found == "fsdp2" and not _shards_layers(wrapped):
        raise ValueError(
            f"{type(wrapped).__name__} was sharded as one piece, not layer by layer: its gradients would never be reduced. "
            "transformers does not know its layers (_no_split_modules); take engine.kind zero3 or ddp."
        )


def keep_whole(engine: Engine, wrapped: Any, module: Any) -> None:
    """Keep the weights of `module` gathered in every process between the steps (ZeRO-3 only).

    The head is called for each chunk of rows, and processes have different numbers of chunks: gathering its weights at each
    call would make them wait for each other forever. DeepSpeed keeps small weights whole in the same way.
    """
    if engine.stage != 3:
        return
    for weight in module.parameters():
        weight.is_external_param = True  # no hook of a module releases it
        if not weight.ds_persist:
            weight.ds_persist = True  # only a step does, and gathers it again
            wrapped.optimizer.persistent_parameters.append(weight)
        weight.all_gather()


def restore_param_groups(optimizer: Any, groups: list[dict[str, Any]]) -> None:
    """Give each parameter group of an optimizer its own settings and its own count of steps again.

    A ZeRO-3 optimizer that was loaded on another number of processes has the settings (weight decay) of the first group in
    all of them, and one tensor that counts the steps of all, so that it counts too many.
    """
    for group, settings in zip(optimizer.param_groups, groups, strict=True):
        group.update(settings)
    for state in optimizer.state.values():
        if "step" in state and hasattr(state["step"], "clone"):
            state["step"] = state["step"].clone()


def _forget() -> None:
    from transformers.integrations.deepspeed import unset_hf_deepspeed_config

    unset_hf_deepspeed_config()  # else every model loaded from now on is sharded
    for variable in ("ACCELERATE_USE_DEEPSPEED", "ACCELERATE_USE_FSDP"):
        os.environ.pop(variable, None)


def _shards_layers(model: Any) -> bool:
    """Whether something with parts, a layer, is sharded inside the model, which starts its reductions in the backward pass.

    The model's own outputs take no part in it, for the loss is computed from its hidden states.
    """
    from torch.distributed.fsdp import FSDPModule

    layers = [module for module in model.modules() if module is not model and list(module.children())]
    return any(isinstance(layer, FSDPModule) for layer in layers)


def _sharded(model: Any) -> bool:
    from torch.distributed.tensor import DTensor

    return any(isinstance(weight, DTensor) for weight in model.parameters())


def _start_deepspeed() -> None:
    try:
        import deepspeed
        import deepspeed.ops
    except ImportError as error:
        raise ValueError(
            "engine.kind zero1, zero2 and zero3 need DeepSpeed: pip install 'logit-fusion[deepspeed]'."
        ) from error
    on_cpu = distributed.device() == "cpu"
    if on_cpu:
        # else its first collective compiles a shared-memory one with g++, for minutes; gloo gives the same numbers
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    deepspeed.init_distributed("gloo" if on_cpu else "nccl", auto_mpi_discovery=False, verbose=False)
