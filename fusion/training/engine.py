"""How one training is spread over processes, and what that asks of Trainer."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

import fusion_launch
from fusion.core.settings import Settings
from fusion.core.text_files import read_object
from fusion.runtime import distributed

DEEPSPEED = Path(fusion_launch.__file__).parent / "deepspeed"
FILES = {
    ("zero1", "none"): "zero1.json",
    ("zero2", "none"): "zero2.json",
    ("zero2", "optimizer"): "zero2_offload.json",
    ("zero3", "none"): "zero3.json",
    ("zero3", "all"): "zero3_offload.json",
}
OFFLOADS = {**dict.fromkeys(FILES, ""), ("fsdp2", "none"): "", ("fsdp2", "all"): ""}

BATCH_SIZE, ACCUMULATION = (
    ("per_device_train_batch_size", 8),
    ("gradient_accumulation_steps", 1),
)  # and Trainer's defaults


class Engine(Settings):
    """How a training is spread over the processes that torchrun starts. It changes no number beyond rounding."""

    kind: Literal["auto", "single", "ddp", "zero1", "zero2", "zero3", "fsdp2"] = "auto"
    """ddp: a whole model in each process. zero1, zero2, zero3: DeepSpeed shards the optimizer, the gradients too, the weights
    too. fsdp2: PyTorch shards all three. auto: ddp where there are several processes, single where there is one."""
    offload: Literal["none", "optimizer", "all"] = "none"
    """What waits in the memory of the CPU: the optimizer (zero2), or the weights too (zero3, fsdp2)."""
    global_batch_size: int | None = Field(default=None, gt=0)
    """Examples of one step, over all processes: then their number changes nothing, and a run may go on with another.
    training.per_device_train_batch_size is the most that a process takes at once; the rest is accumulated."""
    deepspeed_config: str | None = None
    """A DeepSpeed JSON of your own instead of ours; its stage must be the one that `kind` names."""

    @model_validator(mode="after")
    def _possible(self) -> Engine:
        if self.offload != "none" and not self.deepspeed_config and (self.kind, self.offload) not in OFFLOADS:
            allowed = ", ".join(f"{kind} with {offload}" for kind, offload in OFFLOADS if offload != "none")
            raise ValueError(
                f"{self.kind} cannot offload {self.offload}; possible are {allowed}, or a deepspeed_config of your own"
            )
        if self.deepspeed_config and not self.stage:
            raise ValueError(
                f"deepspeed_config is a DeepSpeed JSON, kind is {self.kind}; set kind to zero1, zero2 or zero3"
            )
        if self.deepspeed_config and self.offload != "none":
            raise ValueError("offload is said by your own deepspeed_config; leave it out here")
        return self

    @property
    def stage(self) -> int:
        """The ZeRO stage, 0 where it is not DeepSpeed's."""
        return int(self.kind[-1]) if self.kind.startswith("zero") else 0

    @property
    def name(self) -> str:
        """`kind` with auto decided."""
        return self.kind if self.kind != "auto" else "ddp" if distributed.world_size() > 1 else "single"

    def batch_arguments(self, training: dict[str, Any], processes: int | None = None) -> dict[str, Any]:
        """TrainingArguments with sizes that make up `global_batch_size` over so many processes, those of this run if not said.

        Raises ValueError where the processes cannot share it equally.
        """
        if self.global_batch_size is None:
            return training
        processes = processes or distributed.world_size()
        share, rest = divmod(self.global_batch_size, processes)
        if rest:
            raise ValueError(
                f"engine.global_batch_size is {self.global_batch_size}, which {processes} processes cannot share "
                f"equally; take a multiple of {processes}, or another number of processes."
            )
        most = min(share, int(training.get(*BATCH_SIZE)))
        size = max(size for size in range(1, most + 1) if share % size == 0)
        return training | {BATCH_SIZE[0]: size, ACCUMULATION[0]: share // size}

    @property
    def shards_weights(self) -> bool:
        """Whether no process holds the whole model."""
        return self.name in ("zero3", "fsdp2")


def examples_per_step(training: dict[str, Any]) -> int:
    """Examples of one step, over all processes and micro-batches."""
    return int(training.get(*BATCH_SIZE)) * int(training.get(*ACCUMULATION)) * distributed.world_size()


def engine_arguments(engine: Engine, dtype: str, universal: bool = False) -> dict[str, Any]:
    """What the engine asks of TrainingArguments. `universal`: the checkpoint to resume is one for any number of processes."""
    if engine.name == "fsdp2":
        config = {"version": 2, "cpu_offload": engine.offload == "all", "state_dict_type": "SHARDED_STATE_DICT"}
        return {"fsdp": True, "fsdp_config": config}
    if not engine.stage:
        return {}
    config = read_deepspeed_config(engine)
    if universal:
        config.setdefault("checkpoint", {})["load_universal"] = True
    return {"deepspeed": config} | ({"bf16": True} if dtype == "bfloat16" else {})


def read_deepspeed_config(engine: Engine) -> dict[str, Any]:
    """The DeepSpeed JSON, ours or the user's. Raises ValueError where its stage is not the engine's."""
    file = Path(engine.deepspeed_config) if engine.deepspeed_config else DEEPSPEED / FILES[engine.kind, engine.offload]
    if not file.is_file():
        raise ValueError(f"engine.deepspeed_config: there is no file {file}; ours are in {DEEPSPEED}.")
    config = read_object(file)
    stage = config.get("zero_optimization", {}).get("stage", 0)
    if stage != engine.stage:
        raise ValueError(f"engine.deepspeed_config: {file} asks for ZeRO stage {stage}, engine.kind is {engine.kind}.")
    return config
