"""Small real tokenizers, trained on the spot: one of each kind that models in use have."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache

from transformers import PreTrainedTokenizerFast

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

CORPUS = [
    "The cat sat on the mat, and the café was full of naïve people.",
    "def f(x):\n    if x > 10:\n        return 12345 + x\n\n\treturn None  # done",
    "A train leaves at 12:30 and takes 45 minutes; when does it arrive? It arrives at 13:15.",
    "日本語のテキストです。中文文本也在这里。 Ein Fuß, ein Öl, ein Übel.",
    "She said: 'hello there', then she said nothing. The end of the story is the end.",
] * 4

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
INSTRUCT = (
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'assistant' %} {{ m.content | trim }}{{ eos_token }}"
    "{% else %}[INST] {{ m.content | trim }} [/INST]{% endif %}{% endfor %}"
)
TURNS = (
    "<s>{% for m in messages %}<turn>{{ m.role }}\n{{ m.content }}</turn>\n{% endfor %}"
    "{% if add_generation_prompt %}<turn>assistant\n{% endif %}"
)


@cache
def byte_level(size: int = 400, chat: bool = True, nfc: bool = False) -> PreTrainedTokenizerFast:
    """Byte-level BPE without BOS, as GPT-2, Llama 3 and Qwen have it (the last with NFC)."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC() if nfc else None
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    template = CHATML if chat else None
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|endoftext|>", chat_template=template)


def _sentencepiece(size: int, specials: list[str]) -> Tokenizer:
    """BPE over `▁` with the 256 byte tokens behind the specials; the caller adds normaliser and decoder."""
    trained = Tokenizer(models.BPE(unk_token="<unk>"))
    trained.normalizer = normalizers.Replace(" ", "▁")
    trained.pre_tokenizer = pre_tokenizers.Split(Regex("▁+[^▁]*"), "isolated")
    trained.train_from_iterator(CORPUS, trainers.BpeTrainer(vocab_size=size, show_progress=False))
    state = json.loads(trained.to_str())["model"]
    words = [*specials, *(f"<0x{byte:02X}>" for byte in range(256)), *state["vocab"]]
    tokenizer = Tokenizer(
        models.BPE(
            vocab={word: n for n, word in enumerate(words)},
            merges=[tuple(pair) for pair in state["merges"]],
            unk_token="<unk>",
            fuse_unk=True,
            byte_fallback=True,
        )
    )
    tokenizer.add_special_tokens(specials)
    bos = [("<s>", tokenizer.token_to_id("<s>"))]
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=bos)
    return tokenizer


@cache
def llama_style(size: int = 300, chat: bool = True) -> PreTrainedTokenizerFast:
    """SentencePiece BPE with byte fallback, BOS and a space put before every piece of text, as Llama 2 has it."""
    tokenizer = _sentencepiece(size, ["<unk>", "<s>", "</s>"])
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return _wrap(tokenizer, INSTRUCT if chat else None)


@cache
def mistral_style(size: int = 280, chat: bool = True) -> PreTrainedTokenizerFast:
    """As Llama's, but by Metaspace, with a space before the first piece of a text alone."""
    tokenizer = _sentencepiece(size, ["<unk>", "<s>", "</s>"])
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return _wrap(tokenizer, INSTRUCT if chat else None)


@cache
def gemma_style(size: int = 350, chat: bool = True) -> PreTrainedTokenizerFast:
    """SentencePiece BPE with byte fallback and BOS, without a space before the text, as Gemma has it."""
    tokenizer = _sentencepiece(size, ["<unk>", "<s>", "</s>", "<turn>", "</turn>"])
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    return _wrap(tokenizer, TURNS if chat else None)


@cache
def unigram(size: int = 200, chat: bool = False, nfkc: bool = False) -> PreTrainedTokenizerFast:
    """SentencePiece Unigram without byte fallback: rare characters are unknown; T5-like, closes texts with `</s>`."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.NFKC() if nfkc else None
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    specials = ["<unk>", "<s>", "</s>"]
    trainer = trainers.UnigramTrainer(
        vocab_size=size, special_tokens=specials, unk_token="<unk>", show_progress=False, max_piece_length=8
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    eos = [("</s>", tokenizer.token_to_id("</s>"))]
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=eos)
    return _wrap(tokenizer, INSTRUCT if chat else None)


def _wrap(tokenizer: Tokenizer, template: str | None) -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>", chat_template=template
    )


BYTES: dict[str, Callable[[], PreTrainedTokenizerFast]] = {
    "byte-level": byte_level,
    "llama": llama_style,
    "mistral": mistral_style,
    "gemma": gemma_style,
}
"""Tokenizers that can write any text exactly."""

ALL: dict[str, Callable[[], PreTrainedTokenizerFast]] = BYTES | {
    "byte-level NFC": lambda: byte_level(nfc=True),
    "unigram": unigram,
    "unigram NFKC": lambda: unigram(nfkc=True, chat=True),
}
"""These, and such as change some texts."""
