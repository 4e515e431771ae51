"""mergekit's keys in forms that they do not have: each is named, and none ends in a traceback."""

import copy

import pytest

from fusion.merging.recipes.merge_recipe import parse_recipe

MERGE = {
    "merge_method": "dare_ties",
    "base_model": "base",
    "models": [
        {"model": "a", "parameters": {"weight": 0.3, "density": [0.5, 1]}},
        {"model": "b", "parameters": {"weight": [{"filter": "mlp", "value": 0.5}, {"value": 1}], "density": 0.5}},
    ],
    "parameters": {"normalize": True},
}
SLICES = {
    "merge_method": "slerp",
    "base_model": "a",
    "slices": [{"sources": [{"model": "a", "layer_range": [0, 2]}, {"model": "b", "layer_range": [0, 2]}]}],
    "parameters": {"t": 0.5},
}


def test_the_whole_ones_are_read():
    assert [entry.model for entry in parse_recipe(copy.deepcopy(MERGE), "m.yaml").models] == ["a", "b"]
    assert [entry.model for entry in parse_recipe(copy.deepcopy(SLICES), "m.yaml").models] == ["a", "b"]


@pytest.mark.parametrize(
    ("original", "place", "value", "message"),
    [
        (MERGE, ["models"], 3, "m.yaml: models is 3; it must be a list"),
        (MERGE, ["models", 0], "a", r"m.yaml: models\[0\] is 'a'; it must be a mapping with model, such as"),
        (MERGE, ["models", 1], {}, r"m.yaml: models\[1\].model is missing"),
        (MERGE, ["models", 0, "parameters"], "x", r"models\[0\].parameters is 'x'"),
        (MERGE, ["models", 0, "parameters", "density", 1], "x", r"models\[0\].parameters.density\[1\] is 'x'"),
        (MERGE, ["models", 1, "parameters", "weight", 1], {}, r"models\[1\].parameters.weight\[1\].value is missing"),
        (MERGE, ["models", 1, "parameters", "weight", 0, "filter"], -1, r"weight\[0\].filter is -1"),
        (MERGE, ["parameters"], [1], "parameters is a list"),
        (MERGE, ["merge_method"], 3, "merge_method is 3"),
        (SLICES, ["slices"], -1, "slices is -1"),
        (SLICES, ["slices", 0], "", r"slices\[0\] is ''"),
        (
            SLICES,
            ["slices", 0, "sources", 0],
            None,
            r"slices\[0\].sources\[0\] is null; it must be a mapping with model and layer_range",
        ),
        (SLICES, ["slices", 0, "sources", 1, "layer_range"], [0], r"sources\[1\].layer_range is a list"),
    ],
)
def test_another_form_is_named(original, place, value, message):
    raw = copy.deepcopy(original)
    parent = raw
    for key in place[:-1]:
        parent = parent[key]
    parent[place[-1]] = value
    with pytest.raises(ValueError, match=message):
        parse_recipe(raw, "m.yaml")
