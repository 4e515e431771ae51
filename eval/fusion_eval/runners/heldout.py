"""Held-out examples put to one model: how well it predicts the true response, and what it answers by itself."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from fusion.core.rows import LogitRows
from fusion.data.datasets import Example
from fusion.data.encode import Encoded, Template, encode, encode_prompt
from fusion.models.generate import Decoding, ends, write
from fusion.models.head import Head
from fusion.models.loading import ModelRef, load_model, load_tokenizer, vocabulary
from fusion.sources import TransformersSource
from fusion_eval.results import Item

Progress = Callable[[int], None]
BINS = 10  # of confidence, in the calibration error


@dataclass(frozen=True)
class Settings:
    """How to measure."""

    exact_match: Collection[str] = ()
    """Domains in which the model answers by itself, greedily, and is compared with the response."""
    max_new_tokens: int = 64
    batch_tokens: int = 4096
    dtype: str = "float32"
    device: str = "cpu"


def score(
    ref: ModelRef, examples: Sequence[Example], template: Template, how: Settings, progress: Progress
) -> list[Item]:
    """One item for each example. Likelihood is that of the response's bytes, the end of turn left out.

    So models with and without an end-of-turn token, and with any tokenizer, are measured on the same thing. Answers are
    compared with the response after stripping spaces at both ends. Raises ValueError for an example longer than the
    model's context: cutting it would compare models on different text.
    """
    tokenizer = load_tokenizer(ref)
    model = load_model(ref, how.dtype, how.device)
    texts = [_encode(tokenizer, example, template, model) for example in examples]
    whole = [text.prefix[-1] == len(e.response.encode()) for text, e in zip(texts, examples, strict=True)]
    rows = _rows(model, tokenizer, texts, whole, how, progress)
    nats, off = _nats(rows, len(texts)), _calibration(rows, len(texts))
    answers = _answers(model, tokenizer, examples, template, how, progress)
    return [_item(*parts) for parts in zip(examples, nats, off, answers, strict=True)]


def work(examples: Sequence[Example], how: Settings) -> int:
    """Units that `score` reports to `progress` in all: one for each example's likelihood, one for each answer."""
    return len(examples) + sum(example.domain in how.exact_match for example in examples)


def _item(example: Example, nats: float, calibration: list[float] | None, answer: str | None) -> Item:
    return Item(
        id=example.id,
        domain=example.domain,
        bytes=len(example.response.encode()),
        nats=nats,
        calibration=calibration,
        exact=None if answer is None else answer.strip() == example.response.strip(),
        prompt=example.prompt,
        expected=example.response,
        answer=answer,
    )


def _encode(tokenizer: Any, example: Example, template: Template, model: Any) -> Encoded:
    text = encode(tokenizer, example.messages, example.response, template=example.template or template)
    longest = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    if longest is not None and len(text.input_ids) > longest:
        raise ValueError(
            f"A held-out example of domain {example.domain} has {len(text.input_ids)} tokens, {model.name_or_path} takes "
            f"{longest}. Shorten it with response_chars in data.heldout; cutting it here would not be the same test."
        )
    return text


def _rows(
    model: Any, tokenizer: Any, texts: Sequence[Encoded], whole: Sequence[bool], how: Settings, progress: Progress
) -> LogitRows:
    """Rows of the responses' bytes: the likelihood of each token, and the likeliest in its place."""
    source = TransformersSource(model, Head.of(model, vocabulary(tokenizer)), k=1, batch_tokens=how.batch_tokens)
    rows = source.rows(texts)
    progress(len(texts))
    last = torch.tensor([text.rows for text in texts]).cumsum(0) - 1
    inside = torch.ones(len(rows), dtype=torch.bool)
    inside[last[torch.tensor(whole)]] = False  # nothing is left to predict there but the end of turn
    return rows.select(inside)


def _nats(rows: LogitRows, texts: int) -> list[float]:
    return torch.zeros(texts, dtype=torch.float64).index_add(0, rows.example, -rows.gold.double()).tolist()


def _calibration(rows: LogitRows, texts: int) -> list[list[float] | None]:
    """By text, for each tenth of confidence the sum of confidence less success, then the tokens (Naeini et al. 2015, ECE).

    None for a text without rows.
    """
    confidence = rows.logprobs[:, 0].double().exp()
    off = confidence - (rows.gold >= rows.logprobs[:, 0]).double()
    tenth = (confidence * BINS).long().clamp(max=BINS - 1)
    found = torch.zeros(texts, BINS + 1, dtype=torch.float64)
    found = found.index_put((rows.example, tenth), off, accumulate=True)
    found[:, -1] = torch.bincount(rows.example, minlength=texts)
    return [each.tolist() if each[-1] else None for each in found]


def _answers(
    model: Any, tokenizer: Any, examples: Sequence[Example], template: Template, how: Settings, progress: Progress
) -> list[str | None]:
    """Greedy answers, in the domains where they are asked for."""
    answers: list[str | None] = [None] * len(examples)
    asked = [i for i, example in enumerate(examples) if example.domain in how.exact_match]
    prompts = [encode_prompt(tokenizer, examples[i].messages, template=examples[i].template or template) for i in asked]
    stops, decoding = ends(model, tokenizer, template), Decoding(how.max_new_tokens)
    for i, [answer] in zip(
        asked, write(model, tokenizer, prompts, stops, decoding, how.batch_tokens, progress), strict=True
    ):
        answers[i] = answer.text
    return answers
