"""How many layers a model has, by whatever its config.json calls them, or by the names of its tensors."""

import json

import pytest
import torch
from safetensors.torch import save_file
from transformers import Gemma3Config, GPT2Config, GPTNeoConfig, LlamaConfig

from fusion.merging.files.checkpoint import Checkpoint
from fusion.merging.layer_count import layer_count

CONFIGS = {
    "Llama": LlamaConfig(num_hidden_layers=3),
    "GPT-2": GPT2Config(n_layer=3),
    "GPT-Neo": GPTNeoConfig(num_layers=3, attention_types=[[["global"], 3]]),
    "Gemma 3, whose language model is a part": Gemma3Config(text_config={"num_hidden_layers": 3}),
}


@pytest.mark.parametrize("name", CONFIGS)
def test_it_is_found_in_the_configurations_that_transformers_writes(name):
    assert layer_count(CONFIGS[name].to_dict()) == 3


@pytest.mark.parametrize("config", [{}, {"text_config": None}, {"num_hidden_layers": None}, {"n_layer": True}])
def test_a_configuration_that_does_not_say_gives_none(config):
    assert layer_count(config) is None


def test_a_checkpoint_that_does_not_say_has_the_layers_of_its_tensors(tmp_path):
    names = ["model.layers.0.w", "model.layers.11.mlp.experts.30.w", "lm_head.weight"]
    save_file({name: torch.zeros(2) for name in names}, tmp_path / "model.safetensors", metadata={"format": "pt"})
    for config, layers in (({}, 12), ({"n_layer": 4}, 4), ({"text_config": None}, 12)):
        (tmp_path / "config.json").write_text(json.dumps(config))
        assert Checkpoint.open(tmp_path).num_layers == layers
