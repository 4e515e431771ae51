"""Rows on disk: bytes, speed of decoding, and what the packing does to the losses."""

from __future__ import annotations

import dataclasses
import os
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

from fusion.alignment import map_to_pivot, match_prefixes
from fusion.alignment.tokenizer_pair import vocabulary_map
from fusion.cache.codec import bytes_per_row, decode, encode
from fusion.core.rows import LogitRows, MappedRows, Positions
from fusion.data.batching import pad_texts
from fusion.data.encode import encode as encode_text
from fusion.data.prompt_format import PromptFormat
from fusion.models.head import Head, hidden_states
from fusion.models.loading import ModelRef, load_model, load_tokenizer, vocabulary_size
from fusion.objectives import GLD, ForwardKL, InfiFusion
from fusion.sources import TransformersSource
from tests.benchmarks import bodies
from tests.benchmarks.measure import Figure, best
from tests.helpers.rows import as_mapped

VOCABULARY = 151_936


def measure() -> Iterable[Figure]:
    """At K = 10 and a vocabulary of 152K."""
    yield from _size()
    rows = bodies.random_rows(2000, 250, VOCABULARY)
    tensors = encode(rows, "packed", VOCABULARY)
    speed = len(rows) / best(lambda: decode(tensors, rows.example, 10, VOCABULARY))
    yield Figure("rows decoded a second and core", f"{speed:,.0f}", "≥ 1,000,000", f"{len(rows):,} rows at once")
    yield from _errors()
    if folder := os.environ.get("FUSION_REAL_MODELS"):
        yield from _on_real_models(Path(folder))
    else:
        yield Figure("losses on packed rows of real models", "not measured", "", "FUSION_REAL_MODELS names no folder")


def _size() -> Iterable[Figure]:
    with tempfile.TemporaryDirectory() as place:
        examples, _ = bodies.texts(256, 300, 50)
        for values in ("packed", "float16"):
            cache = bodies.cache(Path(place) / values, examples, 250, VOCABULARY, values=values)
            target = "≤ 40" if values == "packed" else ""
            raw = 10 * (4 + 8) + 3 * 4 + 2 * 8
            how = f"index included; {bytes_per_row(10, values, VOCABULARY)} without; arrays in memory take {raw}"
            yield Figure(f"bytes of a cached row, {values}", f"{cache.size_in_bytes / len(cache):.2f}", target, how)


def _errors() -> Iterable[Figure]:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 2000, 5000, generator=generator) / (torch.rand(2, 2000, 1, generator=generator) + 0.1)
    place = torch.arange(2000)
    pivot, source = (_rows(side, place) for side in logits)
    again = decode(encode(source, "packed", VOCABULARY), source.example, 10, VOCABULARY)
    error = (again.logprobs - source.logprobs).abs()
    yield Figure("largest error of a log-probability", f"{error.max():.4f} nat", "≤ 0.03", f"mean {error.mean():.4f}")
    queried = dataclasses.replace(pivot, logprobs=logits[0].log_softmax(-1).gather(1, source.ids), ids=source.ids)
    cases = (
        (InfiFusion(), pivot, (source, again), ()),
        (ForwardKL(), queried, (as_mapped(source), as_mapped(again)), ()),
        (GLD(), pivot, (source, again), (20,)),
    )
    for objective, mine, both, more in cases:
        exact, packed = (objective(mine, rows, *more).mean().item() for rows in both)
        yield Figure(
            f"{objective.kind}: loss on packed rows / on exact rows", f"{packed / exact:.4f}", "", "2,000 rows"
        )


@torch.inference_mode()
def _on_real_models(folder: Path) -> Iterable[Figure]:
    """SmolLM2 compared with Qwen2.5-Coder on this project's own pages."""
    pages = sorted(Path(__file__).parents[2].glob("docs/*.md"))
    texts = {i: page.read_text()[:1500] for i, page in enumerate(pages)}
    (tokenizer, pivot, positions), (other, source, _) = (
        _read(folder / name, texts.values()) for name in ("smollm2-135m-instruct", "qwen2.5-coder-0.5b-instruct")
    )
    pairs = match_prefixes(pivot, source)
    mapped = vocabulary_map("first_piece", other, tokenizer, (PromptFormat("plain"), PromptFormat("plain")))
    packed = decode(encode(source, "packed", VOCABULARY), source.example, 10, VOCABULARY)
    outcomes = []
    for rows in (source, packed):
        at, theirs = map_to_pivot(positions, rows, pairs, mapped)
        kl = ForwardKL()(_queried(folder, tokenizer, texts.values(), pairs.pivot[at], theirs), theirs)
        mine = pivot.select(pairs.pivot)
        outcomes.append([kl, InfiFusion()(mine, rows.select(pairs.source)), GLD()(pivot, rows, len(texts))])
    for name, exact, again in zip(("forward_kl", "infifusion", "gld"), *outcomes, strict=True):
        value = f"{again.mean() / exact.mean():.4f}"
        yield Figure(
            f"{name} on real models: packed / exact", value, "", f"exact {exact.mean():.3f}, {len(pairs):,} pairs"
        )


def _read(folder: Path, texts: Iterable[str]) -> tuple[Any, LogitRows, Positions]:
    """A model's tokenizer, its rows on these texts, and where they stand."""
    ref = ModelRef(str(folder))
    tokenizer, model = load_tokenizer(ref), load_model(ref)
    encoded = [encode_text(tokenizer, [], text, prompt_format=PromptFormat("plain")) for text in texts]
    rows = TransformersSource(model, Head.from_model(model, vocabulary_size(tokenizer)).for_frozen_model(), 10).rows(
        encoded
    )
    return tokenizer, rows, pad_texts(encoded, "cpu")[2]


def _queried(folder: Path, tokenizer: Any, texts: Iterable[str], at: torch.Tensor, theirs: MappedRows) -> LogitRows:
    """What SmolLM2 says of a source's ids at these of its rows."""
    model = load_model(ModelRef(str(folder / "smollm2-135m-instruct")))
    inputs, where, positions = pad_texts(
        [encode_text(tokenizer, [], text, prompt_format=PromptFormat("plain")) for text in texts], "cpu"
    )
    hidden = hidden_states(model, **inputs).flatten(0, 1)[where]
    rows, asked = Head.from_model(model, vocabulary_size(tokenizer)).rows(
        hidden[at], positions.select(at), 0, theirs.ids
    )
    return dataclasses.replace(rows, logprobs=asked, ids=theirs.ids)


def _rows(logits: torch.Tensor, place: torch.Tensor) -> LogitRows:
    logprobs = logits.log_softmax(-1)
    values, ids = logprobs.topk(10)
    std, mean = torch.std_mean(logprobs, -1, correction=0)
    return LogitRows(values, ids, logprobs[:, 7], mean, std, prefix=place % 100, example=place // 100)
