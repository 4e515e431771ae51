"""lm-eval's `HFLM` with likelihoods from shared prefixes: the same numbers to rounding, several times faster."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from lm_eval.api.instance import Instance
from lm_eval.models import huggingface

from fusion.models.head import without_router_loss
from fusion.models.loading import ModelRef, load_model, load_tokenizer
from fusion.models.neutral_generation import neutral_generation_config
from fusion_eval.runners.shared_prefix import ContinuationRequest, ContinuationScore, ContinuationScorer
from fusion_eval.suites.lm_eval_logging import lm_eval_log_level

logger = logging.getLogger(__name__)
HFLM: Any = huggingface.HFLM  # its decorator hides its type from type checkers


class SharedPrefixLM(HFLM):
    """lm-eval's own model, except that likelihoods come from a `ContinuationScorer`.

    lm-eval computes and normalises the logits of all positions, and reads a question again for each choice of more than
    one token; here logits are those of the continuations only, and shared text is read once. Tokenisation, truncation on
    the left and generation are inherited.
    """

    def __init__(self, ref: ModelRef, *, dtype: str, device: str, batch_tokens: int, batch_size: int) -> None:
        model, tokenizer = load_model(ref, dtype, device), load_tokenizer(ref)
        if tokenizer.pad_token_id is None:  # lm-eval would add a token, which has no embedding
            tokenizer.pad_token = tokenizer.convert_ids_to_tokens(0)
        for name in without_router_loss(model):
            setattr(model.config.get_text_config(), name, False)  # lm-eval's generation cannot be told
        with lm_eval_log_level(logging.ERROR):  # it warns of a loaded model, whose type and place it then leaves alone
            super().__init__(model, tokenizer=tokenizer, batch_size=batch_size, backend="causal")
        self.scorer = ContinuationScorer.from_model(model, batch_tokens)

    @property
    def prefix_token_id(self) -> int:
        """The token that a text without a context is read after; 0 where the tokenizer has none, and no such text is read."""
        first = super().prefix_token_id
        return 0 if first is None else first

    def loglikelihood(self, requests: list[Instance], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        """As inherited. Raises ValueError for a text without a context where the tokenizer has no token to begin it after."""
        self._check_first_token(all(request.args[0] for request in requests))
        return super().loglikelihood(requests, disable_tqdm=disable_tqdm)

    def loglikelihood_rolling(self, requests: list[Instance], disable_tqdm: bool = False) -> list[float]:
        """As inherited. Raises ValueError where the tokenizer has no token to begin a text after."""
        self._check_first_token(False)
        return super().loglikelihood_rolling(requests, disable_tqdm=disable_tqdm)

    def _check_first_token(self, have_contexts: bool) -> None:
        if not have_contexts and super().prefix_token_id is None:
            raise ValueError(
                f"The tokenizer of {self.model.name_or_path} has neither a bos nor an eos token to read a text after. Leave "
                "out tasks that measure whole texts, or set bos_token in its tokenizer_config.json."
            )

    def tok_decode(self, tokens: Any, skip_special_tokens: bool = True) -> Any:
        """As inherited; None for the end token of a tokenizer that has none, so that answers end at their limit."""
        return None if tokens is None else super().tok_decode(tokens, skip_special_tokens=skip_special_tokens)

    def _loglikelihood_tokens(
        self, requests: Sequence[tuple[Any, list[int], list[int]]], disable_tqdm: bool = False, override_bs: Any = None
    ) -> list[tuple[float, bool]]:
        truncated = [self._truncated(context, continuation) for _, context, continuation in requests]
        cut = sum(len(short.context) < len(context) for short, (_, context, _) in zip(truncated, requests, strict=True))
        if cut:
            logger.warning(
                "%d of %d contexts do not fit the model's %d tokens and were cut on the left.",
                cut, len(truncated), self.max_length,
            )  # fmt: skip
        scores: list[ContinuationScore | None] = [None] * len(truncated)
        for i, score in self.scorer.score(truncated):
            scores[i] = score
            if requests[i][0] is not None:  # a window of a longer text is no answer to a request
                self.cache_hook.add_partial("loglikelihood", requests[i][0], (*score,))
        return [(score.logprob, score.is_greedy) for score in scores if score is not None]

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        """As inherited, by the settings of the requests alone, without those of the model's generation config.

        Raises ValueError where an answer may fill the whole context, with no room for its prompt.
        """
        arguments: list[Any] = [request.args for request in requests]
        longest = max((settings.get("max_gen_toks", 0) for _, settings in arguments), default=0)
        if longest >= self.max_length:
            raise ValueError(
                f"An answer may take {longest} tokens, the model's context is {self.max_length}: no room for the prompt. "
                "Take fewer with --max-new-tokens."
            )
        with neutral_generation_config(self.model):
            return super().generate_until(requests, disable_tqdm=disable_tqdm)

    def _truncated(self, context: list[int], continuation: list[int]) -> ContinuationRequest:
        """Cut what is too long on the left, as lm-eval does: the last token is predicted only, so it needs no room."""
        if not 0 < len(continuation) <= self.max_length:
            raise ValueError(
                f"A continuation takes {len(continuation)} tokens of this tokenizer; it must take at least 1 and at most "
                f"{self.max_length}, the model's context. Leave its task out."
            )
        whole = (context + continuation)[-(self.max_length + 1) :]
        return ContinuationRequest(tuple(whole[: -len(continuation)]), tuple(continuation))
