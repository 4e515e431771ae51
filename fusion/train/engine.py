"""How one training is spread over processes, and the proof that it is: libraries fall back silently, this does not."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

import fusion_launch
from fusion import ranks
from fusion.settings import Settings

DEEPSPEED = Path(fusion_launch.__file__).parent / "deepspeed"
FILES = {
    ("zero1", "none"): "zero1.json",
    ("zero2", "none"): "zero2.json",
    ("zero2", "optimizer"): "zero2_offload.json",
    ("zero3", "none"): "zero3.json",
    ("zero3", "all"): "zero3_offload.json",
}
OFFLOADS = {**dict.fromkeys(FILES, ""), ("fsdp2", "none"): "", ("fsdp2", "all"): ""}

SIZE, ACCUMULATED = ("per_device_train_batch_size", 8), ("gradient_accumulation_steps", 1)  # and Trainer's defaults


class Engine(Settings):
    """How a training is spread over the processes that torchrun starts. It changes no number beyond rounding."""

    kind: Literal["auto", "single", "ddp", "zero1", "zero2", "zero3", "fsdp2"] = "auto"
    """ddp: a whole model in each process. zero1, zero2, zero3: DeepSpeed shards the optimizer, the gradients too, the weights
    too. fsdp2: PyTorch shards all three. auto: ddp where there are several processes, single where there is one."""
    offload: Literal["none", "optimizer", "all"] = "none"
    """What waits in the memory of the CPU: the optimizer (zero2), or the weights too (zero3, fsdp2)."""
    batch: int | None = Field(default=None, gt=0)
    """Examples of one step, over all processes: then their number changes nothing, and a run may go on with another.
    training.per_device_train_batch_size is the most that a process takes at once; the rest is accumulated."""
    config: str | None = None
    """A DeepSpeed JSON of your own instead of ours; its stage must be the one that `kind` names."""

    @model_validator(mode="after")
    def _possible(self) -> Engine:
        if self.offload != "none" and not self.config and (self.kind, self.offload) not in OFFLOADS:
            allowed = ", ".join(f"{kind} with {offload}" for kind, offload in OFFLOADS if offload != "none")
            raise ValueError(
                f"{self.kind} cannot offload {self.offload}; possible are {allowed}, or a config of your own"
            )
        if self.config and not self.stage:
            raise ValueError(f"config is a DeepSpeed JSON, kind is {self.kind}; set kind to zero1, zero2 or zero3")
        if self.config and self.offload != "none":
            raise ValueError("offload is said by your own config; leave it out here")
        return self

    @property
    def stage(self) -> int:
        """The ZeRO stage, 0 where it is not DeepSpeed's."""
        return int(self.kind[-1]) if self.kind.startswith("zero") else 0

    @property
    def name(self) -> str:
        """`kind` with auto decided."""
        return self.kind if self.kind != "auto" else "ddp" if ranks.world() > 1 else "single"

    def batches(self, training: dict[str, Any], processes: int | None = None) -> dict[str, Any]:
        """TrainingArguments with sizes that make up `batch` over so many processes, those of this run if not said.

        Raises ValueError where the processes cannot share it equally.
        """
        if self.batch is None:
            return training
        processes = processes or ranks.world()
        share, rest = divmod(self.batch, processes)
        if rest:
            raise ValueError(
                f"engine.batch is {self.batch}, which {processes} processes cannot share equally; take a multiple of "
                f"{processes}, or another number of processes."
            )
        most = min(share, int(training.get(*SIZE)))
        size = max(size for size in range(1, most + 1) if share % size == 0)
        return training | {SIZE[0]: size, ACCUMULATED[0]: share // size}

    @property
    def shards_weights(self) -> bool:
        """Whether no process holds the whole model."""
        return self.name in ("zero3", "fsdp2")


def step_size(training: dict[str, Any]) -> int:
    """Examples of one step, over all processes and micro-batches."""
    return int(training.get(*SIZE)) * int(training.get(*ACCUMULATED)) * ranks.world()


@contextmanager
def running(engine: Engine) -> Iterator[None]:
    """Prepares this process for a training, and makes the libraries forget it afterwards: they keep it in globals.

    Raises ValueError where the engine and the number of processes do not go together.
    """
    if engine.name == "single" and ranks.world() > 1:
        raise ValueError(
            f"engine.kind is single, but there are {ranks.world()} processes; set it to auto, zero2 or fsdp2."
        )
    if engine.name == "ddp" and ranks.world() == 1:
        raise ValueError(
            "engine.kind is ddp, but there is one process; start several with torchrun, or set it to auto."
        )
    if engine.name == "fsdp2" and engine.offload != "none" and ranks.device() == "cpu":
        raise ValueError("engine.offload moves what fsdp2 keeps on GPUs to the CPU, and there is no GPU; leave it out.")
    if engine.stage or engine.name == "fsdp2":
        ranks.alone()
    _forget()
    ranks.start()
    if engine.stage:
        _start_deepspeed()
    try:
        yield
    finally:
        _forget()


def arguments(engine: Engine, dtype: str, universal: bool = False) -> dict[str, Any]:
    """What the engine asks of TrainingArguments. `universal`: the checkpoint to resume is one for any number of processes."""
    if engine.name == "fsdp2":
        config = {"version": 2, "cpu_offload": engine.offload == "all", "state_dict_type": "SHARDED_STATE_DICT"}
        return {"fsdp": True, "fsdp_config": config}
    if not engine.stage:
        return {}
    config = deepspeed_config(engine)
    if universal:
        config.setdefault("checkpoint", {})["load_universal"] = True
    return {"deepspeed": config} | ({"bf16": True} if dtype == "bfloat16" else {})


def deepspeed_config(engine: Engine) -> dict[str, Any]:
    """The DeepSpeed JSON, ours or the user's. Raises ValueError where its stage is not the engine's."""
    file = Path(engine.config) if engine.config else DEEPSPEED / FILES[engine.kind, engine.offload]
    if not file.is_file():
        raise ValueError(f"engine.config: there is no file {file}; ours are in {DEEPSPEED}.")
    config = json.loads(file.read_text())
    stage = config.get("zero_optimization", {}).get("stage", 0)
    if stage != engine.stage:
        raise ValueError(f"engine.config: {file} asks for ZeRO stage {stage}, engine.kind is {engine.kind}.")
    return config


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
    if isinstance(wrapped, DistributedDataParallel):
        return "ddp"
    return "fsdp2" if _sharded(wrapped) else "single"


def check(engine: Engine, wrapped: Any) -> None:
    """Raise ValueError unless the model is spread over processes as the engine says."""
    found = engine_of(wrapped)
    if found != engine.name:
        raise ValueError(
            f"engine.kind is {engine.kind}, but the model ended up in {found} ({type(wrapped).__name__}, {ranks.world()} "
            "processes). Nothing was trained. Set engine.kind to what you want, and check the versions of accelerate, "
            "transformers and deepspeed."
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


def set_apart(optimizer: Any, groups: list[dict[str, Any]]) -> None:
    """Give each group of an optimizer its own settings and its own count of steps again.

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

    return any(
        isinstance(m, FSDPModule) and next(m.children(), None) is not None for m in model.modules() if m is not model
    )


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
    on_cpu = ranks.device() == "cpu"
    if on_cpu:
        # else its first collective compiles a shared-memory one with g++, for minutes; gloo gives the same numbers
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    deepspeed.init_distributed("gloo" if on_cpu else "nccl", auto_mpi_discovery=False, verbose=False)
