"""Modules that terms own: one for each source that is learned from, part of the model while it trains, and then taken out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import nn

from fusion.cache import Cache
from fusion.cache.head_recovery import ROWS, audit
from fusion.models.head import Head, unwrapped
from fusion.models.loading import ModelRef, load_config, load_model
from fusion.objectives import AnyObjective, Between, OutputLayer, OwningObjective
from fusion.training.batch_targets import Reference

NAME = "fusion_owned"
BENT = (
    "{} does more to its logits than a matrix and a bias (soft-capping, or a layer of its own kind), so its output layer "
    "cannot be used apart. Leave dual_head out, or the source."
)


def build(
    objectives: Sequence[AnyObjective], references: Sequence[Reference], width: int, dtype: str, seed: int
) -> nn.ModuleDict:
    """The modules of each term that owns some, by its place among the terms, then by source; `width` is the pivot's.

    Every process builds the same, whatever was drawn at random before. Trained parts are float32, frozen ones `dtype`.
    """
    found = nn.ModuleDict()
    for number, objective in enumerate(objectives):
        if isinstance(objective, OwningObjective):
            found[str(number)] = nn.ModuleDict()
            for reference in references:
                with torch.random.fork_rng():
                    torch.manual_seed(seed)
                    found[str(number)][_key(reference.name)] = objective.own(_between(reference, width, dtype))  # type: ignore[index]
    return found


def numbers(objectives: Sequence[AnyObjective], width: int, source: int, vocabulary: int) -> tuple[int, int]:
    """How many numbers are trained, and how many are frozen, in the modules for one source of that width and vocabulary."""
    trained = frozen = 0
    for objective in objectives:
        if isinstance(objective, OwningObjective) and objective.weight:
            with torch.device("meta"):
                head = OutputLayer(torch.empty(vocabulary, source))
                module = objective.own(Between(width, source, vocabulary, lambda _, head=head: head))
            trained += sum(weight.numel() for weight in module.parameters())
            frozen += sum(each.numel() for each in module.buffers())
    return trained, frozen


def check(
    objectives: Sequence[AnyObjective], model: ModelRef | None, vocabulary: int, cache: Cache | None = None
) -> None:
    """Raise ValueError for a module that cannot be made for this source, as far as that is known without its weights."""
    for objective in objectives:
        if isinstance(objective, OwningObjective) and objective.weight:
            objective.check(vocabulary)
            if (objective.reads_output_layer or objective.reads_cached_head) and model is not None:
                text = load_config(model).get_text_config()
                if getattr(text, "final_logit_softcapping", None) is not None:
                    raise ValueError(BENT.format(model.path))
            if objective.reads_cached_head and cache is not None:
                recovered(cache, model, "float32")


def attach(model: Any, owned: nn.ModuleDict) -> None:
    """Make the modules part of the model: of what is optimized, spread over processes, saved in checkpoints and resumed."""
    if len(owned):
        model.add_module(NAME, owned.to(next(model.parameters()).device))


def detach(model: Any) -> None:
    """Take the modules out again, so that the model is what it would be without them."""
    if hasattr(inside := unwrapped(model), NAME):
        delattr(inside, NAME)


def of(owned: nn.ModuleDict, number: int, source: str) -> nn.Module | None:
    """The module of a term, by its place, for a source; None where it owns none."""
    return owned[str(number)][_key(source)] if str(number) in owned else None  # type: ignore[index]


def output_layer(ref: ModelRef | None, vocabulary: int, dtype: str) -> OutputLayer:
    """What makes logits of a model's hidden states. Raises ValueError where that is more than a matrix and a bias."""
    if ref is None:
        raise ValueError("The source's weights are not here (its backend knows log-probabilities only).")
    head = Head.of(load_model(ref, dtype), vocabulary)
    if head.softcap is not None or type(head.module) is not nn.Linear:
        raise ValueError(BENT.format(ref.path))
    weight, bias = head.module.weight[:vocabulary], head.module.bias
    layer = OutputLayer(weight * head.scale, None if bias is None else bias[:vocabulary] * head.scale)
    return OutputLayer(*(None if each is None else each.detach().clone() for each in layer))  # type: ignore[arg-type]


def recovered(cache: Cache, model: ModelRef | None, dtype: str) -> OutputLayer:
    """The span of a source's output layer, from whole rows of its cache alone: four for each dimension, if the width is known.

    Raises ValueError where they do not tell.
    """
    width = 0 if model is None else load_config(model).get_text_config().hidden_size
    rows = max(ROWS, 4 * width)
    try:
        basis = audit(cache, rows).basis
    except ValueError as error:
        raise ValueError(
            f"dual_head with head: cache finds no output layer in {cache.folder}, of which it reads about {rows} rows. {error} "
            "More examples give more rows; or set head to source."
        ) from error
    return OutputLayer(basis.to(getattr(torch, dtype)))


def _between(reference: Reference, width: int, dtype: str) -> Between:
    vocabulary, cache = len(reference.vocabulary_map), reference.cache

    def output(where: Literal["source", "cache"]) -> OutputLayer:
        if where == "cache":
            return recovered(cache, reference.model, dtype)
        return output_layer(reference.model, vocabulary, dtype)

    return Between(width, cache.width, vocabulary, output)


def _key(source: str) -> str:
    """torch reads a dot as a path; a source's name has no slash."""
    return source.replace(".", "/")
