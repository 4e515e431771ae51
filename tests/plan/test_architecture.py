"""Sizes of architectures against published counts of parameters and against the modules themselves."""

import json

import pytest
import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM

from fusion.models.loading import ModelRef
from fusion.plan import architecture
from tests.helpers import tiny

PUBLISHED = {
    "microsoft/phi-4": 14_659_507_200,
    "Qwen/Qwen2.5-14B-Instruct": 14_770_033_664,
    "Qwen/Qwen2.5-Coder-14B-Instruct": 14_770_033_664,
    "mistralai/Mistral-Small-24B-Instruct-2501": 23_572_403_200,
    "Qwen/Qwen2.5-7B-Instruct": 7_615_616_512,
    "Qwen/Qwen2.5-Coder-7B-Instruct": 7_615_616_512,
    "Qwen/Qwen2.5-0.5B-Instruct": 494_032_768,
    "Qwen/Qwen2.5-Coder-0.5B-Instruct": 494_032_768,
    "mistralai/Mistral-7B-Instruct-v0.3": 7_248_023_552,
    "meta-llama/Llama-3.1-8B-Instruct": 8_030_261_248,
    "HuggingFaceTB/SmolLM2-135M-Instruct": 134_515_008,
    "google/gemma-3-270m": 268_098_176,
}


@pytest.fixture(autouse=True)
def _no_hub(monkeypatch):
    monkeypatch.setattr(architecture, "_reachable", lambda ref: False)


def test_every_shipped_model_has_its_published_number_of_parameters():
    assert architecture._bundled().keys() == PUBLISHED.keys()
    found = {name: architecture.load_architecture(ModelRef(name)) for name in PUBLISHED}
    assert {name: sizes.parameters for name, sizes in found.items()} == PUBLISHED
    assert all(sizes.bundled for sizes in found.values())


@pytest.mark.parametrize("kind", tiny.SHAPES)
def test_what_multiplies_a_token_is_the_matrices_of_the_layers(kind):
    model = tiny.model(kind)
    linear = [m.weight.numel() for name, m in model.named_modules() if isinstance(m, nn.Linear) and "layers." in name]
    sizes = architecture.describe(model.config)
    assert sizes.active_parameters == sum(linear)
    assert sizes.parameters == sum(p.numel() for p in model.parameters())
    assert sizes.largest_tensor == 300 * 32


@pytest.mark.parametrize(
    ("kind", "fields", "intermediate"),
    [
        ("gpt2", {"n_embd": 32, "n_layer": 2, "n_head": 2}, 128),
        ("gpt2", {"n_embd": 32, "n_layer": 2, "n_head": 2, "n_inner": 48}, 48),
        ("opt", {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "ffn_dim": 64}, 64),
        ("bloom", {"hidden_size": 32, "n_layer": 2, "n_head": 2}, 128),
    ],
)  # fmt: skip
def test_older_families_name_their_sizes_otherwise(kind, fields, intermediate):
    sizes = architecture.describe(AutoConfig.for_model(kind, vocab_size=300, **fields))
    assert (sizes.layers, sizes.hidden_size, sizes.intermediate_size, sizes.query_size, sizes.gated) == (
        2,
        32,
        intermediate,
        32,
        False,
    )
    assert sizes.active_parameters == 2 * (4 * 32 * 32 + 2 * 32 * intermediate)


def test_a_model_without_attention_has_sizes_too():
    sizes = architecture.describe(AutoConfig.for_model("mamba", vocab_size=300, hidden_size=32, num_hidden_layers=2))
    assert (sizes.layers, sizes.heads, sizes.query_size) == (2, 0, 0)


def test_a_model_without_layers_is_named():
    with pytest.raises(ValueError, match="Linear has no list of 2 layers"):
        architecture._layers(nn.Linear(1, 1), 2)


def test_a_token_visits_its_share_of_the_experts():
    shape = tiny.SMALL | {"num_key_value_heads": 1, "num_local_experts": 4, "vocab_size": 300}
    one, two, four = (
        architecture.describe(AutoConfig.for_model("mixtral", num_experts_per_tok=n, **shape)).active_parameters
        for n in (1, 2, 4)
    )
    experts = 2 * 4 * 3 * 32 * 48  # layers, experts, matrices of each
    assert four - two == experts / 2
    assert two - one == experts / 4


def test_a_folder_with_its_configuration_alone_is_enough(tmp_path):
    AutoConfig.for_model("llama", vocab_size=300, **tiny.SHAPES["llama"]).save_pretrained(tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["config.json"]
    sizes = architecture.load_architecture(ModelRef(str(tmp_path)))
    assert (sizes.hidden_size, sizes.layers, sizes.query_size, sizes.key_size, sizes.bundled) == (32, 2, 32, 16, False)


def test_shipped_sizes_are_used_only_where_the_hub_gives_none(tmp_path, monkeypatch):
    config = AutoConfig.for_model("llama", vocab_size=300, **tiny.SHAPES["llama"])
    monkeypatch.setattr(architecture, "_reachable", lambda ref: True)
    monkeypatch.setattr(architecture, "load_config", lambda ref: config)
    assert architecture.load_architecture(ModelRef("microsoft/phi-4")).hidden_size == 32

    def gated(ref):
        raise ValueError("you need to log in")

    monkeypatch.setattr(architecture, "load_config", gated)
    assert architecture.load_architecture(ModelRef("microsoft/phi-4")).hidden_size == 5120


def test_an_unknown_model_that_cannot_be_reached_says_what_is_enough():
    with pytest.raises(ValueError, match=r"no/such-model .* a folder with its config.json is enough.*microsoft/phi-4"):
        architecture.load_architecture(ModelRef("no/such-model"))


def test_a_hub_that_is_not_there_is_asked_once(monkeypatch):
    asked = []

    def refuse(request, timeout):
        asked.append(request.full_url)
        raise OSError("no route")

    monkeypatch.setattr(architecture.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(architecture, "urlopen", refuse)
    architecture._hub_answers.cache_clear()
    assert [architecture._hub_answers(), architecture._hub_answers()] == [False, False]
    assert len(asked) == 1
    architecture._hub_answers.cache_clear()


def test_the_shipped_fields_are_json_that_a_person_can_check():
    for fields in json.loads(
        (architecture.Path(architecture.__file__).parent / "architectures.json").read_text()
    ).values():
        assert {"model_type", "hidden_size", "num_hidden_layers", "vocab_size", "tie_word_embeddings"} <= fields.keys()


def test_no_memory_is_taken_for_weights():
    before = torch.get_default_device()
    sizes = architecture.load_architecture(ModelRef("mistralai/Mistral-Small-24B-Instruct-2501"))
    assert sizes.parameters > 2e10  # 94 GB in float32: more than this process could have taken
    assert torch.get_default_device() == before
    assert AutoModelForCausalLM.from_config(AutoConfig.for_model("gpt2", n_layer=1)).device.type == "cpu"
