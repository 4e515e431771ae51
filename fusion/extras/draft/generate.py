"""Text by guess and check, and how many tokens a check yields: the length that a draft is measured by.

A chain of guesses, not a tree. Both models read their whole text anew at each check: this measures acceptance, not seconds.
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
    """A target, its head, and a draft for it."""

    target: Any
    head: Head
    draft: Draft
    depth: int = 5
    """Guesses of a chain."""
    temperature: float = 0.0
    """0 takes the first choice, of both."""
    generator: torch.Generator | None = None

    def features(self, ids: Int[Tensor, " T"]) -> Float[Tensor, "T D"]:
        """The target's last hidden states."""
        return hidden_states(self.target, input_ids=ids[None], attention_mask=torch.ones_like(ids)[None])[0]

    def scores(self, hidden: Float[Tensor, "N D"]) -> Float[Tensor, "N V"]:
        """Probabilities at the temperature; at 0 the logits themselves, on the CPU."""
        logits = self.head.logits(hidden).cpu()
        return (logits / self.temperature).softmax(-1) if self.temperature else logits

    def choose(self, scores: Float[Tensor, " V"]) -> int:
        """A token."""
        return int(torch.multinomial(scores, 1, generator=self.generator) if self.temperature else scores.argmax())

    def guess(
        self, ids: Int[Tensor, " T1"], features: Float[Tensor, "T D"]
    ) -> tuple[Int[Tensor, " L"], Float[Tensor, "L V"]]:
        """A chain of tokens after `ids`, and what each was drawn from. `features` are of all `ids` but the last."""
        guesses, scores, kind = [], [], self.draft.mix.weight.dtype
        for _ in range(self.depth):
            embedded = self.target.get_input_embeddings()(ids[1:])
            predict, regress = self.draft(embedded[None].to(kind), features[None].to(kind))
            scores.append(self.scores(predict[0, -1:].to(features.dtype))[0])
            guesses.append(self.choose(scores[-1]))
            ids = torch.cat([ids, ids.new_tensor(guesses[-1:])])
            features = torch.cat([features, regress[0, -1:].to(features.dtype)])
        return torch.tensor(guesses), torch.stack(scores)

    def check(
        self, guesses: Int[Tensor, " L"], draft: Float[Tensor, "L V"], hidden: Float[Tensor, "L1 D"]
    ) -> list[int]:
        """The tokens that are written: the guesses that stand and the target's own after them."""
        target = self.scores(hidden)
        sampled = self.temperature > 0
        accepted, token = (
            verify_sampled(guesses, draft, target, self.generator) if sampled else verify_greedy(guesses, target)
        )
        return [*guesses[:accepted].tolist(), token]


@torch.inference_mode()
def generate(
    speculator: Speculator, prompt: Sequence[int], length: int, stop: int | None = None
) -> tuple[list[int], list[int]]:
    """At most `length` tokens after the prompt, the token `stop` the last if it comes; and how many each check yielded.

    The first token comes from reading the prompt, without a check.
    """
    ids = torch.tensor(list(prompt), device=speculator.target.device)
    hidden = speculator.features(ids)
    ids = torch.cat([ids, ids.new_tensor([speculator.choose(speculator.scores(hidden[-1:])[0])])])
    yields: list[int] = []
    while len(ids) - len(prompt) < length and (stop is None or stop not in ids[len(prompt) :].tolist()):
        guesses, scores = speculator.guess(ids, hidden)
        tried = speculator.features(torch.cat([ids, guesses.to(ids)]))
        written = speculator.check(guesses, scores, tried[len(ids) - 1 :])
        hidden = tried[: len(ids) - 1 + len(written)]
        ids = torch.cat([ids, ids.new_tensor(written)])
        yields.append(len(written))
    tokens = ids[len(prompt) :].tolist()[:length]
    return tokens[: tokens.index(stop) + 1] if stop in tokens else tokens, yields


@dataclass(frozen=True)
class Acceptance:
    """How far guesses carry."""

    temperature: float
    checks: int
    length: float
    """Tokens that a check yields, the target's own included: from 1 to depth + 1. NaN without any check."""
    stands: list[float]
    """Share of checks in which the first, the first two, ... guesses stand."""


def acceptance(
    speculator: Speculator,
    prompts: Sequence[Sequence[int]],
    length: int,
    stop: int | None = None,
    heard: Callable[[int], None] = lambda _: None,
) -> Acceptance:
    """Measured on texts that the target writes after `prompts`; `heard` hears of each prompt that is done."""
    yields = []
    for prompt in prompts:
        yields += generate(speculator, prompt, length, stop)[1]
        heard(1)
    each = torch.tensor(yields, dtype=torch.float64)
    stands = [float((each > n).double().mean()) for n in range(1, speculator.depth + 1)]
    return Acceptance(speculator.temperature, len(yields), float(each.mean()), stands)
