"""Adapters that are more than low-rank matrices, of another base, or damaged: refused by name, with the way out."""

import json
from dataclasses import fields
from pathlib import Path

import pytest
import torch
from peft import LoraConfig
from peft.utils.peft_types import PeftType
from safetensors.torch import load_file, save_file

from fusion.merging.adapters.adapter_settings import (
    BY_TOKEN,
    CHANGES_BASE,
    CONVERTIBLE_INITS,
    PLAIN_INITS,
    UNDERSTOOD,
)
from fusion.merging.files.stream import merge
from fusion.merging.methods.registry import Linear
from tests.helpers.families import no_output_in
from tests.helpers.trained_adapters import ADAPTER, load_base, lora, save_base, train

PAGE = (Path(__file__).parents[2] / "docs/merging.md").read_text()


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
