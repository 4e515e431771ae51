"""Bytes of the tokens of a vocabulary (`vocabulary_bytes`), and byte offsets of the tokens of a text (`byte_prefixes`)."""

from fusion.tokenizers.byte_prefixes import byte_prefixes, tokenize
from fusion.tokenizers.caching import cached_per_tokenizer
from fusion.tokenizers.control_tokens import control_tokens
from fusion.tokenizers.token_bytes import decode_text, tokenizer_name, vocabulary_bytes
from fusion.tokenizers.token_ids import token_ids

__all__ = [
    "byte_prefixes",
    "cached_per_tokenizer",
    "control_tokens",
    "decode_text",
    "token_ids",
    "tokenize",
    "tokenizer_name",
    "vocabulary_bytes",
]
