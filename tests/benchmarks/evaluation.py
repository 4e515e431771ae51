"""Multiple-choice questions a second, ours over lm-eval's own path, on one model in one run.

Both are given the same token ids, so that nothing but scoring is timed. lm-eval reads a question anew for each choice of
more than one token and normalises the logits of all positions.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from lm_eval.models import huggingface
from transformers import PreTrainedTokenizerFast

from fusion_eval.runners.shared_prefix import ContinuationRequest, ContinuationScorer
from tests.benchmarks.bodies import PIVOT, model_135m
from tests.benchmarks.measure import Figure, paired
from tokenizers import Tokenizer, models

QUESTIONS = 4
RUNS = 2


def measure() -> Iterator[Figure]:
    """Questions of four choices."""
    model = model_135m().eval()
    scorer = ContinuationScorer.from_model(model)
    whole = replace(scorer, shares=False)
    for what, wanted, one, shape in [
        ("context 200, choices of 10 tokens, texts read whole", "", whole, (0, 200, 10)),
        ("context 200, choices of 10 tokens", "3", scorer, (0, 200, 10)),
        ("context 200, choices of one token", "", scorer, (0, 200, 1)),
        ("context 600, 500 of it worked examples that all share, choices of 10 tokens", "5", scorer, (500, 600, 10)),
    ]:
        yield _figure(what, wanted, model, one, questions(*shape))


def _figure(what: str, wanted: str, model: Any, scorer: ContinuationScorer, asked: list[ContinuationRequest]) -> Figure:
    ratio = paired(lambda: lm_eval_path(model, asked), lambda: ours(scorer, asked), runs=RUNS)
    theirs, mine = lm_eval_path(model, asked), ours(scorer, asked)
    apart = max(abs(a - b) / abs(a) for a, b in zip(theirs, mine, strict=True))
    how = f"{QUESTIONS / ratio.b:.2f} questions/s; likelihoods agree to {apart:.0e} of their size"
    return Figure(what, f"{ratio} x", f"{wanted} x" if wanted else "", how)


def questions(header: int, context: int, choice: int) -> list[ContinuationRequest]:
    """Four choices of `choice` tokens each behind about `context` tokens, `header` of which all questions share."""
    draw = random.Random(0)

    def tokens(n: int) -> tuple[int, ...]:
        return tuple(draw.randrange(1, PIVOT) for _ in range(n))

    shared = tokens(header)
    contexts = [shared + tokens(context - header + draw.randrange(-8, 9)) for _ in range(QUESTIONS)]
    return [ContinuationRequest(text, tokens(choice)) for text in contexts for _ in range(4)]


def lm_eval_path(model: Any, asked: list[ContinuationRequest]) -> list[float]:
    """lm-eval's own scoring of token ids."""
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    words = Tokenizer(models.WordLevel({"<s>": 0, "a": PIVOT - 1}, unk_token="<s>"))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, eos_token="<s>", pad_token="<s>")
    lm = huggingface.HFLM(model, tokenizer=tokenizer, batch_size=8, backend="causal")
    requests = [(None, list(context), list(continuation)) for context, continuation in asked]
    return [nats for nats, _ in lm._loglikelihood_tokens(requests, disable_tqdm=True)]


def ours(scorer: ContinuationScorer, asked: list[ContinuationRequest]) -> list[float]:
    """Our scoring of the same ids."""
    found = dict(scorer.score(asked))
    return [found[i].logprob for i in range(len(asked))]
