"""Tiny, real models made on the spot: random weights, real architectures, tokenizers trained on a few sentences."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM

from fusion.quickstart import tokens

TEXTS = [
    "the quick brown fox jumps over the lazy dog 0123456789",
    "how much is 12 + 30? it is 42, and 7 * 6 is 42 as well.",
    "naïve café, 北京, emoji 🙂 and\ttabs\r\nand lines",
    "def double(x):\n    return 2 * x\n",
] * 4

SMALL = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}
SHAPES = {
    "llama": SMALL | {"num_key_value_heads": 1},
    "gpt_neox": SMALL,
    "qwen2": SMALL | {"num_key_value_heads": 2, "tie_word_embeddings": True},
    "gemma2": SMALL | {"num_key_value_heads": 1, "head_dim": 16, "final_logit_softcapping": 3.0},
    "granite": SMALL | {"num_key_value_heads": 1, "logits_scaling": 4.0},
    "cohere": SMALL | {"num_key_value_heads": 1, "logit_scale": 0.25},
}
TOKENIZERS = {
    "llama": tokens.sentencepiece,
    "gpt_neox": tokens.gpt,
    "qwen2": tokens.unigram,
    "gemma2": tokens.digits,
    "granite": tokens.gpt,
    "cohere": tokens.digits,
}


def model(kind: str, vocabulary: int = 300, seed: int = 0):
    """A random model of this architecture, in evaluation mode. Its logits are spread out, so that ranks are clear."""
    torch.manual_seed(seed)
    config = AutoConfig.for_model(kind, vocab_size=vocabulary, max_position_embeddings=256, **SHAPES[kind])
    config.pad_token_id = config.bos_token_id = config.eos_token_id = None
    made = AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():
        for weight in made.parameters():
            weight += 0.1 * torch.randn_like(weight)
    return made


def folder(kind: str, out: Path, seed: int = 0, padding: int = 5) -> Path:
    """A model and its tokenizer in a folder; the head has `padding` rows that belong to no token."""
    tokenizer = TOKENIZERS[kind](TEXTS)
    made = model(kind, max(tokenizer.get_vocab().values()) + 1 + padding, seed)
    made.generation_config.eos_token_id = tokenizer.eos_token_id
    made.generation_config.pad_token_id = tokenizer.pad_token_id
    made.save_pretrained(out)
    tokenizer.save_pretrained(out)
    return out


def json_of(tokenizer) -> dict[str, Any]:
    """What a fast tokenizer is made of."""
    return json.loads(tokenizer.backend_tokenizer.to_str())
