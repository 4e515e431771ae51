"""Our numbers against mergekit's: golden values, from `golden_mergekit.py`, which says how they were made."""

import json
from pathlib import Path

import pytest
import torch

from fusion.merging.recipes.merge_recipe import parse_recipe
from tests.merging.recipes.golden_mergekit import CASES, parts, tensors

GOLDEN = json.loads(Path(__file__).with_name("golden_mergekit.json").read_text())


def ours(case, **changes):
    """What we make of the same settings, read from mergekit's words."""
    kind, based, count = parts(case)
    base, models = tensors(count)
    settings = CASES[case] | changes
    own = {name: value for name, value in settings.items() if isinstance(value, list)}
    shared = {name: value for name, value in settings.items() if name not in own}
    named = [{"model": str(i), "parameters": {name: v[i] for name, v in own.items()}} for i in range(count)]
    raw = {"merge_method": kind, "models": named, "parameters": shared} | ({"base_model": "base"} if based else {})
    read = parse_recipe(raw, case)
    states = {str(i): model for i, model in enumerate(models)} | {"base": base}
    return read.resolved_method()(base, [states[entry.model] for entry in read.models])


def test_the_golden_file_has_every_case_and_no_other():
    assert GOLDEN.keys() == CASES.keys()
    assert len(CASES) == 18


@pytest.mark.parametrize("case", CASES)
def test_we_agree_with_mergekit(case):
    golden = torch.tensor(GOLDEN[case]).reshape(8, 25)
    torch.testing.assert_close(ours(case), golden, rtol=1e-5, atol=2e-6)


def test_where_the_selection_binds_a_change_of_it_would_show():
    golden = torch.tensor(GOLDEN["ties, weights"]).reshape(8, 25)
    assert not torch.allclose(ours("ties, weights", density=[0.2, 0.5, 0.8]), golden, atol=1e-3)
