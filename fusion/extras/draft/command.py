"""The command `fusion draft`: a draft trained for a model, measured on prompts that it has not seen."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError

from fusion.data.datasets import Example
from fusion.data.encode import Encoded, encode, end_of_turn
from fusion.extras.draft import Acceptance, Draft, DraftSettings, acceptance, load, train
from fusion.extras.draft.generate import Speculator
from fusion.models.head import Head
from fusion.models.loading import ModelRef, load_model, load_tokenizer, vocabulary
from fusion.models.loading import fingerprint as identity
from fusion.runtime.artifacts import fingerprint, finish, finished, write_json
from fusion.runtime.console import bar, console, training_bar
from fusion.runtime.distributed import device

MEASURED = "acceptance.json"


def parse(words: Sequence[str]) -> DraftSettings:
    """Settings from the words of a command line, such as `learning_rate=1e-4`. Raises ValueError that names the wrong one."""
    import yaml

    given: dict[str, Any] = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals:
            raise ValueError(f"--set {word}: write it as name=value, for example learning_rate=1e-4.")
        given[name] = yaml.safe_load(value)
    try:
        return DraftSettings.model_validate(given)
    except ValidationError as error:
        allowed = ", ".join(DraftSettings.model_fields)
        wrong = [f"--set {e['loc'][0]}: {e['msg']}, got {given[str(e['loc'][0])]!r}" for e in error.errors()]
        raise ValueError("; ".join(wrong) + f". There are {allowed}.") from None


def run(
    ref: ModelRef,
    examples: Sequence[Example],
    heldout: int,
    settings: DraftSettings,
    max_length: int,
    out: Path,
    dtype: str = "float32",
) -> list[Acceptance]:
    """Train a draft of the model in `ref` into `out`, all but the last `heldout` examples to learn from, and measure it there.

    The model computes in `dtype`, the draft in float32. What is done is not done again. Raises ValueError
    where too few examples are left, and where `out` was made otherwise.
    """
    if len(examples) <= heldout:
        raise ValueError(
            f"There are {len(examples)} examples, and {heldout} are held out: give more, or set --heldout lower."
        )
    key = {
        "model": identity(ref),
        "examples": fingerprint({"ids": [example.id for example in examples]}),
        "heldout": heldout,
        "max_length": max_length,
        "dtype": dtype,
        "settings": settings.model_dump(),
    }
    if finished(out, key, "fusion draft"):
        console.print(f"{out} holds this draft already, nothing to do.")
        return [Acceptance(**one) for one in json.loads((out / MEASURED).read_text())]
    tokenizer, target = load_tokenizer(ref), load_model(ref, dtype, device())
    head = Head.of(target, vocabulary(tokenizer))
    head.check(target)
    texts = [
        encode(tokenizer, e.messages, e.response, template=e.template or "auto", max_length=max_length)
        for e in examples
    ]
    draft = train(target, head, tokenizer, texts[: len(texts) - heldout], settings, out, training_bar("draft"))
    measured = measure(target, head, draft, texts[len(texts) - heldout :], settings, end_of_turn(tokenizer))
    write_json(out / MEASURED, [dataclasses.asdict(one) for one in measured])
    finish(out)
    return measured


def measure(
    target: Any, head: Head, draft: Draft, texts: Sequence[Encoded], settings: DraftSettings, stop: int | None
) -> list[Acceptance]:
    """Acceptance behind the prompts of `texts`, greedy and sampled at temperature 1."""
    prompts = [text.input_ids[: text.start] for text in texts]
    found = []
    with bar("acceptance", 2 * len(prompts)) as advance:
        for temperature in (0.0, 1.0):
            generator = torch.Generator().manual_seed(settings.seed)
            speculator = Speculator(target, head, draft, settings.depth, temperature, generator)
            found.append(acceptance(speculator, prompts, settings.length, stop, advance))
    return found


def measure_again(
    ref: ModelRef, folder: Path, examples: Sequence[Example], settings: DraftSettings
) -> list[Acceptance]:
    """Acceptance of the draft in `folder` for another model than it was made for: what a later training did to it."""
    tokenizer, target = load_tokenizer(ref), load_model(ref, device=device())
    texts = [encode(tokenizer, e.messages, e.response, template=e.template or "auto") for e in examples]
    draft, width = load(folder).to(device()), target.get_input_embeddings().weight.shape[1]
    if draft.shape.width != width:
        raise ValueError(
            f"The draft in {folder} reads states of width {draft.shape.width}, {ref.path} has {width}: make one for it."
        )
    return measure(target, Head.of(target, vocabulary(tokenizer)), draft, texts, settings, end_of_turn(tokenizer))
