"""What texts begin with is read once: the same numbers and texts as when each is read whole."""

import pytest
import torch
from transformers import AutoModelForCausalLM as AutoModel
from transformers import (
    Gemma3TextConfig,
    GPT2Config,
    LlamaConfig,
    MambaConfig,
    Qwen3_5TextConfig,
    Qwen3Config,
)

from fusion.models import shared_prefix
from fusion.models.generate import GenerationSettings, generate
from fusion.models.shared_prefix import common_prefix, prefix_groups, read_shared_prefix

SMALL = {"vocab_size": 50, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "pad_token_id": 0}
GATED = SMALL | {"intermediate_size": 48, "num_key_value_heads": 1, "head_dim": 16}
CUT_AT_A_TOKEN = {
    "llama": LlamaConfig(**GATED),
    "qwen3": Qwen3Config(**GATED),
    "gpt2": GPT2Config(vocab_size=50, n_embd=32, n_layer=2, n_head=2, n_positions=128),
    "gemma3": Gemma3TextConfig(
        **GATED, sliding_window=48, layer_types=["sliding_attention", "full_attention"], query_pre_attn_scalar=16
    ),
}
NOT_TO_BE_CUT = {
    "mamba": MambaConfig(vocab_size=50, hidden_size=32, num_hidden_layers=2, state_size=4),
    "linear attention": Qwen3_5TextConfig(**GATED, layer_types=["linear_attention", "full_attention"]),
    "shorter window": Gemma3TextConfig(**GATED, sliding_window=16, layer_types=["sliding_attention", "full_attention"]),
}
WORDS = torch.arange(40).remainder(37).add(3).tolist()
PROMPTS = [WORDS + rest for rest in ([5, 7], [6], [9] * 30, [4, 4, 8, 20], [*range(3, 47), 3])]
"""All begin with 40 ids; the fourth is so long that the second, behind its padding, has no whole prefix in the cache."""


def model_of(config):
    torch.manual_seed(0)
    model = AutoModel.from_config(config).eval()
    for weight in model.parameters():  # else all texts are answered alike
        weight.data.mul_(3)
    return model


class Letters:
    """Stands for a tokenizer where ids are compared."""

    pad_token_id = 0

    def decode(self, ids, **_):
        return " ".join(map(str, ids))


def written(model, settings, monkeypatch, at_least):
    monkeypatch.setattr(shared_prefix, "MIN_PREFIX", at_least)
    monkeypatch.setattr("fusion.models.generate.decode_text", lambda _, ids: str(ids))
    asked = {"settings": settings, "eos_token_id": [], "batch_tokens": 400, "progress": lambda _: None}
    return generate(model, Letters(), PROMPTS, **asked)


@pytest.mark.parametrize("kind", CUT_AT_A_TOKEN)
@pytest.mark.parametrize(
    "settings", [GenerationSettings(8), GenerationSettings(8, temperature=1.0, num_return_sequences=3, seed=4)]
)
def test_answers_are_those_of_prompts_read_whole(kind, settings, monkeypatch):
    model = model_of(CUT_AT_A_TOKEN[kind])
    assert read_shared_prefix(model, PROMPTS, 40) is not None
    found = written(model, settings, monkeypatch, at_least=32)
    assert found == written(model, settings, monkeypatch, at_least=1000)
    assert len({one.ids for each in found for one in each}) > len(PROMPTS) / 2


@pytest.mark.parametrize("kind", NOT_TO_BE_CUT)
def test_a_memory_that_no_token_divides_is_not_shared(kind):
    assert read_shared_prefix(model_of(NOT_TO_BE_CUT[kind]), PROMPTS, 40) is None


@pytest.mark.parametrize("texts", [PROMPTS[:1], [[*WORDS[:20], 1], [*WORDS[:20], 2]], [[], []]])
def test_one_text_and_a_short_beginning_are_not_worth_it(texts):
    assert read_shared_prefix(model_of(CUT_AT_A_TOKEN["llama"]), texts, 40) is None


def test_texts_share_what_their_own_domain_begins_with():
    others = [[7, *prompt] for prompt in PROMPTS]
    texts = [*PROMPTS, *others, [8, *WORDS, 1], [9, 1]]
    found = list(prefix_groups(model_of(CUT_AT_A_TOKEN["llama"]), texts, [len(text) - 1 for text in texts]))
    assert [(numbers, shared and shared.length) for numbers, shared in found] == [
        ([0, 1, 2, 3, 4], 40),
        ([5, 6, 7, 8, 9], 41),
        ([10, 11], None),
    ]


def test_no_more_is_shared_than_was_allowed():
    assert read_shared_prefix(model_of(CUT_AT_A_TOKEN["llama"]), PROMPTS, 35).length == 35


@pytest.mark.parametrize(
    ("texts", "length"), [([], 0), ([[1, 2]], 2), ([[1, 2], [1, 2, 3]], 2), ([[2], [1]], 0), ([[1, 2], [1, 3], [1]], 1)]
)
def test_the_common_beginning_ends_where_two_texts_differ(texts, length):
    assert common_prefix(texts) == length
