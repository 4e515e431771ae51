"""Sources are told apart, and those that are fine-tuned can be."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from fusion.config.data import Data
from fusion.config.models import SourceSettings
from fusion.responses import GeneratedResponses

if TYPE_CHECKING:
    from fusion.config.run import Config


RESERVED = {
    "pivot",
    "fine-tuned",
    "baseline",
    "unified",
    "pairwise",
    "merged",
    "fused",
    "mean",
    "chosen",
    "rounds",
    "preferences",
}
"""Names that a run uses itself, in its folders and tables."""


def check_sources(config: Config) -> None:
    """Each source has a name of its own and something to teach."""
    _names([source.name for source in config.sources])
    for source in config.sources:
        if source.fine_tune is not None:
            _trainable(source, config.data)
        # its answers keep what no other source knows; its logits hold the pivot to what it was, which pays where texts are few
        used = config.learns_predictions or isinstance(config.data.responses, GeneratedResponses)
        same = (source.path, source.revision) == (config.pivot.path, config.pivot.revision)
        if same and source.backend.has_weights and not source.differs_from_pivot and not used:
            raise ValueError(
                f"source {source.name} is the pivot itself ({source.path}), and no objective reads what it predicts: give one "
                "that does, such as forward_kl, which holds the pivot to what it was; or let it answer prompts (data.responses)"
            )


def _names(names: Sequence[str]) -> None:
    """Names of sources are names of folders, and some disks do not tell upper from lower case."""
    alike = {name.casefold() for name in names}
    if len(alike) < len(names):
        raise ValueError(f"sources need different names, whatever their case, got {', '.join(names)}")
    if taken := [name for name in names if name.casefold() in RESERVED]:
        raise ValueError(f"no source may be called {', '.join(taken)}: the run uses that name itself")
    readers = alike | {"pivot"}
    if taken := [name for name in names if name.casefold().removesuffix("-reads") in readers - {name.casefold()}]:
        raise ValueError(
            f"no source may be called {taken[0]}: what {taken[0][: -len('-reads')]} makes of answers is kept under that name"
        )


def _trainable(source: SourceSettings, data: Data) -> None:
    if not source.backend.has_weights:
        raise ValueError(
            f"source {source.name} has fine_tune, and its weights are not here to be trained: backend {source.backend.kind} "
            "runs them elsewhere. Leave fine_tune out, or give it backend transformers"
        )
    if source.fine_tune and source.fine_tune.folds > 1 and source.backend.kind == "vllm":
        raise ValueError(
            f"source {source.name} has fine_tune.folds {source.fine_tune.folds}: so many models read side by side, and "
            "vllm takes the GPU for one; give it backend transformers, or leave folds out"
        )
    if all(each.response is None for each in data.train):
        raise ValueError(
            f"source {source.name} has fine_tune, and no data set in data.train has responses to train it on; leave it out"
        )
