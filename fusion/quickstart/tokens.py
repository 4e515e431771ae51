"""Four tokenizers of different kinds, each trained on a list of texts; so that the same text has different borders.

sentencepiece   BPE over ▁ words, byte fallback, digits single, <s> in front      as Llama 2 does
gpt             BPE over bytes, GPT-2's words                                     as GPT-NeoX does
unigram         Unigram over ▁ words, byte fallback                               as T5 does
digits          BPE over bytes, digits single, <|begin|> in front                 as OLMo and Llama 3 do
"""

import json
import math
from collections import Counter

from tokenizers.models import BPE, Unigram
from tokenizers.trainers import BpeTrainer
from transformers import PreTrainedTokenizerFast

from tokenizers import Tokenizer, decoders, pre_tokenizers, processors

BYTES = [f"<0x{byte:02X}>" for byte in range(256)]


def sentencepiece(texts: list[str]) -> PreTrainedTokenizerFast:
    """At most 600 tokens, bytes included."""
    special = ["<unk>", "<s>", "</s>", "<pad>"]
    words = pre_tokenizers.Sequence([pre_tokenizers.Metaspace(), pre_tokenizers.Digits(True)])
    tokenizer = _over_characters(texts, words, 600 - len(BYTES) - len(special))
    model = json.loads(tokenizer.to_str())["model"]
    pieces = sorted(model["vocab"], key=model["vocab"].__getitem__)
    vocab = {token: i for i, token in enumerate([*special, *BYTES, *pieces])}
    merges = [tuple(merge) for merge in model["merges"]]
    tokenizer.model = BPE(vocab, merges, unk_token="<unk>", byte_fallback=True, fuse_unk=True)
    return _as_fast_tokenizer(tokenizer, _spaces(), bos="<s>", eos="</s>", pad="<pad>", unk="<unk>")


def gpt(texts: list[str]) -> PreTrainedTokenizerFast:
    """At most 400 tokens."""
    tokenizer = _over_bytes(
        texts, pre_tokenizers.ByteLevel(add_prefix_space=False), 400, ["<|endoftext|>", "<|padding|>"]
    )
    return _as_fast_tokenizer(tokenizer, decoders.ByteLevel(), eos="<|endoftext|>", pad="<|padding|>")


def unigram(texts: list[str]) -> PreTrainedTokenizerFast:
    """At most 900 tokens, bytes included. Pieces and their probabilities are those of a BPE of the same texts, add-one.

    The trainer of `tokenizers` looks for pieces among distinct words; so few distinct words leave it almost none.
    """
    special = ["<pad>", "<eos>", "<unk>"]
    tokenizer = _over_characters(texts, pre_tokenizers.Metaspace(), 900 - len(BYTES) - len(special))
    counts = Counter(token for text in texts for token in tokenizer.encode(text).tokens)
    scores = {token: math.log((counts[token] + 1) / counts.total()) for token in sorted(tokenizer.get_vocab())}
    never = min(scores.values()) - 10.0  # a byte only where no piece fits
    vocab = [*((token, 0.0) for token in special), *((byte, never) for byte in BYTES), *scores.items()]
    tokenizer.model = Unigram(vocab, unk_id=special.index("<unk>"), byte_fallback=True)
    return _as_fast_tokenizer(tokenizer, _spaces(), eos="<eos>", pad="<pad>", unk="<unk>")


def digits(texts: list[str]) -> PreTrainedTokenizerFast:
    """At most 500 tokens."""
    words = pre_tokenizers.Sequence([pre_tokenizers.Digits(True), pre_tokenizers.ByteLevel(add_prefix_space=False)])
    tokenizer = _over_bytes(texts, words, 500, ["<|begin|>", "<|end|>", "<|pad|>"])
    return _as_fast_tokenizer(tokenizer, decoders.ByteLevel(), bos="<|begin|>", eos="<|end|>", pad="<|pad|>")


def _over_characters(texts: list[str], words: pre_tokenizers.PreTokenizer, size: int) -> Tokenizer:
    tokenizer = Tokenizer(BPE())
    tokenizer.pre_tokenizer = words
    tokenizer.train_from_iterator(texts, BpeTrainer(vocab_size=size, show_progress=False))
    return tokenizer


def _over_bytes(texts: list[str], words: pre_tokenizers.PreTokenizer, size: int, special: list[str]) -> Tokenizer:
    tokenizer = Tokenizer(BPE())
    tokenizer.pre_tokenizer = words
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())  # all 256 bytes, seen or not
    trainer = BpeTrainer(vocab_size=size, special_tokens=special, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def _spaces() -> decoders.Decoder:
    return decoders.Sequence([decoders.ByteFallback(), decoders.Metaspace()])


def _as_fast_tokenizer(tokenizer: Tokenizer, decoder: decoders.Decoder, **special: str) -> PreTrainedTokenizerFast:
    tokenizer.decoder = decoder
    if bos := special.get("bos"):
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{bos} $A", pair=f"{bos} $A $B", special_tokens=[(bos, tokenizer.token_to_id(bos))]
        )
    named = {f"{role}_token": token for role, token in special.items()}
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, clean_up_tokenization_spaces=False, model_max_length=256, **named
    )
