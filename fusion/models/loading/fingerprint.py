"""What identifies a model, so that what was made with another one is not taken for made."""

from __future__ import annotations

import hashlib

from transformers.utils.hub import cached_file, extract_commit_hash

from fusion.models.loading.explain import load_or_explain
from fusion.models.loading.model_ref import ModelRef

TOKENIZER_FILES = ("tokenizer*", "special_tokens_map.json", "vocab.*", "merges.txt", "*.model", "*.jinja")
MODEL_FILES = ("*.json", "*.safetensors", "*.model", "*.jinja", "merges.txt", "vocab.txt")
"""Files that the outputs of a model folder depend on."""
WRITTEN_ABOUT_IT = {"evaluation.json"}
"""Files of a model folder that say what was measured of it, so that a measurement makes no other model of it."""


def model_fingerprint(ref: ModelRef, tokenizer_alone: bool = False) -> str:
    """Return what identifies a model or its tokenizer: `hub id@commit`, or the sha256 of local files' names and contents."""
    path, one = ref.local_path, "tokenizer_config.json" if tokenizer_alone else "config.json"
    if path is None:
        found = load_or_explain(ref, one, lambda: cached_file(ref.path, one, revision=ref.revision))
        return f"{ref.path}@{extract_commit_hash(found, None)}"
    patterns = TOKENIZER_FILES if tokenizer_alone else MODEL_FILES
    found = {file for pattern in patterns for file in path.glob(pattern) if file.name not in WRITTEN_ABOUT_IT}
    files = [path] if path.is_file() else sorted(found)
    digest = hashlib.sha256()
    for file in files:
        if not path.is_file():
            digest.update(file.name.encode())
        with file.open("rb") as stream:
            digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()
