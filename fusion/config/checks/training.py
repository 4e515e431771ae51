"""What is trained can be: the engine, precision, quantization and the result that is made of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fusion.objectives import CrossEntropy
from fusion.training.adapter import QLoRA

if TYPE_CHECKING:
    from fusion.config.run import Config


def check_result(config: Config) -> None:
    """The result is one of the models that are made, from as many as the merge takes, in one precision."""
    if config.chosen not in config.strategies:
        raise ValueError(f"result is {config.chosen}, but strategies are {', '.join(config.strategies)}")
    if "pairwise" in config.strategies:
        config.merge.check_models(len(config.sources))
    if config.training.get("fp16") and config.dtype == "bfloat16":
        raise ValueError("training.fp16 scales gradients of float32 weights, and dtype is bfloat16; set one of the two")


def check_engine(config: Config) -> None:
    """The engine can train what is trained, as it is."""
    if config.engine.global_batch_size and "gradient_accumulation_steps" in config.training:
        raise ValueError(
            "engine.global_batch_size says how much is accumulated; leave out training.gradient_accumulation_steps"
        )
    tuned = {f"sources.{s.name}.fine_tune.adapter": (s, s.fine_tune.adapter) for s in config.sources if s.fine_tune}
    for place, (model, adapter) in {"adapter": (config.pivot, config.adapter), **tuned}.items():
        if isinstance(adapter, QLoRA) and config.engine.kind in ("zero3", "fsdp2"):
            raise ValueError(
                f"engine.kind {config.engine.kind} cannot shard weights of 4 bits ({place}.kind qlora); use ddp or zero2"
            )
        if model.path.endswith(".gguf") and config.engine.kind == "zero3":
            raise ValueError(
                f"engine.kind zero3 loads what it trains in shards, which {model.path} cannot be; use fsdp2 or zero2"
            )


def check_quantization(config: Config) -> None:
    """Whole weights are trained that can be quantized."""
    if config.quantization_aware_training is None:
        return
    kind = config.quantization_aware_training.kind
    if config.adapter is not None:
        raise ValueError(
            f"quantization_aware_training.kind {kind} trains the pivot's own weights, adapter.kind {config.adapter.kind} "
            "leaves them as they are; leave one of them out"
        )
    if config.engine.kind in ("zero3", "fsdp2"):
        raise ValueError(
            f"quantization_aware_training.kind {kind} needs the whole of each weight, which engine.kind "
            f"{config.engine.kind} shards; use ddp or zero2"
        )
    if "pairwise" in config.strategies:
        raise ValueError(
            f"quantization_aware_training.kind {kind}: a merge of quantized models is not quantized; use strategies: [unified]"
        )


def check_objectives(config: Config) -> None:
    """What is about texts that the pivot writes has none to look at outside rounds."""
    for number, objective in enumerate(config.objectives):
        if objective.requirements.rollouts:
            setting = f" with part: {objective.part}" if isinstance(objective, CrossEntropy) else ""
            raise ValueError(
                f"objectives[{number}] ({objective.kind}){setting} is about texts that the pivot writes in rounds, and these "
                "objectives are learned from the data; it belongs under rounds.objectives"
            )
