"""Adapters as peft trains and saves them: folded in, they are what peft's own `merge_and_unload` makes, or they are refused."""

import json
import re
from dataclasses import fields
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from peft.utils.peft_types import PeftType
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModelForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from fusion.merging.adapters.adapter_settings import (
    BY_TOKEN,
    CHANGES_BASE,
    CONVERTIBLE_INITS,
    PLAIN_INITS,
    UNDERSTOOD,
)
from fusion.merging.files.stream import merge
from fusion.merging.methods.registry import Linear
from tests.helpers.families import load_tensors, no_output_in

SIZES = {"vocab_size": 37, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2}
HEADS = {"num_attention_heads": 2, "num_key_value_heads": 1}
ADAPTER = "adapter_model.safetensors"
PAGE = (Path(__file__).parents[2] / "docs/merging.md").read_text()


def save_base(folder, family="llama", dtype=torch.float64):
    torch.manual_seed(0)
    if family == "gpt2":
        ids = {"bos_token_id": 0, "eos_token_id": 1}
        model = GPT2LMHeadModel(GPT2Config(vocab_size=37, n_positions=16, n_embd=16, n_layer=2, n_head=2, **ids))
    elif family == "qwen2":  # ties its head, and has biases
        model = Qwen2ForCausalLM(Qwen2Config(**SIZES, **HEADS, tie_word_embeddings=True))
    else:
        model = LlamaForCausalLM(LlamaConfig(**SIZES, **HEADS, tie_word_embeddings=False))
    torch.manual_seed(3)
    for parameter in model.parameters():  # biases begin as zeros
        parameter.data.add_(0.02 * torch.randn(parameter.shape))
    model.to(dtype).save_pretrained(folder)


def load_base(folder, new_vocabulary=None):
    model = AutoModelForCausalLM.from_pretrained(folder, dtype="auto")
    if new_vocabulary:
        model.resize_token_embeddings(new_vocabulary, mean_resizing=False)
    return model


def lora(**settings):
    return LoraConfig(**({"task_type": "CAUSAL_LM", "r": 3, "lora_alpha": 7} | settings))


def train(model, config):
    """A peft model after something like a training: all that is trained has changed, in place as optimizers do."""
    model = get_peft_model(model, config)
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.2 * torch.randn(parameter.shape).to(parameter.dtype))
    return model.eval()


def logits(model):
    return model(torch.arange(10)[None]).logits


def assert_equal_to(merged, expected, *, names, rows=None, tolerance=1e-12):
    assert set(merged) == set(names)
    for name in merged:
        torch.testing.assert_close(merged[name], expected[name][:rows], rtol=tolerance, atol=tolerance, msg=name)


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


def save_plain(folder, **changes):
    """A base and a plain adapter with another adapter_config.json."""
    save_base(folder / "base")
    train(load_base(folder / "base"), lora(target_modules=["q_proj"])).save_pretrained(folder / "a")
    file = folder / "a" / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


@pytest.mark.parametrize("kind", sorted(kind.value for kind in PeftType if kind != PeftType.LORA))
def test_every_other_kind_is_refused_by_name(tmp_path, kind):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "adapter_config.json").write_text(json.dumps({"peft_type": kind}))
    save_base(tmp_path / "base")
    with pytest.raises(ValueError, match=f"peft_type is '{kind}'; only LORA .*(merge_and_unload|nothing to merge)"):
        merge(tmp_path / "base", [tmp_path / "a"], Linear(), tmp_path / "out")


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("init_lora_weights", "loftq", r"is 'loftq', which changes the base .*\(merge_and_unload\)"),
        ("init_lora_weights", "corda", "is 'corda', which changes the base"),
        ("init_lora_weights", "lora_ga", "is 'lora_ga', which changes the base"),
        ("init_lora_weights", "new", r"is 'new', and what that does to the base is not known here. Fold"),
        ("layer_replication", [[0, 2], [1, 2]], r"is \[\[0, 2\], \[1, 2\]\], which makes a deeper .*merge_and_unload"),
        ("alora_invocation_tokens", [1, 2], r"is \[1, 2\], which acts behind these tokens only.*leave it out"),
        ("arrow_config", {"top_k": 3}, "is .*, which chooses among adapters for each token.*leave it out"),
        ("use_qalora", True, "is True, which averages groups of inputs.*merge_and_unload"),
        ("use_bdlora", {"nblocks": 2}, "is .*, which stores blocks.*merge_and_unload"),
        ("kasa_config", {"beta": 1e-4}, "is .*, which cuts the smallest singular values.*merge_and_unload"),
        ("monteclora_config", {"num_samples": 8}, "is .*, which draws its weights at random.*merge_and_unload"),
        ("megatron_config", {"a": 1}, "is .*, whose matrices are split over devices.*merge_and_unload"),
        ("target_parameters", ["experts.gate_up_proj"], "is .*, which changes parameters .*merge_and_unload"),
        ("use_newest", 0.5, "is 0.5, a setting that is not known here.*merge_and_unload.*take it out"),
        ("use_dora", True, "has no magnitude, and use_dora is True"),
        ("r", 4, r"lora_B.weight has shape \(16, 3\), and \(any, 4\) would fit adapter_config.json"),
        ("r", None, "adapter_config.json: r: Input should be a valid integer, got None. Copy the file"),
        ("r", 0, "adapter_config.json: r: Input should be greater than 0, got 0. Copy the file"),
        ("lora_alpha", "7", "lora_alpha: Input should be a valid number, got '7'. Copy"),
        ("rank_pattern", [3], r"rank_pattern: Input should be a valid dictionary, got \[3\]. Copy"),
        ("rank_pattern", {"q_proj": 3.5}, "rank_pattern.q_proj: Input should be a valid integer, got 3.5. Copy"),
        ("alpha_pattern", {"q_proj": None}, "alpha_pattern.q_proj: Input should be a valid number, got None. Copy"),
        ("trainable_token_indices", "all", "trainable_token_indices.* got 'all'. Copy"),
        ("use_rslora", "yes", "use_rslora: Input should be a valid boolean, got 'yes'. Copy"),
        ("alpha_pattern", {"(": 4}, r"alpha_pattern has '\(', which is no regular expression"),
    ],
)
def test_settings_that_mean_more_than_factors_are_refused_with_their_value(tmp_path, name, value, message):
    save_plain(tmp_path, **{name: value})
    with pytest.raises(ValueError, match=message) as refused:
        merge(tmp_path / "base", [tmp_path / "a"], Linear(), tmp_path / "out")
    assert str(tmp_path / "a") in str(refused.value)
    assert no_output_in(tmp_path)


def test_a_setting_of_a_newer_peft_that_is_off_is_no_reason_to_refuse(tmp_path):
    save_plain(tmp_path, use_newest=False, newest_config=None, newest_pattern={})
    assert merge(tmp_path / "base", [tmp_path / "a"], Linear(), tmp_path / "out").created


def test_every_setting_of_the_installed_peft_is_known():
    assert {field.name for field in fields(LoraConfig)} <= UNDERSTOOD | CHANGES_BASE.keys() | BY_TOKEN.keys()


def test_the_page_names_every_setting_that_is_refused_and_every_initialisation():
    section = PAGE.split("## Adapters\n")[1].split("\n## ")[0]
    inits = [init for init in (*PLAIN_INITS, *CONVERTIBLE_INITS) if isinstance(init, str)]
    assert [name for name in (*CHANGES_BASE, *BY_TOKEN, *inits) if f"`{name}`" not in section] == []


def test_a_projection_that_only_training_needs_is_left_out(tmp_path):
    save_base(tmp_path / "base")
    model = train(load_base(tmp_path / "base"), lora(target_modules=["q_proj"], velora_config={"num_groups": 4}))
    model.save_pretrained(tmp_path / "a")
    assert any("velora" in name for name in load_file(tmp_path / "a" / ADAPTER))
    merge(tmp_path / "base", [tmp_path / "a"], Linear(), tmp_path / "out")
    expected = model.merge_and_unload().state_dict()
    assert_equal_to(load_tensors(tmp_path / "out"), expected, names=expected)


def edit_adapter(folder, edit):
    tensors = load_file(folder / ADAPTER)
    edit(tensors)
    save_file(tensors, folder / ADAPTER)


FIRST = "base_model.model.model.layers.0.self_attn.q_proj"


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (
            lambda t: t[f"{FIRST}.lora_A.weight"].fill_(torch.nan),
            r"q_proj.lora_A.weight has values that are NaN or infinite",
        ),
        (lambda t: t.update({f"{FIRST}.lora_A.weight": torch.zeros(0)}), r"has shape \(0,\), .*ZeRO-3 or FSDP"),
        (
            lambda t: t.update({f"{FIRST}.lora_A.weight": torch.zeros(3, 16).int()}),
            "is I32; save the adapter in float32",
        ),
        (lambda t: t.pop(f"{FIRST}.lora_A.weight"), "q_proj.weight has a factor B and no A; save or copy"),
        (lambda t: t.pop(f"{FIRST}.lora_B.weight"), "q_proj.weight has a factor A and no B; save or copy"),
        (lambda t: t.update({f"{FIRST}.lora_C.weight": torch.zeros(3)}), "lora_C.weight is neither part of an update"),
        (
            lambda t: t.update({f"{FIRST}.lora_B.bias": torch.zeros(16)}),
            "no .*q_proj.bias, .*lora_bias cannot be folded",
        ),
        (
            lambda t: t.update({f"{FIRST}.lora_magnitude_vector": torch.ones(16)}),
            "has a magnitude, and use_dora is False",
        ),
        (
            lambda t: t.update({f"{FIRST}.lora_A.weight": torch.zeros(3, 9)}),
            r"has shape \(16, 9\), the base \S+ has \(16, 16",
        ),
        (lambda t: t.update({"base_model.model.score.weight": torch.zeros(2, 16)}), "score.weight is neither part"),
        (
            lambda t: t.update({f"{FIRST}.token_adapter.trainable_tokens_delta": torch.zeros(1, 16)}),
            "q_proj.weight has both low-rank factors and rows of tokens",
        ),
    ],
    ids=[
        "NaN",
        "empty",
        "integers",
        "no A",
        "no B",
        "unknown",
        "bias",
        "magnitude",
        "width",
        "another head",
        "rows too",
    ],
)
def test_an_adapter_file_that_is_not_whole_is_refused_by_the_tensors_name(tmp_path, edit, message):
    save_plain(tmp_path)
    edit_adapter(tmp_path / "a", edit)
    with pytest.raises(ValueError, match=message):
        merge(tmp_path / "base", [tmp_path / "a"], Linear(), tmp_path / "out")
    assert no_output_in(tmp_path)


@pytest.mark.parametrize(
    ("indices", "message"),
    [
        ([1, 37], r"has rows of the tokens \[37\], the base has 37 tokens; give its own base"),
        ([1, -2], r"has rows of the tokens \[-2\]"),
        ([1], r"trainable_tokens_delta has shape \(2, 16\), and \(1, any\) would fit"),
        ({"wte": [1, 2]}, r"trainable_tokens_delta has shape \(2, 16\), and \(0, any\) would fit"),
    ],
    ids=["beyond", "negative", "fewer", "another module"],
)
def test_rows_of_tokens_that_the_base_does_not_have_are_refused(tmp_path, indices, message):
    save_base(tmp_path / "base")
    model = train(load_base(tmp_path / "base"), lora(target_modules=["q_proj"], trainable_token_indices=[1, 2]))
    model.save_pretrained(tmp_path / "a")
    file = tmp_path / "a" / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"trainable_token_indices": indices}))
    with pytest.raises(ValueError, match=message):
        merge(tmp_path / "base", [tmp_path / "a"], Linear(), tmp_path / "out")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (lambda b: b[:-9], "is damaged or no safetensors file"),
        (lambda b: b"version https://git-lfs.github.com", "git lfs pull"),
    ],
    ids=["cut off", "pointer"],
)
def test_a_file_that_is_not_the_weights_is_refused(tmp_path, content, message):
    save_plain(tmp_path)
    file = tmp_path / "a" / ADAPTER
    file.write_bytes(content(file.read_bytes()))
    with pytest.raises(ValueError, match=message):
        merge(tmp_path / "base", [tmp_path / "a"], Linear(), tmp_path / "out")
    assert no_output_in(tmp_path)
