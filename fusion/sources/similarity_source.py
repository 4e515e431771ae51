"""Rows from a model's output layer alone: which tokens are like the true one, whatever the text before it."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from fusion.core.rows import LogitRows, Positions
from fusion.data.batching import pad_texts
from fusion.data.encode import Encoded
from fusion.models.head import Head
from fusion.models.loading import load_model, vocabulary_size
from fusion.sources.base import Backend, Progress, SourceRequest


class Similarity(Backend):
    """The true token's likeness to all others, from the model's output embeddings; the model never reads the text.

    softmax over the vocabulary of cos(w_y, w_k) / temperature, y the true token and w the rows of the output layer. How
    much of a source's worth is that it knows which tokens are alike? Compare with the same model and backend transformers.

    Source: the partial teacher KD-sim of Tang et al. 2020, arXiv:2002.03532. Its details we know at second hand only.
    """

    kind: Literal["similarity"] = "similarity"
    weights: ClassVar[bool] = True
    unknown: ClassVar[frozenset[str]] = frozenset({"hidden"})
    temperature: float = Field(default=0.05, gt=0)
    """Divides the cosines. A guess: a token is then 20 nats more like itself than like one at a right angle."""

    def open(self, wanted: SourceRequest) -> SimilaritySource:
        """Load the model for its output layer."""
        model = load_model(wanted.ref, wanted.dtype, wanted.device)
        head = Head.from_model(model, vocabulary_size(wanted.tokenizer))
        weight: Any = head.module.weight
        made = unit_rows(weight[: head.vocabulary].detach())
        return SimilaritySource(made, self.temperature, min(wanted.k, head.vocabulary))


@dataclass(frozen=True)
class SimilaritySource:
    """The directions of a model's output embeddings, in float32."""

    embeddings: Float[Tensor, "V D"]
    temperature: float
    k: int

    @torch.inference_mode()
    def rows(self, texts: Sequence[Encoded], progress: Progress | None = None) -> LogitRows:
        """See `Source.rows`. Each token that occurs is compared with the vocabulary once."""
        about = pad_texts(texts, "cpu")[2]
        assert about.token is not None
        token, of = about.token.unique(return_inverse=True)
        hidden = self.embeddings[token.to(self.embeddings.device)] / self.temperature
        nowhere = torch.zeros_like(token)
        each, _ = self._head().rows(
            hidden, Positions(token=token, prefix=nowhere, example=nowhere).to(hidden.device), self.k
        )
        rows = each.to("cpu").select(of)
        if progress is not None:
            progress(sum(len(text.input_ids) for text in texts))
        return dataclasses.replace(rows, prefix=about.prefix, example=about.example)

    def _head(self) -> Head:
        layer: Any = nn.Linear(*self.embeddings.shape[::-1], bias=False, device="meta")
        layer.weight = nn.Parameter(self.embeddings, requires_grad=False)
        return Head(layer, len(self.embeddings))


def unit_rows(embeddings: Float[Tensor, "V D"]) -> Float[Tensor, "V D"]:
    """Each row divided by its length, in float32; a row of zeros stays one."""
    return nn.functional.normalize(embeddings.float(), dim=-1)
