"""A model of transformers as lm-eval asks it, several times faster where it asks for likelihoods; the same numbers."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from lm_eval.api.instance import Instance
from lm_eval.models import huggingface

from fusion.models.loading import ModelRef, load_model, load_tokenizer
from fusion_eval.runners.shared_prefix import Asked, Likelihood, Scorer
from fusion_eval.suites.quiet import quiet

logger = logging.getLogger(__name__)
HFLM: Any = huggingface.HFLM  # its decorator hides its type from type checkers


class FastLM(HFLM):
    """lm-eval's own model, except that likelihoods come from a `Scorer`: logits of answers only, shared text read once.

    lm-eval computes and normalises the logits of all positions, and reads a question anew for each choice of more than
    one token. Tokenisation, truncation on the left and generation are inherited.
    """

    def __init__(self, ref: ModelRef, dtype: str, device: str, batch_tokens: int, batch_size: int) -> None:
        model, tokenizer = load_model(ref, dtype, device), load_tokenizer(ref)
        with quiet(logging.ERROR):  # it warns of a loaded model, whose type and place it then leaves alone
            super().__init__(model, tokenizer=tokenizer, batch_size=batch_size, backend="causal")
        self.scorer = Scorer.of(model, batch_tokens)

    def _loglikelihood_tokens(
        self, requests: Sequence[tuple[Any, list[int], list[int]]], disable_tqdm: bool = False, override_bs: Any = None
    ) -> list[tuple[float, bool]]:
        asked = [self._asked(context, continuation) for _, context, continuation in requests]
        cut = sum(len(short.context) < len(context) for short, (_, context, _) in zip(asked, requests, strict=True))
        if cut:
            logger.warning(
                "%d of %d contexts do not fit the model's %d tokens and were cut on the left.",
                cut, len(asked), self.max_length,
            )  # fmt: skip
        found: list[Likelihood | None] = [None] * len(asked)
        for i, likelihood in self.scorer.score(asked):
            found[i] = likelihood
            if requests[i][0] is not None:  # a window of a longer text is nobody's answer
                self.cache_hook.add_partial("loglikelihood", requests[i][0], (*likelihood,))
        return [(it.nats, it.greedy) for it in found if it is not None]

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        """As inherited. Raises ValueError where an answer may fill the whole context, with no room for its prompt."""
        arguments: list[Any] = [request.args for request in requests]
        longest = max((settings.get("max_gen_toks", 0) for _, settings in arguments), default=0)
        if longest >= self.max_length:
            raise ValueError(
                f"An answer may take {longest} tokens, the model's context is {self.max_length}: no room for the prompt. "
                "Take fewer with --max-new-tokens."
            )
        return super().generate_until(requests, disable_tqdm=disable_tqdm)

    def _asked(self, context: list[int], continuation: list[int]) -> Asked:
        """As lm-eval cuts what is too long: on the left, so that the last token need not be read."""
        if not 0 < len(continuation) <= self.max_length:
            raise ValueError(
                f"A continuation takes {len(continuation)} tokens of this tokenizer; it must take at least 1 and at most "
                f"{self.max_length}, the model's context. Leave its task out."
            )
        whole = (context + continuation)[-(self.max_length + 1) :]
        return Asked(tuple(whole[: -len(continuation)]), tuple(continuation))
