"""Which models stand beside a merged one: their names, and those that are merged for the evaluation alone."""

import json

import pytest
import torch
from safetensors.torch import save_file

from fusion.merging.evaluation.evaluated_models import equally_weighted, evaluated_models, short_names
from fusion.merging.recipes.merge_recipe import parse_recipe
from fusion.models.loading import load_model
from tests.helpers.families import edit_weights, load_tensors

UP = "model.layers.1.mlp.up_proj"


def adapter(folder):
    """An adapter of one projection, as peft saves it, and its factors."""
    draw, prefix = torch.Generator().manual_seed(0), f"base_model.model.{UP}"
    factors = torch.randn(24, 3, generator=draw), torch.randn(3, 16, generator=draw)
    folder.mkdir()
    names = [f"{prefix}.lora_B.weight", f"{prefix}.lora_A.weight"]
    save_file(dict(zip(names, factors, strict=True)), folder / "adapter_model.safetensors")
    settings = {"peft_type": "LORA", "lora_alpha": 6, "r": 3, "bias": "none", "target_modules": ["up_proj"]}
    (folder / "adapter_config.json").write_text(json.dumps(settings))
    return factors


def recipe(base, models, **keys):
    raw = {"models": [str(model) for model in models], "method": "linear"} | keys
    return parse_recipe(raw | ({"base_model": str(base)} if base else {}), "test")


@pytest.mark.parametrize(
    ("paths", "names"),
    [
        (["runs/x/a/model", "runs/x/b/model"], ["a", "b"]),
        (["models/qwen", "models/llama"], ["qwen", "llama"]),
        (["only/one"], ["one"]),
        (["runs/1/a/model", "runs/2/a/model"], ["1", "2"]),
        (["x/merged", "x/other"], ["model 1 (merged)", "other"]),
        (["x/a/model", "x/b/model", "y/a"], ["model 1 (a)", "b", "model 3 (a)"]),
    ],
)
def test_models_are_called_by_the_part_of_their_path_that_tells_them_apart(paths, names):
    assert list(short_names(paths).values()) == names


def test_the_base_comes_first_the_merged_model_last_and_nothing_twice(family, tmp_path):
    base, (one, two, _) = family
    found = evaluated_models(recipe(base, [one, two, one, base]), tmp_path / "out")
    assert [(model.name, model.role) for model in found] == [
        ("base", "base"), ("m1", "input"), ("m2", "input"), ("merged", "merged"),
    ]  # fmt: skip
    roles = [model.role for model in evaluated_models(recipe(None, [one, two]), tmp_path / "out")]
    assert roles == ["input", "input", "merged"]


def test_equal_weights_are_one_nth_for_each_and_the_middle_for_slerp(family, tmp_path):
    base, models = family
    weighted = recipe(base, models, method={"kind": "task_arithmetic", "weights": [0.1, 0.2, 0.9]})
    assert equally_weighted(weighted).resolved_method().weights == [1 / 3] * 3
    assert equally_weighted(recipe(base, models[:2], method={"kind": "slerp", "t": 0.1})).resolved_method().t == 0.5
    assert equally_weighted(recipe(base, models, method="sce")) is None
    roles = [model.role for model in evaluated_models(weighted, tmp_path / "out", equal_weights=True)]
    assert roles == ["base", "input", "input", "input", "equal weights", "merged"]


@pytest.mark.parametrize("grown_from", ["base", "m2"])
def test_an_adapter_is_evaluated_as_the_model_it_makes_which_is_removed_afterwards(family, tmp_path, grown_from):
    base, (one, *_) = family
    lora_b, lora_a = adapter(tmp_path / "lora")
    path = tmp_path / "lora" if grown_from == "base" else f"{tmp_path / grown_from}+{tmp_path / 'lora'}"
    _, of_adapter, _, _ = evaluated_models(recipe(base, [path, one]), tmp_path / "out")
    assert of_adapter.name == "lora"
    with of_adapter.loadable(tmp_path / "folded", threads=1) as ref:
        weight = dict(load_model(ref).named_parameters())[f"{UP}.weight"]
    expected = load_tensors(tmp_path / grown_from)[f"{UP}.weight"].double() + 2 * lora_b.double() @ lora_a.double()
    torch.testing.assert_close(weight.double(), expected, rtol=1e-6, atol=1e-6)
    assert not (tmp_path / "folded").exists()
    assert of_adapter.identity() != evaluated_models(recipe(base, [one, path]), tmp_path / "out")[1].identity()


def test_what_a_model_is_made_of_decides_its_identity_and_what_was_measured_of_it_does_not(family, tmp_path):
    base, (one, *_) = family
    adapter(tmp_path / "lora")
    models = evaluated_models(recipe(base, [one, tmp_path / "lora"], method="task_arithmetic"), one, equal_weights=True)
    before = [model.identity() for model in models]
    (one / "evaluation.json").write_text("{}")
    assert [model.identity() for model in models] == before
    assert len(set(before)) == 4  # the merged model is the first input here

    def change(weights):
        weights["lm_head.weight"] += 1

    edit_weights(one, change)
    changed = [model.identity() != old for model, old in zip(models, before, strict=True)]
    assert changed == [False, True, False, True, True]
    settings = tmp_path / "lora/adapter_config.json"
    settings.write_text(settings.read_text().replace("6", "1"))
    assert models[2].identity() != before[2]
