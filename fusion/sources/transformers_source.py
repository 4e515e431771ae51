"""Rows from a model that transformers runs here."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from fusion.core.rows import LogitRows, Positions
from fusion.data.batching import length_grouped_batches, pad_texts
from fusion.data.encode import Encoded
from fusion.models.generate import Completion, GenerationSettings, eos_token_ids, generate
from fusion.models.head import Head, hidden_states
from fusion.models.loading import load_model, vocabulary_size
from fusion.sources.base import Backend, Progress, SourceRequest
from fusion.sources.sampling import RandomSampling


class Transformers(Backend):
    """transformers runs the model in this process. Every field of a row is known."""

    kind: Literal["transformers"] = "transformers"
    weights: ClassVar[bool] = True
    unknown: ClassVar[frozenset[str]] = frozenset()
    samples: ClassVar[bool] = True
    writes: ClassVar[bool] = True

    def open(self, wanted: SourceRequest) -> TransformersSource:
        """Load the model and compare its head with its own logits."""
        model = load_model(wanted.ref, wanted.dtype, wanted.device)
        head = Head.from_model(model, vocabulary_size(wanted.tokenizer))
        head.check_against_model(model)
        if wanted.compile:  # the forward alone: hooks stay outside, where `hidden_states` puts one for each call
            model.base_model.forward = torch.compile(model.base_model.forward, dynamic=True)
        k = min(wanted.k, head.vocabulary)
        return TransformersSource(
            model, head.for_frozen_model(), k, wanted.batch_tokens, wanted.sampling, wanted.hidden
        )

    def open_writer(self, wanted: SourceRequest) -> TransformersGenerator:
        """Load the model."""
        model = load_model(wanted.ref, wanted.dtype, wanted.device)
        return TransformersGenerator(
            model, wanted.tokenizer, eos_token_ids(model, wanted.tokenizer, wanted.template), wanted.batch_tokens
        )


@dataclass(frozen=True)
class TransformersGenerator:
    """A loaded causal language model that answers prompts."""

    model: Any
    tokenizer: Any
    eos_token_ids: Sequence[int]
    """Ids at which an answer stops."""
    batch_tokens: int

    def generate(
        self, prompts: Sequence[Sequence[int]], how: GenerationSettings, progress: Progress | None = None
    ) -> list[list[Completion]]:
        """See `Writer.write`."""
        told = progress or (lambda _: None)
        return generate(self.model, self.tokenizer, prompts, self.eos_token_ids, how, self.batch_tokens, told)


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
    keep_hidden: bool = False
    """Whether rows hold the state that the head reads, after the last normalisation, as float16."""

    @torch.inference_mode()
    def rows(self, texts: Sequence[Encoded], progress: Progress | None = None) -> LogitRows:
        """See `Source.rows`; numbers are float32, on the CPU."""
        done: dict[int, LogitRows] = {}
        for batch in length_grouped_batches([len(text.input_ids) for text in texts], self.batch_tokens):
            chosen = [texts[i] for i in batch]
            inputs, at, about = pad_texts(chosen, self.model.device)
            hidden = hidden_states(self.model, **inputs).flatten(0, 1)[at]
            rows = self._head_rows(hidden, about, chosen)
            rows = dataclasses.replace(rows, hidden=hidden.half() if self.keep_hidden else None).to("cpu")
            for number, i in enumerate(batch):
                mine = rows.select(rows.example == number)
                done[i] = LogitRows(**{**vars(mine), "example": torch.full_like(mine.example, i)})
            if progress is not None:
                progress(sum(len(text.input_ids) for text in chosen))
        return LogitRows.cat([done[i] for i in range(len(texts))])

    def _head_rows(self, hidden: Tensor, about: Positions, texts: Sequence[Encoded]) -> LogitRows:
        if self.sampling is None:
            return self.head.rows(hidden, about, self.k, moments=self.k > 0)[0]
        uniform = self.sampling.uniform(texts).to(hidden.device)
        return self.head.sampled_rows(hidden, about, uniform, self.sampling.tau)
