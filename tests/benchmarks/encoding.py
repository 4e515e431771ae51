"""Examples encoded together against one by one: texts a second of CPU time, and of wall time with the tokenizer's threads."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

from fusion.data.datasets import load
from fusion.data.encode import encode
from fusion.data.encoding import Conversation, encode_batch
from fusion.data.prompt_format import PromptFormat
from fusion.models.loading import ModelRef, load_tokenizer
from fusion.quickstart import MODELS
from tests.benchmarks.measure import Figure, paired

TEXTS = 1000
DOCS = Path(__file__).parents[2] / "docs"
FORM = PromptFormat()


def measure() -> Iterable[Figure]:
    """The quickstart's texts, and pages of this repository as answers behind the chat templates of real models."""
    examples = [
        e
        for skill in ("sums", "sort", "lumi")
        for e in load(f"builtin:{skill}", domain=skill, split="fusion", limit=TEXTS // 3)
    ]
    short = [Conversation(example.messages, example.response, FORM) for example in examples]
    yield from _ratios("the quickstart's texts", load_tokenizer(ModelRef(str(MODELS["pivot"]))), short)
    if folder := os.environ.get("FUSION_REAL_MODELS"):
        for name in ("smollm2-135m-instruct", "qwen2.5-coder-0.5b-instruct"):
            long = [Conversation([{"role": "user", "content": ask}], answer, FORM) for ask, answer in _pages()]
            yield from _ratios(f"chats of {name}", load_tokenizer(ModelRef(f"{folder}/{name}")), long)


def _ratios(what: str, tokenizer: Any, texts: list[Conversation]) -> Iterator[Figure]:
    def one_by_one() -> None:
        for text in texts:
            encode(tokenizer, text.messages, text.response, prompt_format=FORM)

    def together() -> None:
        encode_batch(tokenizer, texts)

    for clock, unit in ((time.process_time, "CPU second"), (time.perf_counter, f"second, {os.cpu_count()} cores")):
        os.environ["TOKENIZERS_PARALLELISM"] = "false" if clock is time.process_time else "true"  # read with every call
        ratio = paired(one_by_one, together, clock=clock)
        how = f"{len(texts) / ratio.b:,.0f} against {len(texts) / ratio.a:,.0f}"
        yield Figure(f"{what} a {unit}: together / one by one", str(ratio), how=how)


def _pages() -> list[tuple[str, str]]:
    """Some hundred pairs of paragraphs."""
    paragraphs = [part for page in sorted(DOCS.glob("*.md")) for part in page.read_text().split("\n\n") if part.strip()]
    return [(ask.strip()[:600], answer.strip()[:600]) for ask, answer in pairwise(paragraphs)][:TEXTS]
