"""Source models as makers of rows: one protocol, one file a backend, their union the list of them."""

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
