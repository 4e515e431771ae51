"""Models of a run as messages name them, their configurations, and how much they read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from huggingface_hub import try_to_load_from_cache

from fusion.models.context_length import ContextLength, context_length
from fusion.models.loading import ModelRef

if TYPE_CHECKING:
    from fusion.stages.context import RunContext


def label(context: RunContext, name: str) -> str:
    """A model as a message names it: what it is in the run, and where it is."""
    return f"{name if name == 'pivot' else f'source {name}'} ({context.models[name].path})"


def read_configs(context: RunContext, *, local_only: bool = False) -> dict[str, Any]:
    """Configurations of the models whose weights are here, by name. With `local_only` the hub is not asked.

    A model whose configuration cannot be read is left out: who loads it says why.
    """
    found = {}
    for name, model in context.models.items():
        if context.backend(name).has_weights and (not local_only or _is_local(model.ref)):
            try:
                found[name] = context.stored_config(name)
            except (ValueError, FileNotFoundError):
                continue
    return found


def context_lengths(context: RunContext) -> dict[str, ContextLength]:
    """The longest text that each model reads, by name, where there is one."""
    found = {}
    for name, config in read_configs(context).items():
        limits = [context_length(config)]
        backend = context.backend(name)
        if (own := getattr(backend, "max_model_len", None)) is not None:
            limits = [ContextLength(own, "backend.max_model_len")]
        if limits[0] is not None:  # vLLM writes a token behind every text, which is thrown away
            found[name] = limits[0]._replace(tokens=limits[0].tokens - (backend.kind == "vllm"))
    return found


def _is_local(ref: ModelRef) -> bool:
    there = ref.local_path is not None
    return there or isinstance(try_to_load_from_cache(ref.path, "config.json", revision=ref.revision), str)
