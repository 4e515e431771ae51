"""Rows from a model that transformers runs here."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from fusion.core.rows import LogitRows, Positions
from fusion.data.batching import batches, pad
from fusion.data.encode import Encoded
from fusion.models.generate import Answer, Decoding, ends, write
from fusion.models.head import Head, hidden_states
from fusion.models.loading import load_model, vocabulary
from fusion.sources.base import Backend, Progress, Wanted
from fusion.sources.sampling import RandomSampling


class Transformers(Backend):
    """transformers runs the model in this process. Every field of a row is known."""

    kind: Literal["transformers"] = "transformers"
    weights: ClassVar[bool] = True
    unknown: ClassVar[frozenset[str]] = frozenset()
    samples: ClassVar[bool] = True
    writes: ClassVar[bool] = True

    def open(self, wanted: Wanted) -> TransformersSource:
        """Load the model and compare its head with its own logits."""
        model = load_model(wanted.ref, wanted.dtype, wanted.device)
        head = Head.of(model, vocabulary(wanted.tokenizer))
        head.check(model)
        if wanted.compile:  # the forward alone: hooks stay outside, where `hidden_states` puts one for each call
            model.base_model.forward = torch.compile(model.base_model.forward, dynamic=True)
        k = min(wanted.k, head.vocabulary)
        return TransformersSource(model, head.frozen(), k, wanted.batch_tokens, wanted.sampling, wanted.hidden)

    def open_writer(self, wanted: Wanted) -> TransformersWriter:
        """Load the model."""
        model = load_model(wanted.ref, wanted.dtype, wanted.device)
        return TransformersWriter(
            model, wanted.tokenizer, ends(model, wanted.tokenizer, wanted.template), wanted.batch_tokens
        )


@dataclass(frozen=True)
class TransformersWriter:
    """A loaded causal language model that answers prompts."""

    model: Any
    tokenizer: Any
    ends: Sequence[int]
    """Ids at which an answer stops."""
    batch_tokens: int

    def write(
        self, prompts: Sequence[Sequence[int]], how: Decoding, progress: Progress | None = None
    ) -> list[list[Answer]]:
        """See `Writer.write`."""
        told = progress or (lambda _: None)
        return write(self.model, self.tokenizer, prompts, self.ends, how, self.batch_tokens, told)


@dataclass(frozen=True)
class TransformersSource:
    """A loaded causal language model in evaluation mode. Batch sizes change nothing but speed (and rounding)."""

    model: Any
    head: Head
    k: int
    batch_tokens: int = 4096
    """Tokens of a batch, padding included; one longer text makes a batch of its own."""
    sampling: RandomSampling | None = None
    """How entries are drawn, if they are not the `k` largest."""
    hidden: bool = False
    """Whether rows hold the state that the head reads, after the last normalisation, as float16."""

    @torch.inference_mode()
    def rows(self, texts: Sequence[Encoded], progress: Progress | None = None) -> LogitRows:
        """See `Source.rows`; numbers are float32, on the CPU."""
        done: dict[int, LogitRows] = {}
        for batch in batches([len(text.input_ids) for text in texts], self.batch_tokens):
            chosen = [texts[i] for i in batch]
            inputs, at, about = pad(chosen, self.model.device)
            hidden = hidden_states(self.model, **inputs).flatten(0, 1)[at]
            rows = self._described(hidden, about, chosen)
            rows = dataclasses.replace(rows, hidden=hidden.half() if self.hidden else None).to("cpu")
            for number, i in enumerate(batch):
                mine = rows.select(rows.example == number)
                done[i] = LogitRows(**{**vars(mine), "example": torch.full_like(mine.example, i)})
            if progress is not None:
                progress(sum(len(text.input_ids) for text in chosen))
        return LogitRows.cat([done[i] for i in range(len(texts))])

    def _described(self, hidden: Tensor, about: Positions, texts: Sequence[Encoded]) -> LogitRows:
        if self.sampling is None:
            return self.head.rows(hidden, about, self.k, moments=self.k > 0)[0]
        uniform = self.sampling.uniform(texts).to(hidden.device)
        return self.head.drawn(hidden, about, uniform, self.sampling.tau)
