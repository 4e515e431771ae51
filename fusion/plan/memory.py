"""Memory of one process in bytes, itemised, for every way to spread a training over GPUs.

Weights, gradients and optimizer follow from counts of parameters and are exact. Activations are what the backward pass
needs of a layer as transformers writes it, tensor by tensor. Buffers are what an engine sets aside by its defaults.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Literal, NamedTuple

from fusion.plan.architecture import Architecture

Kind = Literal["single", "ddp", "zero1", "zero2", "zero3", "fsdp2"]
Offload = Literal["none", "optimizer", "all"]
Bytes = int | float
HEADROOM = 0.1
"""Share of a GPU that is left free for its context, communication and fragmentation. An assumption."""
REDUCE_BUCKET_SIZE = 500_000_000  # numbers that ZeRO-1 and 2 reduce at once (reduce_bucket_size)
MAX_LIVE_PARAMETERS = 1_000_000_000  # numbers that ZeRO-3 keeps gathered (stage3_max_live_parameters)


class EngineOption(NamedTuple):
    """How weights, gradients and optimizer are spread over processes, and what waits in the host's memory."""

    kind: Kind
    offload: Offload = "none"

    def __str__(self) -> str:
        return self.kind if self.offload == "none" else f"{self.kind} {self.offload}"


ENGINE_OPTIONS = (
    EngineOption("single"),
    EngineOption("ddp"),
    EngineOption("zero1"),
    EngineOption("zero2"),
    EngineOption("fsdp2"),
    EngineOption("zero3"),
    EngineOption("zero2", "optimizer"),
    EngineOption("fsdp2", "all"),
    EngineOption("zero3", "all"),
)
"""From the least communication to the least memory."""


@dataclass(frozen=True)
class Precision:
    """Bytes of one number, in the weights and in computation."""

    weights: int
    """As the model is loaded (`dtype`)."""
    compute: int
    """As layers compute."""
    mixed: bool = False
    """Whether `training.bf16` or `fp16` is set."""


@dataclass(frozen=True)
class Memory:
    """Bytes of one process on its GPU; `host` are those in the host's memory."""

    weights: Bytes = 0
    gradients: Bytes = 0
    optimizer: Bytes = 0
    buffers: Bytes = 0
    """Communication and gathered parameters."""
    activations: Bytes = 0
    """What the backward pass needs of a micro-batch."""
    logits: Bytes = 0
    """The chunk of logits that exists at once, with its gradients and the head's."""
    host: Bytes = 0
    """What was moved to the host, for this process."""

    @property
    def total(self) -> Bytes:
        """Bytes on the GPU at the peak."""
        return sum(getattr(self, f.name) for f in fields(self) if f.name != "host")

    def fits(self, gpu: Bytes) -> bool:
        """Whether a GPU with that many bytes holds it, a tenth left free."""
        return self.total <= (1 - HEADROOM) * gpu


def model_states(model: Architecture, engine: EngineOption, precision: Precision, processes: int) -> Memory:
    """Return the bytes of one process for weights, gradients, AdamW's two moments and buffers, as the engine spreads them.

    Torch keeps gradients and both moments in the type of the weights, which accelerate makes float32 for FSDP2 in mixed
    precision. DeepSpeed keeps a float32 copy of the weights and both moments beside them, 12 bytes a parameter, which ZeRO-1
    divides over the processes, ZeRO-2 with the gradients, ZeRO-3 with everything. Source: Rajbhandari et al. 2020,
    arXiv:1910.02054, section 3.
    """
    spread = _torch if engine.kind in ("single", "ddp", "fsdp2") else _deepspeed
    return _offloaded(spread(model, engine.kind, precision, processes), engine.offload)


def _torch(model: Architecture, kind: Kind, precision: Precision, processes: int) -> Memory:
    own = model.parameters * precision.weights
    if (
        kind == "fsdp2"
    ):  # the layer at work and the next one gathered, and one layer's gradients before they are reduced
        share = model.parameters * (4 if precision.mixed else precision.weights) / processes
        buffers = max(3 * model.largest_layer, 2 * model.largest_tensor) * precision.compute
        return Memory(share, share, 2 * share, buffers)
    cast = model.parameters * precision.compute if precision.compute < precision.weights else 0  # autocast keeps copies
    buckets = own if kind == "ddp" else 0  # gradients are reduced in a second copy
    return Memory(own, own, 2 * own, cast + buckets)


def _deepspeed(model: Architecture, kind: Kind, precision: Precision, processes: int) -> Memory:
    own, master = model.parameters * precision.compute, model.parameters * 12
    if kind == "zero3":
        buckets = model.hidden_size**2 * precision.compute  # what transformers writes for `auto`
        gathered = (
            min(model.parameters, MAX_LIVE_PARAMETERS + model.vocab_size * model.hidden_size) * precision.compute
        )  # the head stays whole
        return Memory(own / processes, own / processes, master / processes, gathered + buckets)
    buckets = 2 * REDUCE_BUCKET_SIZE * precision.compute  # one is filled while the other is reduced
    return Memory(own, own / processes if kind == "zero2" else own, master / processes, buckets)


def _offloaded(memory: Memory, offload: Offload) -> Memory:
    if offload == "none":
        return memory
    gone = memory.optimizer + memory.gradients
    stays = replace(memory, optimizer=0.0, gradients=0.0, host=gone)
    return stays if offload == "optimizer" else replace(stays, weights=0.0, host=gone + memory.weights)


def activations(
    model: Architecture, tokens: int, length: int, precision: Precision, padded: bool, checkpointed: bool
) -> Bytes:
    """Bytes that the backward pass needs of `tokens` in sequences of `length`.

    With gradient checkpointing the input of every layer, and all of one layer while it is computed again. A padded batch has
    an attention mask, for which fused kernels take one key a head and a row of the mask a token.
    """
    layer = _layer(model, length, precision.compute, padded)
    ends = 2 * model.hidden_size * (4 + precision.compute)  # the embedding, the last norm, the rows that the head reads
    inputs = model.hidden_size * precision.compute * model.layers
    return tokens * (ends + (inputs + layer if checkpointed else model.layers * layer))


def _layer(model: Architecture, length: int, width: int, padded: bool) -> Bytes:
    """Bytes of one layer for one token: inputs of matrices, both sides of products, float32 insides of norms."""
    norms = model.norm_size * (
        4 + 2 * width
    )  # the input in float32, scaled in the compute type before and after the weight
    keys = model.query_size if padded and not model.eager_attention else model.key_size
    attention = 2 * width * (model.query_size + keys) + 4 * model.heads + (width * length if padded else 0)
    scores = (
        8 * model.heads * length if model.eager_attention else 0
    )  # softmax in float32 and what goes in and comes out
    feed_forward = model.intermediate_size * width * (4 if model.gated else 2)
    return norms + attention + scores + feed_forward


def logits(vocabulary: int, at_once: int, copies: int) -> Bytes:
    """Bytes of one chunk of float32 logits and of `copies` of it; `at_once` numbers of logits, but 16 rows at least."""
    return 4 * (1 + copies) * max(at_once, 16 * vocabulary)


def head_gradient(model: Architecture, precision: Precision) -> Bytes:
    """Bytes of the gradient of the head's weights: that of the chunk of logits at hand, and the sum so far."""
    return 2 * model.vocab_size * model.hidden_size * min(precision.weights, precision.compute)


def extraction(model: Architecture, tokens: int, width: int, chunk: Bytes) -> Memory:
    """Memory of a source that reads `tokens` at once: nothing is kept for a backward pass but one layer's activations."""
    at_work = tokens * (
        width * (2 * model.query_size + 2 * model.key_size + 3 * model.intermediate_size) + 8 * model.hidden_size
    )
    return Memory(weights=model.parameters * width, activations=at_work, logits=chunk)
