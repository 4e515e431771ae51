"""Modules of the objectives' own, one for each source that is learned from: part of the model while it trains."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Literal

import torch
from torch import nn

from fusion.cache import Cache
from fusion.cache.head_recovery import DEFAULT_ROWS, recover_span_from_cache
from fusion.models.head import Head, unwrap_model
from fusion.models.loading import ModelRef, load_config, load_model
from fusion.objectives import ModuleObjective, ModuleSpec, Objective, OutputLayer
from fusion.training.batch_targets import TrainingSource

NAME = "fusion_modules"
NOT_LINEAR = (
    "{} does more to its logits than a matrix and a bias (soft-capping, or a layer of its own kind), so its output layer "
    "cannot be used apart. Leave dual_head out, or the source."
)


def build_modules(
    objectives: Sequence[Objective], sources: Sequence[TrainingSource], pivot_width: int, *, dtype: str, seed: int
) -> nn.ModuleDict:
    """Build the modules of each objective that has some, by its number, then by source.

    Every process builds the same, whatever was drawn at random before. Trained parts are float32, frozen ones `dtype`.
    """
    modules = nn.ModuleDict()
    for number, objective in enumerate(objectives):
        if isinstance(objective, ModuleObjective):
            modules[str(number)] = nn.ModuleDict()
            for source in sources:
                with torch.random.fork_rng():
                    torch.manual_seed(seed)
                    module = objective.build_module(_spec(source, pivot_width, dtype))
                modules[str(number)][_key(source.name)] = module  # type: ignore[index]
    return modules


def count_parameters(
    objectives: Sequence[Objective], pivot_width: int, source_width: int, source_vocabulary: int
) -> tuple[int, int]:
    """Count the numbers that are trained, and those that are frozen, in the modules for one source of that size."""
    trained = frozen = 0
    for objective in objectives:
        if isinstance(objective, ModuleObjective) and objective.requirements.trains_module and objective.weight:
            with torch.device("meta"):
                head = OutputLayer(torch.empty(source_vocabulary, source_width))
                spec = ModuleSpec(pivot_width, source_width, source_vocabulary, lambda _, head=head: head, nn.Identity)
                module = objective.build_module(spec)
            trained += sum(weight.numel() for weight in module.parameters())
            frozen += sum(each.numel() for each in module.buffers())
    return trained, frozen


def check_modules(
    objectives: Sequence[Objective], model: ModelRef | None, vocabulary: int, cache: Cache | None = None
) -> None:
    """Raise ValueError for a module that cannot be built for this source, as far as that is known without its weights."""
    for objective in objectives:
        if isinstance(objective, ModuleObjective) and objective.weight:
            objective.check(vocabulary)
            layer = objective.requirements.output_layer
            if layer is not None and model is not None:
                text = load_config(model).get_text_config()
                if getattr(text, "final_logit_softcapping", None) is not None:
                    raise ValueError(NOT_LINEAR.format(model.path))
            if layer == "cache" and cache is not None:
                recover_output_layer(cache, model, "float32")


def attach_modules(model: Any, modules: nn.ModuleDict) -> None:
    """Make modules with parameters part of the model: of what is optimized, spread over processes, saved and resumed.

    Modules without parameters (tables) only move to the model's device.
    """
    modules.to(next(model.parameters()).device)
    trained = nn.ModuleDict({number: each for number, each in modules.items() if any(True for _ in each.parameters())})
    if len(trained):
        model.add_module(NAME, trained)


def detach_modules(model: Any) -> None:
    """Take the modules out again, so that the model is what it would be without them."""
    if hasattr(inside := unwrap_model(model), NAME):
        delattr(inside, NAME)


def modules_of(modules: nn.ModuleDict, number: int, sources: Iterable[str]) -> dict[str, nn.Module]:
    """The modules of the objective with that number, by source; none where it has none."""
    return {source: modules[str(number)][_key(source)] for source in sources} if str(number) in modules else {}  # type: ignore[index]


def read_output_layer(ref: ModelRef | None, vocabulary: int, dtype: str) -> OutputLayer:
    """Read what makes logits of a model's hidden states. Raises ValueError where that is more than a matrix and a bias."""
    if ref is None:
        raise ValueError("The source's weights are not here (its backend knows log-probabilities only).")
    head = Head.from_model(load_model(ref, dtype), vocabulary)
    if head.softcap is not None or type(head.module) is not nn.Linear:
        raise ValueError(NOT_LINEAR.format(ref.path))
    weight, bias = head.module.weight[:vocabulary], head.module.bias
    layer = OutputLayer(weight * head.scale, None if bias is None else bias[:vocabulary] * head.scale)
    return OutputLayer(*(None if each is None else each.detach().clone() for each in layer))  # type: ignore[arg-type]


def recover_output_layer(cache: Cache, model: ModelRef | None, dtype: str) -> OutputLayer:
    """Recover the span of a source's output layer from whole rows of its cache alone: four for each dimension, if known.

    Raises ValueError where they do not tell.
    """
    width = 0 if model is None else load_config(model).get_text_config().hidden_size
    rows = max(DEFAULT_ROWS, 4 * width)
    try:
        basis = recover_span_from_cache(cache, rows).basis
    except ValueError as error:
        raise ValueError(
            f"dual_head with head: cache finds no output layer in {cache.folder}, of which it reads about {rows} rows. {error} "
            "More examples give more rows; or set head to source."
        ) from error
    return OutputLayer(basis.to(getattr(torch, dtype)))


def _spec(source: TrainingSource, pivot_width: int, dtype: str) -> ModuleSpec:
    vocabulary, cache = len(source.vocabulary_map), source.cache

    def output_layer(where: Literal["source", "cache"]) -> OutputLayer:
        if where == "cache":
            return recover_output_layer(cache, source.model, dtype)
        return read_output_layer(source.model, vocabulary, dtype)

    return ModuleSpec(pivot_width, cache.hidden_size, vocabulary, output_layer, source.spelling_distance)


def _key(source: str) -> str:
    """torch reads a dot as a path; a source's name has no slash."""
    return source.replace(".", "/")
