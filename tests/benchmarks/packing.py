"""Packing on and off: the same examples in fewer lines, on text of very different lengths."""

from __future__ import annotations

from collections.abc import Iterable

import torch

from fusion.data.batching import pack_texts, pad_texts
from fusion.data.encode import Encoded
from fusion.models.head import hidden_states
from tests.benchmarks import bodies
from tests.benchmarks.measure import Figure, paired

LENGTHS = [256, 30, 41, 70, 22, 128, 55, 38]


def measure() -> Iterable[Figure]:
    """Forward and backward of the body over one batch of eight examples, the longest four times the median."""
    model = bodies.model_135m()
    _, whole = bodies.texts(len(LENGTHS), max(LENGTHS), 10)
    texts = [
        Encoded(text.input_ids[:n], text.start, text.prefix[: n - text.start], False)
        for text, n in zip(whole, LENGTHS, strict=True)
    ]

    def step(how) -> None:
        inputs, at, _ = how(texts)
        hidden_states(model, **inputs).flatten(0, 1)[at].square().mean().backward()
        model.zero_grad()

    padded, packed = (lambda: step(lambda t: pad_texts(t, "cpu"))), (lambda: step(lambda t: pack_texts(t, "cpu", 256)))
    ratio = paired(padded, packed, runs=3)
    places = [how["input_ids"].numel() for how, *_ in (pad_texts(texts, "cpu"), pack_texts(texts, "cpu", 256))]
    how = f"{places[0]:,} against {places[1]:,} places for {sum(LENGTHS)} tokens"
    yield Figure("padded step / packed step", str(ratio), "> 1", how)
    assert torch.equal(
        *(how(texts)[2].token for how in (lambda t: pad_texts(t, "cpu"), lambda t: pack_texts(t, "cpu", 256)))
    )
