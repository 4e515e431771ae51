"""Fuse several language models, each with its own tokenizer, into one better model.

`fusion.run("quickstart")` does the whole thing; `fusion.pipeline` tells how; `fusion.api` has what scripts and training loops
call, and docs/api.md lists it. Importing this imports no torch: each name is loaded when it is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fusion import objectives as objectives
    from fusion.alignment import map_to_pivot
    from fusion.api.collator import FusionCollator
    from fusion.api.evaluation import evaluate
    from fusion.api.examples import read_examples
    from fusion.api.loss import FusionLoss
    from fusion.api.merging import merge
    from fusion.api.mixin import FusionMixin
    from fusion.api.publishing import push
    from fusion.api.reading import extract
    from fusion.api.rows import align, logit_rows, vocabulary_map
    from fusion.api.runs import Run, load_config, run
    from fusion.cache import Cache
    from fusion.config import Config
    from fusion.core.rows import LogitRows, MappedRows, Pairs, Positions
    from fusion.data.example import Example
    from fusion_eval.results import Result
    from fusion_eval.statistics.comparison import compare, summarise

__version__ = "0.1.0"
__all__ = [
    "Cache", "Config", "Example", "FusionCollator", "FusionLoss", "FusionMixin", "LogitRows", "MappedRows", "Pairs",
    "Positions", "Result", "Run", "align", "compare", "evaluate", "extract", "load_config", "logit_rows", "map_to_pivot",
    "merge", "push", "read_examples", "run", "summarise", "vocabulary_map",
]  # fmt: skip

_HOME = {
    "Cache": "fusion.cache",
    "Config": "fusion.config",
    "Example": "fusion.data.example",
    "FusionCollator": "fusion.api.collator",
    "FusionLoss": "fusion.api.loss",
    "FusionMixin": "fusion.api.mixin",
    "LogitRows": "fusion.core.rows",
    "MappedRows": "fusion.core.rows",
    "Pairs": "fusion.core.rows",
    "Positions": "fusion.core.rows",
    "Result": "fusion_eval.results",
    "Run": "fusion.api.runs",
    "align": "fusion.api.rows",
    "compare": "fusion_eval.statistics.comparison",
    "evaluate": "fusion.api.evaluation",
    "extract": "fusion.api.reading",
    "load_config": "fusion.api.runs",
    "logit_rows": "fusion.api.rows",
    "map_to_pivot": "fusion.alignment",
    "merge": "fusion.api.merging",
    "push": "fusion.api.publishing",
    "read_examples": "fusion.api.examples",
    "run": "fusion.api.runs",
    "summarise": "fusion_eval.statistics.comparison",
    "vocabulary_map": "fusion.api.rows",
}
_MODULES = ("objectives", "weighting")
"""Subpackages whose classes are public too, such as `fusion.objectives.ForwardKL`."""


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(f"fusion.{name}")
    if name not in _HOME:
        raise AttributeError(f"module fusion has no attribute {name!r}; public names are {', '.join(__all__)}")
    return getattr(importlib.import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted([*__all__, *_MODULES, "__version__"])
