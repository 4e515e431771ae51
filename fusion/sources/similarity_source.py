"""The backend `similarity`: rows from a model's output embeddings alone, whatever the context."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn
from typing_extensions import override

from fusion.core.rows import LogitRows, Positions
from fusion.data.batching import pad_texts
from fusion.data.encode import Encoded
from fusion.models.head import Head
from fusion.models.loading import load_model, vocabulary_size
from fusion.sources.base import Backend, Progress, SourceRequest


class Similarity(Backend):
    """Cosine similarity of the true token to all others in the model's output embeddings; the model never reads the text.

    softmax over the vocabulary of cos(w_y, w_k) / temperature, y the true token and w the rows of the output layer.
    A control: how much of a source's benefit is knowing which tokens are similar? Compare with backend transformers.

    Source: the partial teacher KD-sim of Tang et al. 2020, arXiv:2002.03532. Its details we know at second hand only.
    """

    kind: Literal["similarity"] = "similarity"
    has_weights: ClassVar[bool] = True
    unknown_fields: ClassVar[frozenset[str]] = frozenset({"hidden"})
    temperature: float = Field(default=0.05, gt=0)
    """Divides the cosines. A guess: a token is then 20 nats more like itself than like one at a right angle."""

    @override
    def open(self, request: SourceRequest) -> SimilaritySource:
        model = load_model(request.ref, request.dtype, request.device)
        head = Head.from_model(model, vocabulary_size(request.tokenizer))
        weight: Any = head.module.weight
        return SimilaritySource(
            unit_rows(weight[: head.vocabulary].detach()), self.temperature, min(request.k, head.vocabulary)
        )


@dataclass(frozen=True)
class SimilaritySource:
    """Rows from output embeddings of unit length, in float32."""

    embeddings: Float[Tensor, "V D"]
    temperature: float
    k: int

    @torch.inference_mode()
    def rows(self, texts: Sequence[Encoded], progress: Progress | None = None) -> LogitRows:
        """See `Source.rows`. Each distinct token is compared with the vocabulary once."""
        positions = pad_texts(texts, "cpu")[2]
        assert positions.token is not None
        token, index = positions.token.unique(return_inverse=True)
        hidden = self.embeddings[token.to(self.embeddings.device)] / self.temperature
        zero = torch.zeros_like(token)
        at = Positions(token=token, prefix=zero, example=zero).to(hidden.device)
        by_token, _ = self._head().rows(hidden, at, self.k)
        rows = by_token.to("cpu").select(index)
        if progress is not None:
            progress(sum(len(text.input_ids) for text in texts))
        return dataclasses.replace(rows, prefix=positions.prefix, example=positions.example)

    def _head(self) -> Head:
        layer: Any = nn.Linear(*self.embeddings.shape[::-1], bias=False, device="meta")
        layer.weight = nn.Parameter(self.embeddings, requires_grad=False)
        return Head(layer, len(self.embeddings))


def unit_rows(embeddings: Float[Tensor, "V D"]) -> Float[Tensor, "V D"]:
    """Return each row divided by its length, in float32; a row of zeros stays zeros."""
    return nn.functional.normalize(embeddings.float(), dim=-1)
