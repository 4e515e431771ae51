"""Licenses and hub ids from the cards and configurations that people's folders have, and what several of them allow to say."""

import json

import pytest

from fusion.runtime.card_metadata import License, base_model_metadata, common_license, license_metadata, read_card

LLAMA = License("other", "llama3", "LICENSE")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("---\nlicense: apache-2.0\n---\nText.", License("apache-2.0")),
        ("\ufeff---\r\nlicense: MIT\r\n---\r\nText.", License("mit")),
        ("---\nlicense: other\nlicense_name: llama3\nlicense_link: LICENSE\n---\n", LLAMA),
        ("---\ndescription: a --- b\nlicense: mit\n---\nText.", License("mit")),
        ("---\nlicense: mit\n---", License("mit")),
        ("---\nlicense: ''\n---\n", None),
        ("---\nlicense: [mit, apache-2.0]\n---\n", None),
        ("---\nlicense: {a: b\n---\n", None),
        ("---\n- license\n---\n", None),
        ("# Title\n\n---\nlicense: mit\n---\n", None),
        ("license: mit", None),
        ("", None),
    ],
)
def test_a_license_is_read_from_front_matter_alone(tmp_path, text, expected):
    (tmp_path / "README.md").write_text(text, newline="")
    assert read_card(tmp_path).license == expected


@pytest.mark.parametrize(
    ("stated", "expected"),
    [
        ([License("mit"), License("mit")], License("mit")),
        ([License("mit"), None], None),
        ([License("mit"), License("apache-2.0")], None),
        ([LLAMA, License("other", "Llama3", "LICENSE")], LLAMA),
        ([LLAMA, License("other", "llama3", "https://a.b")], License("other", "llama3")),
        ([LLAMA, License("other", "gemma")], None),
        ([License("other"), License("other")], None),
        ([None, None], None),
        ([], None),
    ],
)
def test_a_license_is_common_where_all_state_it_and_other_by_its_name_alone(stated, expected):
    assert common_license(stated) == expected


def test_the_keys_of_a_license_are_those_of_the_hub():
    assert license_metadata(LLAMA) == {"license": "other", "license_name": "llama3", "license_link": "LICENSE"}
    assert license_metadata(License("mit")) == {"license": "mit"}
    assert license_metadata(None) == {}


IDS = {
    "configuration": ("config.json", {"_name_or_path": "org/Model-1.5_b"}, ("org/Model-1.5_b",)),
    "adapter": ("adapter_config.json", {"base_model_name_or_path": "org/base"}, ("org/base",)),
    "absolute path": ("config.json", {"_name_or_path": "/home/jane/models/a"}, ()),
    "relative path": ("config.json", {"_name_or_path": "./out"}, ()),
    "deep path": ("config.json", {"_name_or_path": "a/b/c"}, ()),
    "checkpoint": ("config.json", {"_name_or_path": "lora/checkpoint-500"}, ()),
    "output folder": ("config.json", {"_name_or_path": "output/mine"}, ()),
    "home": ("config.json", {"_name_or_path": "~/mine"}, ()),
    "windows": ("config.json", {"_name_or_path": "C:\\Users\\jane"}, ()),
    "empty": ("config.json", {"_name_or_path": ""}, ()),
    "number": ("config.json", {"_name_or_path": 3}, ()),
}


@pytest.mark.parametrize(("file", "content", "expected"), IDS.values(), ids=IDS)
def test_what_a_configuration_was_loaded_from_counts_where_it_can_be_a_hub_id(tmp_path, file, content, expected):
    (tmp_path / file).write_text(json.dumps(content))
    assert read_card(tmp_path).hub_ids == expected


def test_a_folder_that_is_there_is_no_hub_id(tmp_path, monkeypatch):
    (tmp_path / "config.json").write_text(json.dumps({"_name_or_path": "mine/a"}))
    monkeypatch.chdir(tmp_path)
    assert read_card(tmp_path).hub_ids == ("mine/a",)
    (tmp_path / "mine/a").mkdir(parents=True)
    assert read_card(tmp_path).hub_ids == ()


def test_a_snapshot_in_the_cache_of_the_hub_is_that_model_whatever_else_is_said(tmp_path):
    folder = tmp_path / "models--org--a-model" / "snapshots" / "0123"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"_name_or_path": "org/other"}))
    assert read_card(folder).hub_ids == ("org/a-model",)


@pytest.mark.parametrize(
    ("stated", "expected"), [("org/a", ("org/a",)), (["org/a", "/b", "org/c"], ("org/a", "org/c"))]
)
def test_base_models_of_the_card_count_where_nothing_else_is_known(tmp_path, stated, expected):
    (tmp_path / "README.md").write_text(f"---\nbase_model: {json.dumps(stated)}\n---\n")
    assert read_card(tmp_path).hub_ids == expected


def test_base_models_are_listed_once_and_not_at_all_without_ids():
    assert base_model_metadata(["a/b", "c/d", "a/b"], "merge") == {
        "base_model": ["a/b", "c/d"],
        "base_model_relation": "merge",
    }
    assert base_model_metadata([], "merge") == {}
