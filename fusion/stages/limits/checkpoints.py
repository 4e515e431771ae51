"""Checkpoints that cannot be trained or read, and tokens that a model has no embedding for: no weights are read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import transformers

from fusion.data.encode import encode
from fusion.data.example import Example
from fusion.data.exported_template import exported_template
from fusion.models.loading import vocabulary_size
from fusion.models.quantized_checkpoints import is_known_method, quantization_method
from fusion.stages.context import RunContext
from fusion.stages.limits.lengths import where_read
from fusion.stages.limits.models import label, read_configs
from fusion.stages.prompts import prompt_format
from fusion.stages.train import refuse_stop_of_several_tokens


def unloadable_checkpoints(context: RunContext, configs: Mapping[str, Any]) -> Iterator[str]:
    """A sentence for each model whose quantized weights nothing here reads, or that is to be trained and cannot be."""
    for name, config in configs.items():
        if (method := quantization_method(config)) is None or _is_gguf(context, name):
            continue
        here = context.backend(name).kind == "transformers"
        if name in _trained(context):
            yield (
                f"{label(context, name)} is quantized ({method}, quantization_config in its config.json), and such weights "
                "cannot be trained. Take the checkpoint that it was made from; adapter: {kind: qlora} loads that in 4 bits."
            )
        elif here and not is_known_method(method):
            yield (
                f"{label(context, name)} is quantized by {method} (quantization_config in its config.json), which "
                f"transformers {transformers.__version__} does not read. Take another checkpoint, or a newer transformers."
            )


def unwritable_templates(context: RunContext) -> Iterator[str]:
    """What is wrong with the pivot's template or the ends of its answers, which its export would find after training."""
    for check in (
        lambda: exported_template(context.tokenizers["pivot"], prompt_format(context, "pivot")),
        lambda: refuse_stop_of_several_tokens(context),
    ):
        try:
            check()
        except ValueError as error:
            yield str(error)


def unused_template_settings(context: RunContext) -> Iterator[str]:
    """A sentence for each model with settings for a chat template, where its tokenizer has none."""
    for name, model in context.models.items():
        given = [key for key in ("chat_template_kwargs", "fold_system_message") if getattr(model, key)]
        if given and not context.tokenizers[name].chat_template:
            yield f"{label(context, name)}: {', '.join(given)} is for chat templates, and its tokenizer has none; leave it out."


def missing_embeddings(context: RunContext) -> Iterator[str]:
    """A sentence for each model whose texts, padding or `stop` have token ids beyond its embedding.

    A tokenizer may know more tokens than the model where no text has them, as Gemma's does.
    """
    configs = read_configs(context)
    for name, tokenizer in context.tokenizers.items():
        size = vocabulary_size(tokenizer)
        for stop in prompt_format(context, name).stop_ids:
            if stop >= size:
                yield f"{label(context, name)}: stop has the token id {stop}, and its tokenizer has {size} tokens, from 0 on."
        rows = getattr(configs[name].get_text_config(), "vocab_size", None) if name in configs else None
        if isinstance(rows, int) and rows < size and (found := _first_of_run(context, name, rows)):
            yield beyond_embedding(label(context, name), found, rows)


def beyond_embedding(model: str, found: str, rows: int) -> str:
    """A sentence for a model of which `first_beyond` found something."""
    return (
        f"{model}: {found}, beyond its embedding, which has {rows} rows (vocab_size in its config.json). Take the tokenizer "
        "that belongs to the model, or give it rows (model.resize_token_embeddings(len(tokenizer)), then save_pretrained)."
    )


def _first_of_run(context: RunContext, name: str, rows: int) -> str | None:
    """What `first_beyond` finds among all texts that a model of the run reads."""
    tokenizer = context.tokenizers[name]
    texts = [text.input_ids for text in context.encoded(name)]
    examples = [*context.extracted_examples]
    if name == "pivot" and len(texts) == len(context.train_examples):  # else they are among the extracted
        texts += [text.input_ids for text in context.validation_texts]
        examples += context.validation_examples
    examples += context.heldout_examples
    texts += [
        encode(tokenizer, e.messages, e.response, prompt_format=prompt_format(context, name, e)).input_ids
        for e in context.heldout_examples
    ]
    return first_beyond(tokenizer, texts, examples, rows)


def first_beyond(
    tokenizer: Any, texts: Sequence[Sequence[int]], examples: Sequence[Example], rows: int, pads: bool = True
) -> str | None:
    """The first id of the padding or of a text that is `rows` or more, and where it is; without `pads`, of a text."""
    if pads and (tokenizer.pad_token_id or 0) >= rows:
        return f"its padding token {tokenizer.pad_token!r} has the id {tokenizer.pad_token_id}"
    beyond = [number for number, ids in enumerate(texts) if max(ids) >= rows]
    if not beyond:
        return None
    id = next(id for id in texts[beyond[0]] if id >= rows)
    return (
        f"{len(beyond)} of {len(texts)} examples, the first ({where_read(examples[beyond[0]])}), have tokens such as "
        f"{tokenizer.convert_ids_to_tokens(id)!r} of id {id}"
    )


def _trained(context: RunContext) -> set[str]:
    return {"pivot", *(source.name for source in context.config.sources if source.fine_tune is not None)}


def _is_gguf(context: RunContext, name: str) -> bool:
    return context.models[name].path.endswith(".gguf")
