"""Speculative decoding with a draft, and its acceptance length: the mean number of tokens that one verification yields.

A chain of draft tokens, not a tree. Both models read their whole text anew each time (no KV cache): this measures acceptance,
not seconds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from fusion.extras.draft.model import Draft
from fusion.extras.draft.verify import verify_greedy, verify_sampled
from fusion.models.head import Head, hidden_states


@dataclass(frozen=True)
class Speculator:
    """A target model, its output head, and a draft for it."""

    target: Any
    head: Head
    draft: Draft
    depth: int = 5
    """Draft tokens proposed at a time."""
    temperature: float = 0.0
    """0 is greedy, in both models."""
    generator: torch.Generator | None = None

    def features(self, ids: Int[Tensor, " T"]) -> Float[Tensor, "T D"]:
        """The target's last hidden states."""
        return hidden_states(self.target, input_ids=ids[None], attention_mask=torch.ones_like(ids)[None])[0]

    def scores(self, hidden: Float[Tensor, "N D"]) -> Float[Tensor, "N V"]:
        """Probabilities at the temperature; at 0 the logits themselves, on the CPU."""
        logits = self.head.logits(hidden).cpu()
        return (logits / self.temperature).softmax(-1) if self.temperature else logits

    def choose(self, scores: Float[Tensor, " V"]) -> int:
        """One token id: sampled, or the argmax at temperature 0."""
        return int(torch.multinomial(scores, 1, generator=self.generator) if self.temperature else scores.argmax())

    def draft_tokens(
        self, ids: Int[Tensor, " T1"], features: Float[Tensor, "T D"]
    ) -> tuple[Int[Tensor, " L"], Float[Tensor, "L V"]]:
        """Propose `depth` tokens after `ids`, and the scores each was chosen from. `features`: of all `ids` but the last."""
        tokens, scores, dtype = [], [], self.draft.mix.weight.dtype
        for _ in range(self.depth):
            embedded = self.target.get_input_embeddings()(ids[1:])
            predict, regress = self.draft(embedded[None].to(dtype), features[None].to(dtype))
            scores.append(self.scores(predict[0, -1:].to(features.dtype))[0])
            tokens.append(self.choose(scores[-1]))
            ids = torch.cat([ids, ids.new_tensor(tokens[-1:])])
            features = torch.cat([features, regress[0, -1:].to(features.dtype)])
        return torch.tensor(tokens), torch.stack(scores)

    def verify(
        self, tokens: Int[Tensor, " L"], draft: Float[Tensor, "L V"], hidden: Float[Tensor, "L1 D"]
    ) -> list[int]:
        """The tokens to write: the accepted draft tokens and the target's own after them."""
        target = self.scores(hidden)
        if self.temperature > 0:
            accepted, token = verify_sampled(tokens, draft, target, self.generator)
        else:
            accepted, token = verify_greedy(tokens, target)
        return [*tokens[:accepted].tolist(), token]


@torch.inference_mode()
def generate(
    speculator: Speculator, prompt: Sequence[int], max_new_tokens: int, *, stop: int | None = None
) -> tuple[list[int], list[int]]:
    """At most `max_new_tokens` after the prompt, the token `stop` the last if it comes; and the tokens that each check yielded.

    A check is one verification pass of the target. The first token comes from reading the prompt, without one.
    """
    ids = torch.tensor(list(prompt), device=speculator.target.device)
    hidden = speculator.features(ids)
    ids = torch.cat([ids, ids.new_tensor([speculator.choose(speculator.scores(hidden[-1:])[0])])])
    tokens_per_check: list[int] = []
    while len(ids) - len(prompt) < max_new_tokens and (stop is None or stop not in ids[len(prompt) :].tolist()):
        proposed, scores = speculator.draft_tokens(ids, hidden)
        verified = speculator.features(torch.cat([ids, proposed.to(ids)]))
        written = speculator.verify(proposed, scores, verified[len(ids) - 1 :])
        hidden = verified[: len(ids) - 1 + len(written)]
        ids = torch.cat([ids, ids.new_tensor(written)])
        tokens_per_check.append(len(written))
    tokens = ids[len(prompt) :].tolist()[:max_new_tokens]
    return tokens[: tokens.index(stop) + 1] if stop in tokens else tokens, tokens_per_check


@dataclass(frozen=True)
class Acceptance:
    """How many draft tokens a target accepts, measured over many checks (verification passes)."""

    temperature: float
    checks: int
    acceptance_length: float
    """Mean tokens that a check yields, the target's own included: from 1 to depth + 1. NaN without any check."""
    acceptance_rates: list[float]
    """Share of checks in which the first, the first two, ... draft tokens are accepted."""


def acceptance(
    speculator: Speculator,
    prompts: Sequence[Sequence[int]],
    max_new_tokens: int,
    *,
    stop: int | None = None,
    on_prompt_done: Callable[[int], None] = lambda _: None,
) -> Acceptance:
    """Measure acceptance on texts that the target writes after `prompts`; `on_prompt_done(1)` is called after each prompt."""
    tokens_per_check = []
    for prompt in prompts:
        tokens_per_check += generate(speculator, prompt, max_new_tokens, stop=stop)[1]
        on_prompt_done(1)
    each = torch.tensor(tokens_per_check, dtype=torch.float64)
    rates = [float((each > n).double().mean()) for n in range(1, speculator.depth + 1)]
    return Acceptance(speculator.temperature, len(tokens_per_check), float(each.mean()), rates)
