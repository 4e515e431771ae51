"""Old keys are answered with the new ones: in configurations, overrides, studies, recipes of merges, drafts and key.json."""

import json

import pytest
import yaml

from fusion.config import loading
from fusion.config.loading import ConfigError
from fusion.core.renamed_keys import RENAMED, new_name
from fusion.merging.recipes.merge_recipe import parse_recipe
from fusion.runtime.artifacts import claim_artifact, differences
from tests.helpers import runs

OLD = [
    ({"student": {"kind": "ternary"}}, "student", "quantization_aware_training"),
    ({"head_budget": 512}, "head_budget", "logits_budget"),
    ({"extract": {"hidden": True}}, "extract.hidden", "hidden_states"),
    ({"extract": {"shard": 5}}, "extract.shard", "shard_size"),
    ({"extract": {"values": "float16"}}, "extract.values", "value_format"),
    ({"engine": {"batch": 8}}, "engine.batch", "global_batch_size"),
    ({"adapter": {"kind": "lora", "rank": 4}}, "adapter.rank", "r"),
    ({"adapter": {"kind": "lora", "alpha": 4}}, "adapter.alpha", "lora_alpha"),
    ({"evaluation": {"untouched": False}}, "evaluation.untouched", "original_models"),
    ({"objectives": [{"kind": "cross_entropy", "rest": True}]}, "rest", "use_remaining_weight"),
    ({"objectives": [{"kind": "mixture", "of": {"kind": "forward_kl"}}]}, "of", "objective"),
    ({"objectives": [{"kind": "forward_kl", "select": {"kind": "knows_more", "by": 0.1}}]}, "by", "margin"),
    ({"weighting": {"kind": "product", "of": [{"kind": "sum"}]}}, "of", "factors"),
]


@pytest.mark.parametrize(("change", "old", "new"), OLD, ids=[f"{old}-{new}" for _, old, new in OLD])
def test_an_old_key_of_a_configuration_is_answered_with_the_new_one(tmp_path, change, old, new):
    with pytest.raises(ConfigError, match=rf"unknown key .*{old}; it is called {new} now"):
        loading.parse(runs.raw(tmp_path, **change), "test")


def test_so_is_one_of_an_override(tmp_path):
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(runs.raw(tmp_path)))
    with pytest.raises(ConfigError, match="extract.shard; it is called shard_size now"):
        loading.load(str(tmp_path / "c.yaml"), ["extract.shard=4"])


def test_so_is_one_of_a_merge_recipe():
    raw = {"base": "b", "models": [{"model": "m"}], "method": {"kind": "linear"}}
    with pytest.raises(ValueError, match="base; it is called base_model now"):
        parse_recipe(raw, "test")


def test_a_key_that_an_earlier_version_wrote_is_named_with_its_new_name(tmp_path):
    assert differences({"shard": 5}, {"shard_size": 5}) == "shard is called shard_size now"
    assert differences({"shard": 5}, {"shard_size": 6}) == (
        "shard is called shard_size now; shard_size: 5 there, 6 here"
    )
    (tmp_path / "key.json").write_text(json.dumps({"student": None, "seed": 0}))
    with pytest.raises(ValueError, match="student is called quantization_aware_training now"):
        claim_artifact(tmp_path, {"quantization_aware_training": None, "seed": 0}, "fusion train")


def test_no_key_is_called_like_itself_and_a_key_that_is_fine_is_left_alone():
    assert all(old not in names for old, names in RENAMED.items())
    assert new_name("top_k", {"top_k", "shard_size"}) is None
    assert new_name("shard", {"top_k"}) is None
