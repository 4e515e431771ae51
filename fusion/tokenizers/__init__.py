"""What bytes tokens stand for: of a vocabulary (`table`), and of a text, with the place of each (`place`)."""

from fusion.tokenizers.byte_prefixes import byte_prefixes, tokenize
from fusion.tokenizers.token_bytes import control_tokens, name, remember, spelled, spellings

__all__ = ["byte_prefixes", "control_tokens", "name", "remember", "spelled", "spellings", "tokenize"]
