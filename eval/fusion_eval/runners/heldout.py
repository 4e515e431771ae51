"""Evaluation of one model on held-out examples: the likelihood of the true response, and the model's own answer."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import torch

from fusion.core.calibration import calibration_sums
from fusion.core.finite import row_fault
from fusion.core.rows import LogitRows
from fusion.data.encode import Encoded, encode, encode_prompt
from fusion.data.example import Example
from fusion.data.prompt_format import PromptFormat
from fusion.grading.final_answer import AnswerPart, same_answer
from fusion.models.context_length import context_length
from fusion.models.generate import GenerationSettings, eos_token_ids, generate
from fusion.models.head import Head
from fusion.models.loading import ModelRef, load_model, load_tokenizer, vocabulary_size
from fusion.sources import TransformersSource
from fusion_eval.results import Sample
from fusion_eval.runners import Progress


@dataclass(frozen=True)
class HeldoutSettings:
    """How models are evaluated on held-out examples."""

    exact_match: Collection[str] = ()
    """Domains in which the model also generates an answer, greedily, which is compared with the response."""
    max_new_tokens: int = 64
    batch_tokens: int = 4096
    dtype: str = "float32"
    device: str = "cpu"
    compare: Mapping[str, AnswerPart] = field(default_factory=dict)
    """Domains in which less than all of the text is compared: the last number, or the option named."""

    def key(self) -> dict[str, Any]:
        """Return all that a result depends on, for its key; that of earlier releases where all of the text is compared."""
        return {name: value for name, value in asdict(self).items() if name != "compare" or value}


def score(
    ref: ModelRef, examples: Sequence[Example], formats: Sequence[PromptFormat], settings: HeldoutSettings, *,
    progress: Progress,
) -> list[Sample]:  # fmt: skip
    """Score a model on each example, whose prompt it reads in the format beside it; one sample for each, in their order.

    Likelihood is that of the response's bytes, the end of turn left out. So models with and without an end-of-turn token,
    and with any tokenizer, are measured on the same thing. Answers are compared with the response after stripping spaces at
    both ends, or by the part of both that `settings.compare` says. Raises ValueError for an example longer than the model's
    context: cutting it would compare models on different text.
    """
    tokenizer = load_tokenizer(ref)
    model = load_model(ref, settings.dtype, settings.device)
    texts = [_encode(tokenizer, example, form, model) for example, form in zip(examples, formats, strict=True)]
    ends_in_turn = [text.prefix[-1] == len(e.response.encode()) for text, e in zip(texts, examples, strict=True)]
    rows = _rows(model, tokenizer, texts, ends_in_turn, settings, progress)
    _refuse_what_is_no_score(ref, examples, rows, settings.dtype)
    nll, calibration = _nll(rows, len(texts)), _calibration(rows, len(texts))
    answers = _answers(model, tokenizer, examples, formats, settings, progress)
    return [_sample(settings, *values) for values in zip(examples, nll, calibration, answers, strict=True)]


def count_requests(examples: Sequence[Example], settings: HeldoutSettings) -> int:
    """Requests that `score` reports to `progress` in all: one for each example's likelihood, one for each answer."""
    return len(examples) + sum(example.domain in settings.exact_match for example in examples)


def _sample(
    settings: HeldoutSettings, example: Example, nll: float, calibration: list[float] | None, answer: str | None
) -> Sample:
    return Sample(
        id=example.id,
        domain=example.domain,
        bytes=len(example.response.encode()),
        nll=nll,
        calibration=calibration,
        exact_match=None if answer is None else _is_right(answer, example, settings),
        prompt=example.prompt,
        target=example.response,
        answer=answer,
    )


def _is_right(answer: str, example: Example, settings: HeldoutSettings) -> bool:
    part = settings.compare.get(example.domain)
    return same_answer(part, answer, example.response) if part else answer.strip() == example.response.strip()


def _encode(tokenizer: Any, example: Example, prompt_format: PromptFormat, model: Any) -> Encoded:
    text = encode(tokenizer, example.messages, example.response, prompt_format=prompt_format)
    longest = context_length(model.config)
    if longest is not None and len(text.input_ids) > longest.tokens:
        raise ValueError(
            f"A held-out example of domain {example.domain} has {len(text.input_ids)} tokens, {model.name_or_path} takes "
            f"{longest.tokens} ({longest.key}). Shorten it with response_chars in data.heldout; cutting it here would not be "
            "the same test."
        )
    return text


def _rows(
    model: Any, tokenizer: Any, texts: Sequence[Encoded], ends_in_turn: Sequence[bool], settings: HeldoutSettings,
    progress: Progress,
) -> LogitRows:  # fmt: skip
    """Rows at which bytes of the responses are predicted, with the likeliest token only; less the row of an end of turn."""
    source = TransformersSource(
        model, Head.from_model(model, vocabulary_size(tokenizer)), k=1, batch_tokens=settings.batch_tokens
    )
    rows = source.rows(texts, _in_examples(texts, progress))
    last = torch.tensor([text.num_rows for text in texts]).cumsum(0) - 1
    inside = torch.ones(len(rows), dtype=torch.bool)
    inside[last[torch.tensor(ends_in_turn)]] = False  # nothing is left to predict there but the end of turn
    return rows.select(inside)


def _refuse_what_is_no_score(ref: ModelRef, examples: Sequence[Example], rows: LogitRows, dtype: str) -> None:
    """Raise ValueError, with model and example, where a likelihood is NaN or infinite."""
    begin = f"{ref.path} ({dtype}): held-out example"
    if (fault := row_fault(rows, gold_is_known=True)) is not None:
        example = examples[fault.example]
        way_out = "choose float32, or leave the model out" if dtype != "float32" else "leave the model out"
        raise ValueError(
            f"{begin} {example.id} of domain {example.domain} has no likelihood: {fault}. To go on, {way_out}."
        )
    if len(never := rows.gold.isneginf().nonzero()):
        at = int(never[0, 0])
        example, token = examples[int(rows.example[at])], "" if rows.token is None else f" {int(rows.token[at])}"
        raise ValueError(
            f"{begin} {example.id} of domain {example.domain} has probability 0: behind {int(rows.prefix[at])} bytes of the "
            f"response the model masks the token{token} that follows. Leave the example out; no number compares with it."
        )


def _in_examples(texts: Sequence[Encoded], progress: Progress) -> Progress:
    """What is called with tokens that were read, and reports as large a share of the texts; all of them at the end."""
    total, tokens, reported = sum(len(text.input_ids) for text in texts), 0, 0

    def report(units: int) -> None:
        nonlocal tokens, reported
        tokens += units
        done = tokens * len(texts) // total
        progress(done - reported)
        reported = done

    return report


def _nll(rows: LogitRows, texts: int) -> list[float]:
    return torch.zeros(texts, dtype=torch.float64).index_add(0, rows.example, -rows.gold.double()).tolist()


def _calibration(rows: LogitRows, texts: int) -> list[list[float] | None]:
    """By text, what `calibration_sums` says of it; None for a text without rows."""
    return [of_text.tolist() if of_text[-1] else None for of_text in calibration_sums(rows, texts)]


def _answers(
    model: Any, tokenizer: Any, examples: Sequence[Example], formats: Sequence[PromptFormat], settings: HeldoutSettings,
    progress: Progress,
) -> list[str | None]:  # fmt: skip
    """Greedy answers in the domains of `exact_match`, None elsewhere. Prompts whose answers end alike are answered together."""
    answers: list[str | None] = [None] * len(examples)
    groups: dict[tuple[int | str, ...], list[int]] = {}
    for i, example in enumerate(examples):
        if example.domain in settings.exact_match:
            groups.setdefault(formats[i].stop, []).append(i)
    for answered in groups.values():
        prompts = [encode_prompt(tokenizer, examples[i].messages, prompt_format=formats[i]) for i in answered]
        completions = generate(
            model, tokenizer, [prompt.ids for prompt in prompts], settings=GenerationSettings(settings.max_new_tokens),
            eos_token_id=eos_token_ids(model, tokenizer, formats[answered[0]]), stop=formats[answered[0]].stop_texts,
            batch_tokens=settings.batch_tokens, progress=progress,
        )  # fmt: skip
        for i, prompt, [completion] in zip(answered, prompts, completions, strict=True):
            answers[i] = completion.text.removeprefix(prompt.lead)
    return answers
