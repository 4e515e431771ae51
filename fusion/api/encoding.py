"""Examples in the tokens of a model: how its prompts are written, and whether it can read them."""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from fusion.api.given import shown
from fusion.data.encoding import Conversation, EncodedTexts, encode_batch
from fusion.data.example import Example
from fusion.data.prompt_format import PromptFormat
from fusion.models.context_length import context_length
from fusion.runtime.console import show
from fusion.stages.limits.checkpoints import beyond_embedding, first_beyond
from fusion.stages.limits.lengths import longer_texts
from fusion.tokenizers import tokenizer_name


def prompt_format_of(
    tokenizer: Any, chat_template_kwargs: Any, answer_prefix: Any, day: datetime.date | None
) -> PromptFormat:
    """How a model's prompts are written. Raises ValueError for what cannot say that, and for variables that nothing reads."""
    if not isinstance(chat_template_kwargs, Mapping | None):
        raise ValueError(
            f"chat_template_kwargs is {shown(chat_template_kwargs)}; give keys and values, such as "
            "{'enable_thinking': False}."
        )
    if not isinstance(answer_prefix, str | None):
        raise ValueError(
            f"answer_prefix is {shown(answer_prefix)}; give the text before every answer, or leave it out."
        )
    if chat_template_kwargs and not tokenizer.chat_template:
        raise ValueError(
            f"{tokenizer_name(tokenizer)}: chat_template_kwargs is for chat templates, and its tokenizer has none; leave it "
            "out."
        )
    return PromptFormat(chat_template_kwargs=dict(chat_template_kwargs or {}), answer_prefix=answer_prefix, date=day)


def day_of(key: Mapping[str, Any]) -> datetime.date | None:
    """The date that templates which ask for today's got, from the key of a cache; None where it is not kept."""
    return datetime.date.fromisoformat(key["date"]) if "date" in key else None


def encode_examples(
    tokenizer: Any, examples: Sequence[Example], max_length: int | None, form: PromptFormat
) -> EncodedTexts:
    """Return prompt and response of each example in the tokens of a model, rendered with its chat template if it has one.

    Prints how many were cut at `max_length`. Raises ValueError for the first example that this tokenizer cannot read, with the
    place where that was read.
    """
    texts = []
    for example in examples:
        own = replace(form, tools=example.tools).for_prompt(example.messages, example.template)
        texts.append(Conversation(example.messages, example.response, own, example.origin))
    encoded = encode_batch(tokenizer, texts, max_length)
    if cut := int(encoded.truncated.sum()):
        name = tokenizer_name(tokenizer)
        show([f"{name}: {cut} of {len(encoded)} responses are longer than max_length = {max_length} and were cut."])
    return encoded


def refuse_unreadable(
    name: str, config: Any, tokenizer: Any, examples: Sequence[Example], texts: EncodedTexts, *, pads: bool = False
) -> None:
    """Raise ValueError for texts that a model cannot read: longer than it reads, or with tokens that it has no embedding for.

    With `pads`, its padding token is read too.
    """
    if (limit := context_length(config)) is not None:
        way_out = f"Set max_length to {limit.tokens} or less"
        for problem in longer_texts(name, limit, "given", examples, texts.lengths, way_out):
            raise ValueError(problem)
    rows = getattr(config.get_text_config(), "vocab_size", None)
    if isinstance(rows, int) and (found := first_beyond(tokenizer, [t.input_ids for t in texts], examples, rows, pads)):
        raise ValueError(beyond_embedding(name, found, rows))
