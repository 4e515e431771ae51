"""Units of the pivot and of the fused model that stand for a concept, on the same text."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from fusion.analysis.concepts import (
    ACTIVE_SHARE,
    CONCEPTS,
    ConceptDetection,
    LargestActivations,
    dissect,
    label_concepts,
)
from fusion.analysis.source_effects import SAMPLE, load_models
from fusion.data.batching import pad_texts
from fusion.models.head import unwrap_model
from fusion.runtime.console import bar
from fusion.stages.context import RunContext

UnitKind = Literal["mlp", "residual"]
"""What is read in each layer: what enters the last matrix of its MLP, or its output."""


@dataclass(frozen=True)
class Dissection:
    """Concepts that the units of one model detect."""

    units: int
    """Number of units that were read."""
    places: int
    """Number of positions in the text that they were read at."""
    concepts: list[ConceptDetection]


def dissect_models(context: RunContext, units: UnitKind, sample: int = SAMPLE) -> dict[str, Dissection]:
    """The pivot and the fused model, if there is one, on the responses of the first `sample` training examples."""
    texts = context.encoded("pivot")[: min(sample, len(context.train_examples))]
    rows = [torch.tensor([row for row, prefix in enumerate(text.prefix) if prefix > 0]) for text in texts]
    held = torch.cat(
        [
            label_concepts(example.response, [text.prefix[row] for row in response_rows])
            for example, text, response_rows in zip(context.train_examples, texts, rows, strict=False)
        ]
    )
    if len(held) * ACTIVE_SHARE < 1:
        raise ValueError(
            f"{len(held)} places of text are too few to tell the {ACTIVE_SHARE:.1%} largest values from the others: it takes "
            f"{round(1 / ACTIVE_SHARE)}. Take a run with more training examples."
        )
    found = {}
    for which, model in load_models(context):
        with bar(f"units of {which}", len(texts), "texts") as advance:
            largest = _largest(model, _READERS[units], texts, len(held), advance)
        found[which] = Dissection(len(largest.values), len(held), dissect(largest, held, list(CONCEPTS)))
    return found


@torch.inference_mode()
def _largest(
    model: Any, read: Callable, texts: Sequence, places: int, advance: Callable[[int], None]
) -> LargestActivations:
    """The largest values of all units over the places of the texts, one text after another."""
    largest = None
    for start in range(0, len(texts), 8):
        some = texts[start : start + 8]
        inputs, at, about = pad_texts(some, model.device)
        chosen = at[about.prefix > 0]
        activations = torch.cat([layer.flatten(0, 1)[chosen].float().cpu() for layer in read(model, inputs)], dim=1)
        largest = largest or LargestActivations(activations.shape[1], places)
        largest.add(activations)
        advance(len(some))
    assert largest is not None, "a run has examples"
    return largest


def _residual(model: Any, inputs: dict[str, Tensor]) -> list[Tensor]:
    """The output of each layer."""
    return list(model(**inputs, output_hidden_states=True, use_cache=False, logits_to_keep=1).hidden_states[1:])


def _mlp(model: Any, inputs: dict[str, Tensor]) -> list[Tensor]:
    """What enters the last matrix of each layer's MLP. Raises ValueError for a model whose MLPs have other names."""
    inside = unwrap_model(model)
    blocks = [
        module for name, module in inside.named_modules() if name.split(".")[-1] in ("mlp", "feed_forward", "ffn")
    ]
    matrices = [[part for part in block.modules() if type(part).__name__ in ("Linear", "Conv1D")] for block in blocks]
    if not matrices or not all(matrices):
        raise ValueError(
            f"{type(inside).__name__} has no part called mlp with matrices in it, so its units cannot be found; use "
            "--concepts residual."
        )
    seen: list[Tensor] = []
    hooks = [each[-1].register_forward_pre_hook(lambda _module, args: seen.append(args[0])) for each in matrices]
    try:
        model(**inputs, use_cache=False, logits_to_keep=1)
    finally:
        for hook in hooks:
            hook.remove()
    return seen


_READERS: dict[UnitKind, Callable[[Any, dict[str, Tensor]], list[Tensor]]] = {"mlp": _mlp, "residual": _residual}
