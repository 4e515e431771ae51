"""How many tokens lm-eval cuts off the beginning of a prompt so that it fits the model's context."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lm_eval.api.model import LM, TemplateLM
from lm_eval.models import huggingface


def prompt_tokens_cut(lm: LM, method: str, arguments: Sequence[Any]) -> int:
    """Tokens that are cut off the prompt of a request; 0 where it fits, and of a text that is read in windows.

    `method` and `arguments` are those of the request. Of a model that lm-eval does not tokenize for (a server), 0.
    """
    limit = getattr(lm, "max_length", None)
    if not isinstance(lm, TemplateLM) or limit is None or method == "loglikelihood_rolling":
        return 0
    context = arguments[0]
    if method == "loglikelihood":
        whole = sum(map(len, lm._encode_pair(context, arguments[1]))) if context else 0
        return max(0, whole - (limit + 1))  # the last token is predicted only, so it needs no room
    answer = arguments[1].get("max_gen_toks", getattr(lm, "max_gen_toks", 0))
    return max(0, _prompt_length(lm, context) - (limit - answer))


def _prompt_length(lm: Any, context: str) -> int:
    if isinstance(lm, _HFLM):
        return lm.tok_batch_encode([context])[0].shape[
            1
        ]  # with the token that begins a text, which `tok_encode` leaves out
    return len(lm.tok_encode(context))


_HFLM: Any = huggingface.HFLM  # its decorator hides its type from type checkers
