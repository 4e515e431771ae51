"""What bytes tokens stand for: of a vocabulary (`table`), and of a text, with the place of each (`place`)."""

from fusion.tokenizers.byte_prefixes import byte_prefixes, tokenize
from fusion.tokenizers.token_bytes import (
    cached_per_tokenizer,
    control_tokens,
    decode_text,
    tokenizer_name,
    vocabulary_bytes,
)

__all__ = [
    "byte_prefixes",
    "cached_per_tokenizer",
    "control_tokens",
    "decode_text",
    "tokenize",
    "tokenizer_name",
    "vocabulary_bytes",
]
