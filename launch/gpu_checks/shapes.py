"""Random models of the shapes of SmolLM2-135M and Qwen2.5-Coder-0.5B, with large logits and vocabularies, made on the spot."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice, product
from pathlib import Path
from string import ascii_lowercase
from typing import Any

import torch
from tokenizers.models import BPE
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

from fusion.data import datasets
from fusion.data.batching import pad_texts
from fusion.data.encode import encode
from fusion.models.loading import ModelRef, load_model, load_tokenizer, vocabulary_size
from gpu_checks.check import Check, CheckContext
from tokenizers import Tokenizer, decoders, pre_tokenizers

LARGEST_LOGIT = 70.0
"""What the final norm is scaled for, on random tokens: the logits of real models are between 16 and 100."""
EMBEDDING_SCALE = 5.0
"""On the usual initial embeddings, so that a state still tells its own token after all layers, and few positions are alike."""


@dataclass(frozen=True)
class Shape:
    """Sizes of a model."""

    config: dict[str, Any]
    """Arguments of the model config."""
    tokens: int
    """Ids that tokens have; the vocabulary of the config may be padded beyond them."""
    pair_first: bool
    """Whether its tokens of four letters are two pairs, rather than three letters and one: borders then differ."""


SHAPES = {
    "llama": Shape(
        {
            "model_type": "llama", "hidden_size": 576, "num_hidden_layers": 30, "num_attention_heads": 9,
            "num_key_value_heads": 3, "intermediate_size": 1536, "vocab_size": 49_152,
        },
        49_152,
        pair_first=False,
    ),
    "qwen2": Shape(
        {
            "model_type": "qwen2", "hidden_size": 896, "num_hidden_layers": 24, "num_attention_heads": 14,
            "num_key_value_heads": 2, "intermediate_size": 4864, "vocab_size": 151_936,
        },
        151_665,
        pair_first=True,
    ),
}  # fmt: skip
"""SmolLM2-135M, and Qwen2.5-Coder-0.5B with its padded head."""
_TINY = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "intermediate_size": 48,
}
TINY_SHAPES = {
    "llama": Shape({"model_type": "llama", **_TINY, "vocab_size": 1_024}, 1_024, pair_first=False),
    "qwen2": Shape({"model_type": "qwen2", **_TINY, "vocab_size": 2_048}, 2_000, pair_first=True),
}


def shape_of(context: CheckContext, name: str) -> Shape:
    """Return the sizes of `llama` or `qwen2`."""
    return (TINY_SHAPES if context.tiny else SHAPES)[name]


def model_folder(context: CheckContext, name: str) -> Path:
    """Return the folder of the model `llama` or `qwen2` in float32, and its tokenizer; made where it is not there yet."""
    folder = context.folder / name
    if not (folder / "tokenizer.json").exists():
        shape = shape_of(context, name)
        model = random_model(shape.config, context.device)
        tokenizer = byte_tokenizer(shape.tokens, shape.pair_first)
        for role in ("eos", "pad"):
            setattr(model.generation_config, f"{role}_token_id", getattr(tokenizer, f"{role}_token_id"))
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)  # last: its presence means that all is there
    return folder


@torch.no_grad()
def random_model(config: dict[str, Any], device: str) -> Any:
    """Return a tied float32 model with random weights whose largest logit on random tokens is `LARGEST_LOGIT`."""
    torch.manual_seed(0)
    config = {**config, "tie_word_embeddings": True, "max_position_embeddings": 2048}
    with torch.device(device):
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**config), dtype=torch.float32).eval()
        ids = torch.randint(config["vocab_size"], (2, 64))
    model.get_input_embeddings().weight *= EMBEDDING_SCALE
    model.base_model.norm.weight *= LARGEST_LOGIT / model(ids).logits.abs().max()
    return model


def byte_tokenizer(size: int, pair_first: bool) -> PreTrainedTokenizerFast:
    """Return a byte-level BPE tokenizer of exactly `size` tokens: bytes, then made-up pieces of two, three and four letters."""
    special = ["<|endoftext|>", "<|padding|>"]
    vocab = {token: number for number, token in enumerate([*special, *sorted(pre_tokenizers.ByteLevel.alphabet())])}
    merges = list(islice(_merges(pair_first), size - len(vocab)))
    vocab |= {"".join(merge): len(vocab) + number for number, merge in enumerate(merges)}
    tokenizer = Tokenizer(BPE(vocab, merges))
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    tokenizer.add_special_tokens(special)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=special[0], pad_token=special[1])


def _merges(pair_first: bool) -> Iterator[tuple[str, str]]:
    """What BPE joins, the first first; `Ġ` is a space, which begins words only."""
    letters = "etaoinshrdlucmfwypvbgkjqxz"  # the frequent ones first
    assert sorted(letters) == list(ascii_lowercase)
    starts = ["Ġ", *letters]
    pairs = [*product(starts, letters)]
    yield from pairs
    triples = [(a + b, c) for (a, b), c in product(pairs, letters)]
    yield from triples
    inner = [a + b for a, b in product(letters, letters)]
    yield from product(map("".join, pairs), inner) if pair_first else product(map("".join, triples), letters)


def logits_check(context: CheckContext) -> Iterator[Check]:
    """The logits of both models on text, in float32: their size is what bfloat16 has to cope with."""
    for name in SHAPES:
        ref = ModelRef(str(model_folder(context, name)))
        tokenizer, model = load_tokenizer(ref), load_model(ref, "float32", context.device)
        largest = _largest_logits(model, tokenizer)
        how = f"{vocabulary_size(tokenizer):,} tokens, {model.config.vocab_size:,} rows, {model.num_parameters():,} parameters"
        yield Check(f"{name}: largest logit of a position, smallest", largest.min().item(), at_least=30, how=how)
        yield Check(f"{name}: largest logit of a position, median", largest.median().item())
        yield Check(f"{name}: largest logit of a position, largest", largest.max().item(), at_most=100)


@torch.inference_mode()
def _largest_logits(model: Any, tokenizer: Any) -> Tensor:
    """Of each position of some text that is a token's, the absolute largest logit."""
    examples = datasets.load(path="builtin:sums", domain="sums", split="heldout", limit=8)
    texts = [encode(tokenizer, example.messages, example.response) for example in examples]
    inputs, _, _ = pad_texts(texts, model.device, tokenizer.pad_token_id)
    logits = model(**inputs).logits[..., : vocabulary_size(tokenizer)]
    return logits.float().abs().amax(-1)[inputs["attention_mask"].bool()]
