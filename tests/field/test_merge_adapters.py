"""Adapters as peft trains and saves them: folded in, they are what peft's own `merge_and_unload` makes."""

import json
import re
from pathlib import Path

import pytest
import torch
from peft import PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModelForCausalLM,
)

from fusion.merging.files.stream import merge
from fusion.merging.methods.registry import Linear
from tests.helpers.families import load_tensors, no_output_in
from tests.helpers.trained_adapters import ADAPTER, assert_equal_to, load_base, logits, lora, save_base, train

PAGE = (Path(__file__).parents[2] / "docs/merging.md").read_text()


@pytest.mark.parametrize(
    ("family", "settings"),
    [
        pytest.param("llama", {"target_modules": "all-linear"}, id="plain"),
        pytest.param("llama", {"target_modules": "all-linear", "use_rslora": True}, id="rank-stabilised"),
        pytest.param(
            "llama",
            {
                "target_modules": "all-linear",
                "rank_pattern": {"q_proj": 5, r".*\.1\.mlp\..*": 2},
                "alpha_pattern": {"layers.0.mlp.up_proj": 20, "q_proj": 1},
            },
            id="ranks and alphas by module",
        ),
        pytest.param(
            "llama", {"target_modules": "all-linear", "exclude_modules": ["down_proj"]}, id="modules left out"
        ),
        pytest.param(
            "llama",
            {"target_modules": ["q_proj"], "layers_to_transform": [1], "layers_pattern": "layers"},
            id="one layer",
        ),
        pytest.param("llama", {"target_modules": "all-linear", "use_dora": True}, id="DoRA"),
        pytest.param(
            "llama", {"target_modules": ["embed_tokens", "up_proj"], "use_dora": True}, id="DoRA of an embedding"
        ),
        pytest.param("llama", {"target_modules": ["embed_tokens", "lm_head", "q_proj"]}, id="embedding and head"),
        pytest.param(
            "llama", {"target_modules": ["q_proj"], "modules_to_save": ["embed_tokens", "lm_head"]}, id="saved whole"
        ),
        pytest.param("llama", {"target_modules": ["q_proj"], "modules_to_save": ["norm"]}, id="norms saved whole"),
        pytest.param("llama", {"target_modules": ["q_proj"], "trainable_token_indices": [1, 36]}, id="rows of tokens"),
        pytest.param(
            "llama",
            {"target_modules": ["q_proj"], "trainable_token_indices": {"embed_tokens": [9, 5], "lm_head": [2]}},
            id="rows of tokens by module",
        ),
        pytest.param(
            "qwen2", {"target_modules": ["q_proj"], "trainable_token_indices": [1, 5]}, id="rows of tied tokens"
        ),
        pytest.param(
            "qwen2",
            {"target_modules": ["q_proj"], "modules_to_save": ["embed_tokens"], "ensure_weight_tying": True},
            id="tied, saved whole",
        ),
        pytest.param("qwen2", {"target_modules": ["q_proj", "o_proj"], "bias": "all"}, id="all biases"),
        pytest.param(
            "qwen2", {"target_modules": ["q_proj", "o_proj"], "bias": "lora_only"}, id="biases of its modules"
        ),
        pytest.param("qwen2", {"target_modules": ["q_proj", "v_proj"], "lora_bias": True}, id="bias of B"),
        pytest.param("gpt2", {"target_modules": ["c_attn", "c_proj", "c_fc"]}, id="Conv1D"),
        pytest.param("gpt2", {"target_modules": ["c_attn", "c_proj"], "use_dora": True}, id="DoRA of Conv1D"),
        pytest.param(
            "gpt2", {"target_modules": ["c_attn"], "bias": "all", "lora_bias": True}, id="all biases of Conv1D"
        ),
        pytest.param(
            "gpt2", {"target_modules": ["c_proj"], "trainable_token_indices": {"wte": [1, 2]}}, id="rows of wte"
        ),
    ],
)
def test_an_adapter_is_what_peft_merges(tmp_path, family, settings):
    save_base(tmp_path / "base", family)
    model = train(load_base(tmp_path / "base"), lora(**settings))
    model.save_pretrained(tmp_path / "a")
    merge(tmp_path / "base", [tmp_path / "a"], Linear(), tmp_path / "out")
    expected = model.merge_and_unload().state_dict()
    assert_equal_to(load_tensors(tmp_path / "out"), expected, names=load_tensors(tmp_path / "base"))


def test_how_a_square_matrix_is_stored_is_known_by_the_architecture(tmp_path):
    """`fan_in_fan_out` is that of the last module peft has seen, a head for example."""
    save_base(tmp_path / "base", "gpt2")
    model = train(load_base(tmp_path / "base"), lora(target_modules=["attn.c_proj"]))
    model.peft_config["default"].fan_in_fan_out = False
    model.save_pretrained(tmp_path / "a")
    merge(tmp_path / "base", [tmp_path / "a"], Linear(), tmp_path / "out")
    assert_equal_to(
        load_tensors(tmp_path / "out"), model.merge_and_unload().state_dict(), names=load_tensors(tmp_path / "base")
    )


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_an_adapter_of_a_base_of_16_bits_is_added_exactly(tmp_path, dtype):
    save_base(tmp_path / "base", dtype=dtype)
    train(load_base(tmp_path / "base"), lora(target_modules="all-linear")).save_pretrained(tmp_path / "a")
    merge(tmp_path / "base", [tmp_path / "a"], Linear(), tmp_path / "out", dtype="float32")
    wide = AutoModelForCausalLM.from_pretrained(tmp_path / "base", dtype=torch.float64)
    peft_model = PeftModel.from_pretrained(wide, str(tmp_path / "a"), autocast_adapter_dtype=False).double()
    expected = {name: tensor.float() for name, tensor in peft_model.merge_and_unload().state_dict().items()}
    assert_equal_to(load_tensors(tmp_path / "out"), expected, names=expected, tolerance=1e-6)


@pytest.mark.parametrize("ids", ["both", "embedding alone"])
def test_a_tied_embedding_with_low_rank_factors_is_changed_once(tmp_path, ids):
    """peft's `merge_and_unload` adds them twice to the one tensor; what the adapter computes is right."""
    save_base(tmp_path / "base", "qwen2")
    targets = ["embed_tokens", "lm_head", "q_proj"] if ids == "both" else ["embed_tokens"]
    model = train(load_base(tmp_path / "base"), lora(target_modules=targets, ensure_weight_tying=True))
    model.save_pretrained(tmp_path / "a")
    merge(tmp_path / "base", [tmp_path / "a"], Linear(), tmp_path / "out")
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype="auto")
    torch.testing.assert_close(logits(merged), logits(model), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    ("family", "settings"),
    [
        pytest.param("llama", {"target_modules": ["q_proj"]}, id="resized alone"),
        pytest.param("qwen2", {"target_modules": ["q_proj"]}, id="resized and tied"),
        pytest.param(
            "llama", {"target_modules": ["q_proj"], "modules_to_save": ["embed_tokens", "lm_head"]}, id="trained whole"
        ),
        pytest.param("llama", {"target_modules": ["q_proj", "embed_tokens", "lm_head"]}, id="low rank"),
        pytest.param("llama", {"target_modules": ["q_proj"], "trainable_token_indices": [37, 38]}, id="new rows alone"),
    ],
)
def test_tokens_that_were_added_in_training_are_left_out_when_padding_and_refused_else(tmp_path, family, settings):
    save_base(tmp_path / "base", family)
    model = train(load_base(tmp_path / "base", 40), lora(**settings))
    model.save_pretrained(tmp_path / "a", save_embedding_layers=True)
    with pytest.raises(ValueError, match="--vocabulary pad lets rows of tokens differ"):
        merge(tmp_path / "base", [tmp_path / "a"], Linear(), tmp_path / "out")
    merge(tmp_path / "base", [tmp_path / "a"], Linear(), tmp_path / "out", vocabulary="pad")
    expected = model.merge_and_unload().state_dict()
    for name, tensor in load_tensors(tmp_path / "out").items():
        torch.testing.assert_close(tensor, expected[name][: len(tensor)], rtol=1e-12, atol=1e-12)


def test_an_adapter_finds_its_tensors_in_a_base_that_was_saved_without_a_head(tmp_path):
    save_base(tmp_path / "whole", "gpt2")
    model = train(load_base(tmp_path / "whole"), lora(target_modules=["c_attn"]))
    model.save_pretrained(tmp_path / "a")
    load_base(tmp_path / "whole").transformer.save_pretrained(tmp_path / "base")
    merge(tmp_path / "base", [tmp_path / "a"], Linear(), tmp_path / "out")
    expected = {n.removeprefix("transformer."): t for n, t in model.merge_and_unload().state_dict().items()}
    assert_equal_to(load_tensors(tmp_path / "out"), expected, names=load_tensors(tmp_path / "base"))


UNTIE = (
    r"which are one tensor in the base \S+ \(tie_word_embeddings\). Train it with ensure_weight_tying=True, or untie"
)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"target_modules": ["embed_tokens"]}, f"changes model.embed_tokens.weight and not lm_head.weight, {UNTIE}"),
        ({"target_modules": ["lm_head"]}, f"changes lm_head.weight and not model.embed_tokens.weight, {UNTIE}"),
        ({"target_modules": ["lm_head", "embed_tokens"]}, f"lm_head.weight .*differently, {UNTIE}"),
        ({"modules_to_save": ["lm_head"]}, f"changes lm_head.weight and not model.embed_tokens.weight, {UNTIE}"),
        ({"modules_to_save": ["embed_tokens"]}, f"changes model.embed_tokens.weight and not lm_head.weight, {UNTIE}"),
        ({"modules_to_save": ["embed_tokens", "lm_head"]}, f"lm_head.weight .*differently, {UNTIE}"),
        ({"trainable_token_indices": {"embed_tokens": [1], "lm_head": [2]}}, f"lm_head.weight .*differently, {UNTIE}"),
    ],
    ids=["embedding", "head", "both", "head whole", "embedding whole", "both whole", "rows"],
)
def test_what_unties_a_tied_model_is_refused(tmp_path, settings, message):
    save_base(tmp_path / "base", "qwen2")
    train(load_base(tmp_path / "base"), lora(**({"target_modules": ["q_proj"]} | settings))).save_pretrained(
        tmp_path / "a"
    )
    with pytest.raises(ValueError, match=message):
        merge(tmp_path / "base", [tmp_path / "a"], Linear(), tmp_path / "out")
    assert no_output_in(tmp_path)


@pytest.mark.parametrize("head", ["embed_out.weight", "model.lm_head.weight"])
def test_a_base_with_a_head_of_another_name_is_not_tied(tmp_path, head):
    save_base(tmp_path / "base")
    model = train(load_base(tmp_path / "base"), lora(target_modules=["embed_tokens"]))
    model.save_pretrained(tmp_path / "a")
    file = tmp_path / "base" / "model.safetensors"
    save_file({head if name == "lm_head.weight" else name: t for name, t in load_file(file).items()}, file)
    config = json.loads((tmp_path / "base" / "config.json").read_text())
    del config["tie_word_embeddings"]
    (tmp_path / "base" / "config.json").write_text(json.dumps(config))
    merge(tmp_path / "base", [tmp_path / "a"], Linear(), tmp_path / "out")
    name = "model.embed_tokens.weight"
    torch.testing.assert_close(load_tensors(tmp_path / "out")[name], model.merge_and_unload().state_dict()[name])


def test_a_base_that_was_untied_as_the_page_says_takes_what_a_tied_one_cannot(tmp_path):
    save_base(tmp_path / "tied", "qwen2")
    settings = {"target_modules": ["q_proj"], "modules_to_save": ["embed_tokens", "lm_head"]}
    model = train(load_base(tmp_path / "tied"), lora(**settings))
    model.save_pretrained(tmp_path / "a")
    (code,) = re.findall(r"```python\n(model = .*?)```", PAGE, re.DOTALL)
    names = {"AutoModelForCausalLM": AutoModelForCausalLM, "torch": torch}
    exec(code, names | {"BASE": tmp_path / "tied", "UNTIED": tmp_path / "base"})  # as the page says
    merge(tmp_path / "base", [tmp_path / "a"], Linear(), tmp_path / "out")
    expected = model.merge_and_unload().state_dict()
    assert_equal_to(load_tensors(tmp_path / "out"), expected, names=expected)


@pytest.mark.parametrize("init", [True, False, "gaussian", "eva", "orthogonal", "mica"])
def test_initialisations_that_leave_the_base_as_it_is_are_folded_in(tmp_path, init):
    save_base(tmp_path / "base", dtype=torch.float32)
    model = train(load_base(tmp_path / "base"), lora(target_modules="all-linear", r=4, init_lora_weights=init))
    model.save_pretrained(tmp_path / "a")
    merge(tmp_path / "base", [tmp_path / "a"], Linear(), tmp_path / "out")
    expected = model.merge_and_unload().state_dict()
    assert_equal_to(load_tensors(tmp_path / "out"), expected, names=expected, tolerance=1e-6)


@pytest.mark.parametrize("init", ["pissa", "pissa_niter_4", "olora"])
class TestInitialisationsThatChangeTheBase:
    def trained(self, folder, init):
        """A peft model whose base is not that of `folder` any more, with the adapter it began with saved beside."""
        save_base(folder / "base", dtype=torch.float32)
        model = get_peft_model(load_base(folder / "base"), lora(target_modules="all-linear", init_lora_weights=init))
        model.peft_config["default"].init_lora_weights = True
        model.save_pretrained(folder / "initial")
        model.peft_config["default"].init_lora_weights = init
        torch.manual_seed(1)
        with torch.no_grad():
            for parameter in (p for p in model.parameters() if p.requires_grad):
                parameter.add_(0.05 * torch.randn(parameter.shape))
        return model

    def test_they_are_refused(self, tmp_path, init):
        self.trained(tmp_path, init).save_pretrained(tmp_path / "a")
        ways = r"path_initial_model_for_weight_conversion=INITIAL\).*\(merge_and_unload\).*init_lora_weights: true"
        with pytest.raises(ValueError, match=f"init_lora_weights is '{init}', which changes the base .*{ways}"):
            merge(tmp_path / "base", [tmp_path / "a"], Linear(), tmp_path / "out")
        assert no_output_in(tmp_path)

    def test_converted_by_peft_they_are_folded_in(self, tmp_path, init):
        model = self.trained(tmp_path, init)
        initial = str(tmp_path / "initial")
        model.save_pretrained(tmp_path / "a", path_initial_model_for_weight_conversion=initial)
        merge(tmp_path / "base", [tmp_path / "a"], Linear(), tmp_path / "out")
        expected = model.merge_and_unload().state_dict()
        assert_equal_to(load_tensors(tmp_path / "out"), expected, names=expected, tolerance=1e-5)

    def test_folded_into_the_changed_base_they_are_right_once_the_setting_is_gone(self, tmp_path, init):
        model = self.trained(tmp_path, init)
        model.peft_config["default"].init_lora_weights = True
        model.save_pretrained(tmp_path / "a")
        model.unload().save_pretrained(tmp_path / "changed")
        merge(tmp_path / "changed", [tmp_path / "a"], Linear(), tmp_path / "out")
        expected = PeftModel.from_pretrained(load_base(tmp_path / "changed"), str(tmp_path / "a")).merge_and_unload()
        assert_equal_to(
            load_tensors(tmp_path / "out"), expected.state_dict(), names=expected.state_dict(), tolerance=1e-6
        )


def test_a_projection_that_only_training_needs_is_left_out(tmp_path):
    save_base(tmp_path / "base")
    model = train(load_base(tmp_path / "base"), lora(target_modules=["q_proj"], velora_config={"num_groups": 4}))
    model.save_pretrained(tmp_path / "a")
    assert any("velora" in name for name in load_file(tmp_path / "a" / ADAPTER))
    merge(tmp_path / "base", [tmp_path / "a"], Linear(), tmp_path / "out")
    expected = model.merge_and_unload().state_dict()
    assert_equal_to(load_tensors(tmp_path / "out"), expected, names=expected)
