"""The backend `transformers`: rows and completions from a causal language model in this process."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor
from typing_extensions import override

from fusion.core.finite import impossible_ids_left_out
from fusion.core.rows import LogitRows, Positions
from fusion.data.batching import length_grouped_batches, pad_texts
from fusion.data.encode import Encoded
from fusion.models.generate import Completion, GenerationSettings, eos_token_ids, generate
from fusion.models.head import Head, hidden_states, module_below_head
from fusion.models.loading import load_model, vocabulary_size
from fusion.models.shared_prefix import SharedPrefix, prefix_groups
from fusion.sources.base import Backend, Progress, SourceRequest
from fusion.sources.sampling import RandomSampling


class Transformers(Backend):
    """transformers runs the model in this process. Every field of a row is known."""

    kind: Literal["transformers"] = "transformers"
    has_weights: ClassVar[bool] = True
    unknown_fields: ClassVar[frozenset[str]] = frozenset()
    can_sample: ClassVar[bool] = True
    can_generate: ClassVar[bool] = True
    shares_prefixes: ClassVar[bool] = True

    @override
    def open(self, request: SourceRequest) -> TransformersSource:
        model = load_model(request.ref, request.dtype, request.device)
        head = Head.from_model(model, vocabulary_size(request.tokenizer)).with_stop_ids(request.stop_ids)
        head.check_against_model(model)
        if request.compile:  # the forward alone: hooks stay outside, where `hidden_states` puts one for each call
            below = module_below_head(model)
            below.forward = torch.compile(below.forward, dynamic=True)
        k, autocast = min(request.k, head.vocabulary), getattr(torch, request.autocast) if request.autocast else None
        head = replace(head.for_frozen_model(), autocast=autocast)
        return TransformersSource(model, head, k, request.batch_tokens, request.sampling, request.hidden)

    @override
    def open_generator(self, request: SourceRequest) -> TransformersGenerator:
        model = load_model(request.ref, request.dtype, request.device)
        return TransformersGenerator(
            model,
            request.tokenizer,
            eos_token_ids(model, request.tokenizer, request.prompt_format),
            request.batch_tokens,
            request.prompt_format.stop_texts,
        )


@dataclass(frozen=True)
class TransformersGenerator:
    """Completions from a loaded causal language model."""

    model: Any
    tokenizer: Any
    eos_token_ids: Sequence[int]
    """Ids at which a completion stops."""
    batch_tokens: int
    stop: Sequence[str] = ()
    """Texts before which a completion stops."""

    def generate(
        self, prompts: Sequence[Sequence[int]], settings: GenerationSettings, progress: Progress | None = None
    ) -> list[list[Completion]]:
        """See `Generator.generate`."""
        return generate(
            self.model, self.tokenizer, prompts, settings=settings, eos_token_id=self.eos_token_ids, stop=self.stop,
            batch_tokens=self.batch_tokens, progress=progress or (lambda _: None),
        )  # fmt: skip


@dataclass(frozen=True)
class TransformersSource:
    """Rows from a loaded causal language model in evaluation mode. Batch sizes change nothing but speed (and rounding)."""

    model: Any
    head: Head
    k: int
    batch_tokens: int = 4096
    """Tokens of a batch, padding included; one longer text makes a batch of its own."""
    sampling: RandomSampling | None = None
    """How entries are sampled, if they are not the `k` largest."""
    keep_hidden: bool = False
    """Whether rows hold the last hidden state (after the final norm, as the head reads it) in float16."""

    @torch.inference_mode()
    def rows(self, texts: Sequence[Encoded], progress: Progress | None = None) -> LogitRows:
        """See `Source.rows`; numbers are float32, on the CPU."""
        done: dict[int, LogitRows] = {}
        with self._autocast():
            for group, shared in prefix_groups(self.model, [t.input_ids for t in texts], [t.start - 1 for t in texts]):
                for batch in length_grouped_batches([len(texts[i].input_ids) for i in group], self.batch_tokens):
                    numbers = [group[i] for i in batch]
                    done |= self._rows_of([texts[i] for i in numbers], numbers, shared)
                    if progress is not None:
                        progress(sum(len(texts[i].input_ids) for i in numbers))
        return LogitRows.cat([done[i] for i in range(len(texts))])

    def _rows_of(
        self, texts: Sequence[Encoded], numbers: Sequence[int], shared: SharedPrefix | None
    ) -> dict[int, LogitRows]:
        """Return the rows of each text by the number that it has among all, read in one forward pass."""
        inputs, hidden_index, positions = _inputs(texts, shared, self.model.device)
        hidden = hidden_states(self.model, **inputs).flatten(0, 1)[hidden_index]
        with torch.autocast(self.model.device.type, enabled=False):  # the head knows its own precision
            rows = self._head_rows(hidden, positions, texts)
        rows = replace(rows, hidden=hidden.half() if self.keep_hidden else None).to("cpu")
        rows = impossible_ids_left_out(rows)
        parts = {i: rows.select(rows.example == place) for place, i in enumerate(numbers)}
        return {i: replace(part, example=torch.full_like(part.example, i)) for i, part in parts.items()}

    def _autocast(self) -> AbstractContextManager:
        return torch.autocast(self.model.device.type, self.head.autocast, enabled=self.head.autocast is not None)

    def _head_rows(self, hidden: Tensor, positions: Positions, texts: Sequence[Encoded]) -> LogitRows:
        if self.sampling is None:
            return self.head.rows(hidden, positions, self.k, moments=self.k > 0)[0]
        uniform = self.sampling.uniform(texts).to(hidden.device)
        return self.head.sampled_rows(hidden, positions, uniform, self.sampling.tau)


def _inputs(
    texts: Sequence[Encoded], shared: SharedPrefix | None, device: Any
) -> tuple[dict[str, Any], Tensor, Positions]:
    """Return what `pad_texts` does, of the part of each text that is still to be read."""
    if shared is None:
        return pad_texts(texts, device)
    rests = [
        replace(text, input_ids=text.input_ids[shared.length :], start=text.start - shared.length) for text in texts
    ]
    inputs, hidden_index, positions = pad_texts(rests, device)
    read = inputs["attention_mask"].new_ones(len(texts), shared.length)
    mask = torch.cat([read, inputs["attention_mask"]], dim=1)
    return inputs | {"attention_mask": mask} | shared.inputs(mask.new_zeros(len(texts))), hidden_index, positions
