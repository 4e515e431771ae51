"""Extraction against the bare forward pass of the same model on the same rows."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from unittest import mock

import torch

from fusion.data.batching import pad_texts
from fusion.models import shared_prefix
from fusion.models.head import Head, hidden_states
from fusion.sources import TransformersSource
from tests.benchmarks import bodies
from tests.benchmarks.measure import Figure, paired

VOCABULARY, EXAMPLES, TOKENS = 151_936, 2, 192


def measure() -> Iterable[Figure]:
    """K = 10, a body of 106M parameters, moments included; the bare pass computes the head on the same rows and no more."""
    model = bodies.model_135m(VOCABULARY).eval()
    head = Head.from_model(model, VOCABULARY).for_frozen_model()
    source = TransformersSource(model, head, 10)
    for prompt, name in ((1, "responses only"), (TOKENS // 2, "half of the tokens are prompt")):
        _, texts = bodies.texts(EXAMPLES, TOKENS, prompt, VOCABULARY)
        inputs, at, _ = pad_texts(texts, "cpu")

        @torch.inference_mode()
        def bare(inputs=inputs, at=at) -> None:
            for part in hidden_states(model, **inputs).flatten(0, 1)[at].split(220):
                model.lm_head(part)

        @torch.inference_mode()
        def whole(inputs=inputs) -> None:
            model(**inputs, use_cache=False)

        ratio = paired(bare, lambda texts=texts: source.rows(texts))
        how = f"{EXAMPLES} x {TOKENS} tokens, {ratio.b:.2f} s"
        yield Figure(f"speed of extraction / bare forward pass, {name}", str(ratio), "≥ 0.95", how)
        if prompt > 1:
            ratio = paired(whole, lambda texts=texts: source.rows(texts))
            yield Figure(f"speed of extraction / forward pass over the whole sequence, {name}", str(ratio), "> 1", how)
    yield _shared_beginning(source)


def _shared_beginning(source: TransformersSource) -> Figure:
    """Texts behind the same worked examples, read as they are and as if these were too short to be shared."""
    _, texts = bodies.texts(8, 330, 300, VOCABULARY)
    alike = [replace(text, input_ids=texts[0].input_ids[:280] + text.input_ids[280:]) for text in texts]

    def whole() -> None:
        with mock.patch.object(shared_prefix, "MIN_PREFIX", 10_000):
            source.rows(alike)

    ratio = paired(whole, lambda: source.rows(alike), runs=3)
    how = f"8 texts of 330 tokens, {ratio.b:.2f} s"
    return Figure(
        "speed of extraction where 280 tokens are shared / where each text is read whole", str(ratio), "> 2", how
    )
