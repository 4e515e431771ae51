"""Answers that a loaded model writes by itself: greedy, or drawn at random."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fusion.data.batching import length_grouped_batches
from fusion.data.encode import Template, end_of_turn
from fusion.tokenizers import decode_text


class Completion(NamedTuple):
    """What a model wrote."""

    text: str
    ended: bool
    """Whether it came to its end by itself, not for want of room."""


@dataclass(frozen=True)
class GenerationSettings:
    """How answers are written."""

    max_new_tokens: int
    temperature: float = 0.0
    """0 takes the likeliest token each time."""
    top_p: float = 1.0
    """Draw among the likeliest tokens that together have this probability."""
    num_return_sequences: int = 1
    """Answers to each prompt."""
    seed: int = 0

    def seed_for(self, prompts: Sequence[Sequence[int]]) -> int:
        """Another one for other prompts, below 2^31: else the first words of all answers would be drawn alike."""
        return zlib.crc32(repr([self.seed, [list(prompt) for prompt in prompts]]).encode()) >> 1


@torch.inference_mode()
def generate(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[Sequence[int]],
    ends: Sequence[int],
    how: GenerationSettings,
    batch_tokens: int,
    progress: Callable[[int], None],
) -> list[list[Completion]]:
    """`how.samples` answers to each prompt of token ids: the text of its tokens as it follows the prompt, spaces and all.

    An answer ends at one of the ids `ends`. Batches, of `batch_tokens` with the answers, may change an answer by rounding.
    The same call gives the same answers: what is drawn depends on `how.seed` and the prompts, and the state of torch's
    generators stays as it was. `progress` hears of prompts done.
    """
    answers: list[list[Completion]] = [[] for _ in prompts]
    pad = tokenizer.pad_token_id or 0
    drawing = {"do_sample": True, "temperature": how.temperature, "top_p": how.top_p, "top_k": 0}
    each = drawing if how.temperature else {"do_sample": False}
    with torch.random.fork_rng([model.device] if model.device.type == "cuda" else []):
        torch.manual_seed(how.seed_for(prompts))
        for batch in length_grouped_batches(
            [how.num_return_sequences * (len(prompt) + how.max_new_tokens) for prompt in prompts], batch_tokens
        ):
            ids, mask = _pad_left([prompts[i] for i in batch], pad, model.device)
            out = model.generate(
                input_ids=ids, attention_mask=mask, max_new_tokens=how.max_new_tokens, num_return_sequences=how.num_return_sequences,
                eos_token_id=list(ends) or None, pad_token_id=pad, **each,
            )[:, ids.shape[1] :]  # fmt: skip
            texts = [decode_text(tokenizer, each) for each in out.tolist()]
            ended = torch.isin(out, torch.tensor(list(ends), device=out.device)).any(-1).tolist()
            for number, (text, done) in enumerate(zip(texts, ended, strict=True)):
                answers[batch[number // how.num_return_sequences]].append(Completion(text, done))
            progress(len(batch))
    return answers


def eos_token_ids(model: Any, tokenizer: Any, template: Template) -> list[int]:
    """Ids at which an answer stops: what the model's generation settings say, and the end of a turn."""
    own = model.generation_config.eos_token_id
    found = [*(own if isinstance(own, list) else [own]), end_of_turn(tokenizer, template)]
    return sorted({id for id in found if id is not None})


def _pad_left(prompts: Sequence[Sequence[int]], pad: int, device: Any) -> tuple[Tensor, Tensor]:
    longest = max(map(len, prompts))
    ids = torch.tensor([[pad] * (longest - len(p)) + list(p) for p in prompts], device=device)
    mask = torch.tensor([[0] * (longest - len(p)) + [1] * len(p) for p in prompts], device=device)
    return ids, mask
