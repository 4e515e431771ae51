"""Old keys are answered with the new ones: in configurations, overrides, studies, recipes of merges, drafts and key.json."""

import json

import pytest
import yaml

from fusion.config import loading
from fusion.config.loading import ConfigError
from fusion.core.renamed_keys import ELSEWHERE, RENAMED, new_name
from fusion.merging.recipes.merge_recipe import parse_recipe
from fusion.runtime.artifacts import claim_artifact, differences
from tests.helpers import runs

OLD = [
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


WORDS = [
    ({"student": {"path": "x"}}, "student; it is called pivot here"),
    ({"teacher": [{"path": "x"}]}, "teacher; it is called sources here"),
    ({"learning_rate": 1e-4}, "learning_rate; it is called training.learning_rate here"),
    ({"max_seq_length": 512}, "max_seq_length; it is called data.max_length here"),
    ({"lora": {"r": 8}}, "lora; it is called adapter here"),
    ({"training": {"lr": 1e-4}}, "lr is not a TrainingArgument; it is called learning_rate here"),
    (
        {"training": {"batch_size": 4}},
        "batch_size is not a TrainingArgument; it is called per_device_train_batch_size here",
    ),
    ({"training": {"epochs": 4}}, "epochs is not a TrainingArgument; it is called num_train_epochs here"),
    ({"training": {"max_seq_length": 4}}, "max_seq_length is data.max_length here, outside training"),
    ({"training": {"seed": 4}}, "seed is set by the run itself, from seed outside training"),
    ({"objectives": [{"kind": "kl"}]}, "there is no kl; it is called forward_kl here"),
    ({"objectives": [{"kind": "sft"}]}, "there is no sft; it is called cross_entropy here"),
    ({"objectives": [{"weight": 1.0}]}, "objectives.0.: kind is missing"),
    ({"pivot": "a/folder"}, "pivot should be a group of settings, {path: a/folder}, got 'a/folder'"),
    ({"objectives": ["forward_kl"]}, r"objectives.0. should be a group of settings, {kind: forward_kl}, got"),
    ({"objectives": "forward_kl"}, r"objectives should be a list, such as .{kind: forward_kl}., got 'forward_kl'"),
    ({"strategies": "unified"}, r"strategies should be a list, such as .unified., got 'unified'"),
    ({"extract": 10}, r"extract should be a group of settings \(batch_tokens, compile, .*\), got 10"),
    (
        {"baseline": {"num_train_epochs": 4}},
        "^test: unknown key baseline.num_train_epochs; it is called training.num_train_epochs here$",
    ),
    ({"dtype": "bf16"}, "dtype should be float32 or bfloat16, got 'bf16'"),
]


@pytest.mark.parametrize(("change", "message"), WORDS, ids=[message.split(";")[0] for _, message in WORDS])
def test_a_word_of_other_projects_is_answered_with_ours(tmp_path, change, message):
    with pytest.raises(ConfigError, match=message):
        loading.parse(runs.raw(tmp_path, **change), "test")


def test_no_word_of_others_hides_an_old_key_but_student():
    assert ELSEWHERE.keys() & RENAMED.keys() == {"student"}


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


def test_a_setting_that_came_later_and_is_not_set_makes_no_difference_in_a_list():
    there, here = [{"kind": "l1"}, {"kind": "mse"}], [{"kind": "l1", "select": None}, {"kind": "mse", "select": None}]
    assert differences({"objectives": there}, {"objectives": here}) == ""
    assert differences({"objectives": there}, {"objectives": [here[0], here[1] | {"kind": "uld"}]}) == (
        'objectives ([1] (kind: "mse" there, "uld" here))'
    )


def test_a_difference_in_a_list_is_named_at_its_place():
    there = {"objectives": [{"kind": "forward_kl", "weight": 1.0}, {"kind": "l1"}], "top_k": 10}
    here = {"objectives": [{"kind": "forward_kl", "weight": 0.5}, {"kind": "l1"}], "top_k": 10}
    assert differences(there, here) == "objectives ([0] (weight: 1.0 there, 0.5 here))"
    assert differences(there, here | {"objectives": [*here["objectives"][:1], {"kind": "mse"}]}) == (
        "objectives ([0] (weight: 1.0 there, 0.5 here), and 1 more)"
    )
