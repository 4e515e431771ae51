"""Source models as makers of rows: one protocol, one file a backend."""

from fusion.sources.base import Source
from fusion.sources.transformers_source import TransformersSource

__all__ = ["Source", "TransformersSource"]
