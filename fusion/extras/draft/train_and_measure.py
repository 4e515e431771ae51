"""A draft trained for a model and measured on prompts that it has not seen: what `fusion draft` does."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from fusion.data.answer_end import end_of_turn
from fusion.data.encode import Encoded, encode
from fusion.data.example import Example
from fusion.data.prompt_format import PromptFormat
from fusion.extras.draft import Acceptance, Draft, DraftSettings, acceptance, load, train
from fusion.extras.draft.generate import Speculator
from fusion.extras.draft.model import SHAPE, WEIGHTS
from fusion.models.head import Head
from fusion.models.loading import ModelRef, load_model, load_tokenizer, vocabulary_size
from fusion.models.loading import model_fingerprint as model_fingerprint
from fusion.runtime.artifacts import claim_artifact, fingerprint, mark_complete, write_json
from fusion.runtime.console import bar, console, training_bar
from fusion.runtime.distributed import device
from fusion.runtime.locks import exclusive

MEASURED = "acceptance.json"


@dataclass(frozen=True)
class DraftData:
    """The texts that a draft learns from and is measured on."""

    examples: Sequence[Example]
    heldout: int
    """The last so many are measured on and not learned from."""
    max_length: int
    """Tokens at which prompt and response are cut."""


def train_and_measure(
    ref: ModelRef, data: DraftData, settings: DraftSettings, out: Path, *, dtype: str = "float32"
) -> list[Acceptance]:
    """Train a draft of the model in `ref` into the folder `out` and measure its acceptance on the held-out examples.

    The model computes in `dtype`, the draft in float32. A complete draft of the same inputs is not trained again. Raises
    ValueError where no examples are left to train on, and where `out` was made from other inputs, and BlockingIOError, naming
    the process, where another is writing `out`.
    """
    if len(data.examples) <= data.heldout:
        raise ValueError(
            f"There are {len(data.examples)} examples, and {data.heldout} are held out: give more, or set --heldout lower."
        )
    with exclusive(out.absolute().parent / f".{out.absolute().name}.lock", f"The draft in {out}"):
        return _train_and_measure(ref, data, settings, out, dtype)


def _train_and_measure(
    ref: ModelRef, data: DraftData, settings: DraftSettings, out: Path, dtype: str
) -> list[Acceptance]:
    if claim_artifact(out, _artifact_key(ref, data, settings, dtype), "fusion draft"):
        console.print(f"{out} holds this draft already, nothing to do.")
        return [Acceptance(**entry) for entry in json.loads((out / MEASURED).read_text())]
    tokenizer, target = load_tokenizer(ref), load_model(ref, dtype, device())
    head = Head.from_model(target, vocabulary_size(tokenizer))
    head.check_against_model(target)
    texts = _encoded(tokenizer, data.examples, data.max_length)
    split = len(texts) - data.heldout
    draft = train(
        target, head, tokenizer, texts[:split], settings=settings, folder=out, callbacks=training_bar("draft")
    )
    measured = measure(target, head, draft, texts[split:], settings=settings, stop=end_of_turn(tokenizer))
    write_json(out / MEASURED, [dataclasses.asdict(entry) for entry in measured])
    mark_complete(out, [WEIGHTS, SHAPE, MEASURED])
    return measured


def measure_existing(
    ref: ModelRef, folder: Path, examples: Sequence[Example], settings: DraftSettings
) -> list[Acceptance]:
    """Measure the draft in `folder` on another model than it was trained for, for example after further training.

    Raises ValueError where the model's hidden states have another width than those the draft reads.
    """
    tokenizer, target = load_tokenizer(ref), load_model(ref, device=device())
    texts = _encoded(tokenizer, examples)
    draft, width = load(folder).to(device()), target.get_input_embeddings().weight.shape[1]
    if draft.shape.width != width:
        raise ValueError(
            f"The draft in {folder} reads states of width {draft.shape.width}, {ref.path} has {width}: make one for it."
        )
    head = Head.from_model(target, vocabulary_size(tokenizer))
    return measure(target, head, draft, texts, settings=settings, stop=end_of_turn(tokenizer))


def measure(
    target: Any, head: Head, draft: Draft, texts: Sequence[Encoded], *, settings: DraftSettings, stop: int | None
) -> list[Acceptance]:
    """Acceptance after the prompts of `texts`: greedy first, then sampled at temperature 1."""
    prompts = [text.input_ids[: text.start] for text in texts]
    found = []
    with bar("acceptance", 2 * len(prompts), "prompts") as advance:
        for temperature in (0.0, 1.0):
            generator = torch.Generator().manual_seed(settings.seed)
            speculator = Speculator(target, head, draft, settings.depth, temperature, generator)
            found.append(acceptance(speculator, prompts, settings.max_new_tokens, stop=stop, on_prompt_done=advance))
    return found


def _artifact_key(ref: ModelRef, data: DraftData, settings: DraftSettings, dtype: str) -> dict[str, Any]:
    """Everything that determines the draft and its measurement."""
    return {
        "model": model_fingerprint(ref),
        "examples": fingerprint({"ids": [example.id for example in data.examples]}),
        "heldout": data.heldout,
        "max_length": data.max_length,
        "dtype": dtype,
        "settings": settings.model_dump(),
    }


def _encoded(tokenizer: Any, examples: Sequence[Example], max_length: int | None = None) -> list[Encoded]:
    return [
        encode(
            tokenizer, e.messages, e.response, prompt_format=PromptFormat(e.template or "auto"), max_length=max_length
        )
        for e in examples
    ]
