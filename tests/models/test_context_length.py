"""How many tokens a model reads, by the names and scalings that configurations of real families have."""

import pytest
from transformers import AutoConfig

from fusion.models.context_length import context_length
from fusion.models.loading import ModelRef
from fusion.models.stored_config import StoredConfig, read_config

LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "original_max_position_embeddings": 8192}
LLAMA3 |= {"low_freq_factor": 1.0, "high_freq_factor": 4.0}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768}
LONG = {"rope_type": "longrope", "factor": 32.0, "original_max_position_embeddings": 4096}
LONG |= {"short_factor": [1.0] * 48, "long_factor": [1.0] * 48}
KNOWN = [
    ("gpt2", {}, (1024, "n_positions")),
    ("opt", {"max_position_embeddings": 77}, (77, "max_position_embeddings")),
    ("dbrx", {}, (2048, "max_seq_len")),
    ("whisper", {}, (448, "max_target_positions")),
    ("llama", {"max_position_embeddings": 131072, "rope_scaling": LLAMA3}, (131072, "max_position_embeddings")),
    ("qwen2", {"max_position_embeddings": 32768, "rope_scaling": YARN}, (131072, "rope_scaling")),
    ("qwen2", {"max_position_embeddings": 131072, "rope_scaling": YARN}, (131072, "rope_scaling")),
    (
        "llama",
        {"max_position_embeddings": 4096, "rope_scaling": {"rope_type": "linear", "factor": 2.5}},
        (10240, "rope_scaling"),
    ),
    ("phi3", {"max_position_embeddings": 131072, "rope_scaling": LONG}, (131072, "max_position_embeddings")),
    ("mistral", {"max_position_embeddings": 32768, "sliding_window": 512}, (32768, "max_position_embeddings")),
    ("gemma3", {}, (131072, "max_position_embeddings")),  # inside its text_config
]
ENDLESS = [
    ("bloom", {}),
    ("falcon", {"alibi": True}),
    ("mamba", {}),
    ("mpt", {}),
    ("recurrent_gemma", {}),
    ("xlnet", {}),
]


@pytest.mark.parametrize(("kind", "given", "right"), KNOWN, ids=lambda each: each if isinstance(each, str) else "")
def test_a_configuration_says_how_many_tokens_its_model_reads(kind, given, right):
    found = context_length(AutoConfig.for_model(kind, **given))
    assert found is not None
    tokens, key = found
    assert (tokens, key) == right or (tokens == right[0] and key == "rope_scaling")


@pytest.mark.parametrize(("kind", "given", "right"), KNOWN, ids=lambda each: each if isinstance(each, str) else "")
def test_a_config_json_says_the_same_without_its_architecture(tmp_path, kind, given, right):
    config = AutoConfig.for_model(kind, **given)
    config.save_pretrained(tmp_path)
    assert context_length(read_config(ModelRef(str(tmp_path)))) == context_length(config)


def test_a_length_that_an_alibi_model_was_trained_on_is_no_limit(tmp_path):
    AutoConfig.for_model("bloom", seq_length=2048).save_pretrained(tmp_path)
    assert context_length(read_config(ModelRef(str(tmp_path)))) is None


@pytest.mark.parametrize(("kind", "given"), ENDLESS)
def test_models_that_no_length_ends_have_no_limit(kind, given):
    assert context_length(AutoConfig.for_model(kind, **given)) is None


def test_an_ordinary_config_json_is_read_without_its_architecture(tmp_path):
    AutoConfig.for_model("gpt2", n_positions=77).save_pretrained(tmp_path)
    config = read_config(ModelRef(str(tmp_path)))
    assert isinstance(config, StoredConfig)
    assert context_length(config) == (77, "n_positions")
