"""Many examples as the tokens of one model: encoded together, kept in flat arrays."""

from fusion.data.encoding.batch import Conversation, encode_batch, encode_prompt_batch, encoded_chunks
from fusion.data.encoding.encoded_texts import DTYPES, EncodedTexts

__all__ = ["DTYPES", "Conversation", "EncodedTexts", "encode_batch", "encode_prompt_batch", "encoded_chunks"]
