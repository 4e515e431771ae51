"""Load models and tokenizers from a hub id at a pinned revision, a local folder, or a GGUF file; and fingerprint them."""

from fusion.models.loading.config import (
    build_without_weights,
    check_loads_again,
    count_parameters,
    empty_model,
    load_config,
)
from fusion.models.loading.fingerprint import model_fingerprint
from fusion.models.loading.model import check_checkpoint, load_model
from fusion.models.loading.model_ref import ModelRef, check_model_folder
from fusion.models.loading.tokenizer import load_tokenizer, tokenizer_identity, vocabulary_size

__all__ = [
    "ModelRef",
    "build_without_weights",
    "check_checkpoint",
    "check_loads_again",
    "check_model_folder",
    "count_parameters",
    "empty_model",
    "load_config",
    "load_model",
    "load_tokenizer",
    "model_fingerprint",
    "tokenizer_identity",
    "vocabulary_size",
]
