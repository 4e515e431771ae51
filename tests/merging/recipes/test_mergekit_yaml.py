"""Our numbers against mergekit's through its YAML: golden values, from `golden_yaml.py`, which says how they were made."""

import json
from pathlib import Path

import pytest
import torch

from fusion.merging.recipes.merge_recipe import load_recipe
from fusion.merging.recipes.mergekit_parameters import PARAMETERS
from fusion.merging.search import merge_recipe
from tests.merging.recipes.golden_yaml import CASES, sample, write_models

GOLDEN = json.loads(Path(__file__).with_name("golden_yaml.json").read_text())


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    write_models(folder)
    return folder


def merged(case, folder, monkeypatch, text=None):
    """What we make of a case, sampled."""
    monkeypatch.chdir(folder)
    file, out = folder / "recipe.yaml", folder / f"out-{case}"
    file.write_text(text or CASES[case])
    merge_recipe(load_recipe(file), out, threads=1, show_progress=False)
    return torch.tensor(sample(out))


def test_every_method_that_both_have_is_compared_and_no_other():
    assert GOLDEN.keys() == CASES.keys()
    assert {case.split(",")[0] for case in CASES} == PARAMETERS.keys()


@pytest.mark.parametrize("case", CASES)
def test_its_yaml_gives_its_numbers(case, models, monkeypatch):
    torch.testing.assert_close(merged(case, models, monkeypatch), torch.tensor(GOLDEN[case]), rtol=1e-5, atol=2e-6)


def test_without_the_filters_another_model_would_come_out(models, monkeypatch):
    case = "slerp, gradients by name"
    changed = merged("changed", models, monkeypatch, CASES[case].replace("self_attn", "self_atn"))
    assert not torch.allclose(changed, torch.tensor(GOLDEN[case]), atol=1e-2)
