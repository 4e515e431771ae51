"""Backends that turn a source (teacher) model into `LogitRows`; one file each.

`Backend` holds the settings of a configuration and opens a `Source` (rows of given texts) or a `Generator` (completions of
prompts). `AnyBackend` is the union of all backends; `base.py` says what a new one must offer.
"""

from typing import Annotated

from pydantic import Field

from fusion.sources.base import Backend, Source, SourceRequest
from fusion.sources.imported import Imported
from fusion.sources.openai_source import OpenAI
from fusion.sources.sampling import RandomSampling
from fusion.sources.similarity_source import Similarity
from fusion.sources.transformers_source import Transformers, TransformersSource
from fusion.sources.vllm_source import VLLM

AnyBackend = Annotated[Transformers | Similarity | VLLM | OpenAI | Imported, Field(discriminator="kind")]

__all__ = [
    "VLLM",
    "AnyBackend",
    "Backend",
    "Imported",
    "OpenAI",
    "RandomSampling",
    "Similarity",
    "Source",
    "SourceRequest",
    "Transformers",
    "TransformersSource",
]
