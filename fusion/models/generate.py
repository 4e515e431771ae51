"""Generate completions with a loaded model, greedily or by sampling, reproducibly."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fusion.data.answer_end import trained_ends
from fusion.data.batching import length_grouped_batches
from fusion.data.prompt_format import PromptFormat
from fusion.models.head.forward import without_router_loss
from fusion.models.neutral_generation import neutral_generation_config
from fusion.models.shared_prefix import SharedPrefix, prefix_groups
from fusion.tokenizers import decode_text


class Completion(NamedTuple):
    """A generated text."""

    text: str
    ended: bool
    """Whether it ended with an eos token, rather than at the length limit."""
    ids: tuple[int, ...] = ()
    """What was written, up to and with the id that ended it, where the backend tells; of a text at which it stopped, more."""


@dataclass(frozen=True)
class GenerationSettings:
    """How completions are generated; fields as in transformers' GenerationConfig."""

    max_new_tokens: int
    temperature: float = 0.0
    """0 is greedy decoding."""
    top_p: float = 1.0
    """Sample from the smallest set of tokens with this total probability (nucleus sampling)."""
    num_return_sequences: int = 1
    """Completions of each prompt."""
    seed: int = 0

    def seed_for(self, prompts: Sequence[Sequence[int]]) -> int:
        """Return a seed below 2^31 that depends on the prompts too: else all completions would begin with equal draws."""
        return zlib.crc32(repr([self.seed, [list(prompt) for prompt in prompts]]).encode()) >> 1


@torch.inference_mode()
def generate(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[Sequence[int]],
    *,
    settings: GenerationSettings,
    eos_token_id: Sequence[int],
    stop: Sequence[str] = (),
    batch_tokens: int,
    progress: Callable[[int], None],
) -> list[list[Completion]]:
    """Return `settings.num_return_sequences` completions of each prompt of token ids.

    Text is decoded as it follows the prompt, leading space included. A completion ends at one of the ids `eos_token_id`
    and before one of the texts `stop`.
    Batches have `batch_tokens` tokens, completions included; their size may change a completion by rounding. The same call
    gives the same completions: sampling depends on `settings.seed` and the prompts, and torch's generators are left as they
    were. `progress` is called with the number of prompts done. Nothing of the model's own generation config is used.
    """
    completions: list[list[Completion]] = [[] for _ in prompts]
    pad, count, room = tokenizer.pad_token_id or 0, settings.num_return_sequences, settings.max_new_tokens
    sampling = {"do_sample": True, "temperature": settings.temperature, "top_p": settings.top_p, "top_k": 0}
    mode = sampling if settings.temperature else {"do_sample": False}
    stopping = {"stop_strings": list(stop), "tokenizer": tokenizer} if stop else {}
    with neutral_generation_config(model), torch.random.fork_rng([model.device] if model.device.type == "cuda" else []):
        torch.manual_seed(settings.seed_for(prompts))
        for batch, shared in _batches(model, prompts, count, room, batch_tokens):
            ids, mask = _pad_left([prompts[i] for i in batch for _ in range(count)], pad, model.device)
            out = model.generate(
                input_ids=ids, attention_mask=mask, max_new_tokens=room,
                eos_token_id=list(eos_token_id) or None, pad_token_id=pad, **mode, **stopping,
                **without_router_loss(model), **(shared.inputs((mask == 0).sum(1)) if shared else {}),
            )[:, ids.shape[1] :]  # fmt: skip
            for number, written in enumerate(out.tolist()):
                ids, ended = _until_end(written, eos_token_id)
                whole = Completion(decode_text(tokenizer, written), ended, ids)
                completions[batch[number // count]].append(cut_at_stop(whole, stop))
            progress(len(batch))
    return completions


def _batches(
    model: Any, prompts: Sequence[Sequence[int]], count: int, room: int, tokens: int
) -> Iterator[tuple[list[int], SharedPrefix | None]]:
    """Yield the numbers of prompts that are answered together, and what they begin with where that has been read."""
    for group, shared in prefix_groups(model, prompts, [len(prompt) - 1 for prompt in prompts]):
        for batch in length_grouped_batches([count * (len(prompts[i]) + room) for i in group], tokens):
            yield [group[i] for i in batch], shared


def cut_at_stop(completion: Completion, stop: Sequence[str]) -> Completion:
    """Return the completion up to the first of the texts at which answers end; it has then ended."""
    places = [place for text in stop if (place := completion.text.find(text)) >= 0]
    return completion._replace(text=completion.text[: min(places)], ended=True) if places else completion


def _until_end(written: Sequence[int], eos_token_id: Sequence[int]) -> tuple[tuple[int, ...], bool]:
    """Return the ids up to and with the first that ends a completion, and whether there is one; padding follows it."""
    end = next((place for place, id in enumerate(written) if id in eos_token_id), None)
    return tuple(written if end is None else written[: end + 1]), end is not None


def eos_token_ids(model: Any, tokenizer: Any, prompt_format: PromptFormat) -> list[int]:
    """Return the ids that end a completion: those of the model's generation config, and `trained_ends`."""
    configured = model.generation_config.eos_token_id
    ids = [*(configured if isinstance(configured, list) else [configured]), *trained_ends(tokenizer, prompt_format)]
    return sorted({id for id in ids if id is not None})


def _pad_left(prompts: Sequence[Sequence[int]], pad: int, device: Any) -> tuple[Tensor, Tensor]:
    longest = max(map(len, prompts))
    ids = torch.tensor([[pad] * (longest - len(p)) + list(p) for p in prompts], device=device)
    mask = torch.tensor([[0] * (longest - len(p)) + [1] * len(p) for p in prompts], device=device)
    return ids, mask
