"""Where the encoded examples of a run are kept: by all that made them."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING

import transformers

import tokenizers
from fusion.models import loading
from fusion.runtime import artifacts

if TYPE_CHECKING:
    from fusion.stages.context import RunContext

TOKENS = "tokens"
"""Where in a run's folder the texts lie."""
VERSION = 1
"""Counts changes of how examples are encoded: what another version kept is not read."""
FORMAT_SETTINGS = {
    "template", "chat_template_kwargs", "answer_prefix", "fold_system_message", "stop", "shots", "look_ahead"
}  # fmt: skip
"""Settings of a model that its prompts depend on."""


def kept_folder(context: RunContext, name: str) -> Path:
    """The folder for texts that are made from all that these are made from."""
    model, tokenizer = context.models[name], context.tokenizers[name]
    key = {
        "version": [VERSION, transformers.__version__, tokenizers.__version__],
        "tokenizer": [type(tokenizer).__name__, tokenizer.chat_template, _tokenizer_digest(context, name)],
        "formats": [model.model_dump(mode="json", include=FORMAT_SETTINGS), str(context.date)],
        "max_length": context.config.data.max_length,
        "examples": _examples_digest(context, name),
    }
    return context.config.folder / TOKENS / name / artifacts.fingerprint(key)


def _tokenizer_digest(context: RunContext, name: str) -> str:
    """A hash of the tokenizer: of its files in a folder, else of what was loaded."""
    ref = context.models[name].ref
    if ref.local_path is not None and ref.local_path.is_dir():
        return loading.model_fingerprint(ref, tokenizer_alone=True)
    return hashlib.sha256(context.tokenizers[name].backend_tokenizer.to_str().encode()).hexdigest()


def _examples_digest(context: RunContext, name: str) -> str:
    """A hash of the examples in their order, with what this model reads of them besides what makes their id."""
    digest, ahead = hashlib.sha256(), context.look_ahead_prompts(name)
    for id, example in zip(context.ids, context.extracted_examples, strict=True):
        digest.update(f"{id} {example.domain} {json.dumps(ahead.get(id))}\n".encode("utf-8", "surrogatepass"))
    return digest.hexdigest()
