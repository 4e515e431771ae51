"""Folders whose files are not what their names say: pointers, web pages, links to nothing; and folders that are not there."""

import json
from pathlib import Path

import pytest
from safetensors.torch import load_file

from fusion.merging.files.stream import merge
from fusion.merging.methods.registry import Linear
from fusion.models.checkpoint_files import stored_tensors
from tests.helpers.adapters import save_adapter
from tests.helpers.families import WEIGHTS, no_output_in

INDEX = "model.safetensors.index.json"
SHARD = "model-00001-of-00001.safetensors"
POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"
PAGE = "\n<!DOCTYPE html>\n<html><body>Sign in</body></html>"
DENIED = '<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>'
ANSWER = "Access to model org/a is restricted.\nYou must be authenticated."
STAND_INS = [
    (POINTER, "is a Git LFS pointer: run git lfs pull there"),
    (PAGE, "is a web page, saved in place of the file that it shows. Download the file itself"),
    (DENIED, "is a web page, saved in place of"),
]
READ = [
    WEIGHTS,
    INDEX,
    SHARD,
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer.model",
    "tekken.json",
]
"""Files that a merge reads or hands on."""


def with_index(folder):
    """Name the weights of a folder in an index, as one shard."""
    names = dict.fromkeys(load_file(folder / WEIGHTS), SHARD)
    (folder / WEIGHTS).rename(folder / SHARD)
    (folder / INDEX).write_text(json.dumps({"weight_map": names}))


def put(folder, name, text):
    if name in (INDEX, SHARD):
        with_index(folder)
    (folder / name).unlink(missing_ok=True)
    (folder / name).write_text(text)


def link_to_nothing(folder, name):
    if name in (INDEX, SHARD):
        with_index(folder)
    (folder / name).unlink(missing_ok=True)
    (folder / name).symlink_to("../../blobs/4d7a")


@pytest.mark.parametrize("name", READ)
@pytest.mark.parametrize(("text", "message"), STAND_INS, ids=["pointer", "page", "denied"])
def test_what_stands_in_for_a_file_is_named(family, tmp_path, name, text, message):
    base, models = family
    put(models[1], name, text)
    with pytest.raises(ValueError, match=f"m2/{name} {message}"):
        merge(base, models, Linear(), tmp_path / "out")
    assert no_output_in(tmp_path)


@pytest.mark.parametrize("name", READ)
def test_a_link_to_nothing_is_named_with_where_it_leads(family, tmp_path, name):
    base, models = family
    link_to_nothing(models[1], name)
    message = rf"m2/{name} is a link to \.\./\.\./blobs/4d7a, and nothing is there\. Copy or download the model again"
    with pytest.raises(FileNotFoundError, match=message):
        merge(base, models, Linear(), tmp_path / "out")
    assert no_output_in(tmp_path)


def test_files_that_a_merge_does_not_read_may_be_anything(family, tmp_path):
    base, models = family
    for name in ("consolidated.safetensors", "README.md", "trainer_state.json", "pytorch_model.bin"):
        (models[0] / name).write_text(POINTER)
        link_to_nothing(models[1], name)
    assert merge(base, models, Linear(), tmp_path / "out").created


def test_weights_of_a_module_that_are_a_pointer_are_named(family, tmp_path):
    base, models = family
    (base / "modules.json").write_text('[{"path": "2_Dense"}]')
    (base / "2_Dense").mkdir()
    (base / "2_Dense" / WEIGHTS).write_text(POINTER)
    with pytest.raises(ValueError, match="base/2_Dense/model.safetensors is a Git LFS pointer"):
        merge(base, models, Linear(), tmp_path / "out")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (ANSWER.encode(), r"holds no weights but a text, 'Access to model org/a is restricted\. You must be"),
        (b"Entry not found", r"holds no weights but a text, 'Entry not found': its download went wrong"),
        (b"", r"is damaged or no safetensors file: .*Copy it again"),
        (b"\x08\x00\x00\x00\x00\x00\x00\x00{", r"is damaged or no safetensors file: .*Copy it again"),
    ],
    ids=["answer", "entry", "empty", "cut"],
)
def test_weights_that_are_none_are_named_where_a_merge_and_where_a_model_is_loaded(family, tmp_path, content, message):
    base, models = family
    (models[1] / WEIGHTS).write_bytes(content)
    with pytest.raises(ValueError, match=f"m2/{WEIGHTS} {message}"):
        merge(base, models, Linear(), tmp_path / "out")
    with pytest.raises(ValueError, match=f"m2/{WEIGHTS} {message}"):
        stored_tensors(models[1])


@pytest.mark.parametrize("name", ["adapter_config.json", "adapter_model.safetensors"])
@pytest.mark.parametrize("named", ["lora", "m1+lora"])
def test_an_adapter_is_looked_at_in_the_same_way(family, tmp_path, monkeypatch, name, named):
    monkeypatch.chdir(tmp_path)
    save_adapter(tmp_path / "lora")
    link_to_nothing(tmp_path / "lora", name)
    with pytest.raises(FileNotFoundError, match=f"lora/{name} is a link to ../../blobs/4d7a"):
        merge(Path("base"), [Path(named)], Linear(), tmp_path / "out")
    put(tmp_path / "lora", name, PAGE)
    with pytest.raises(ValueError, match=f"lora/{name} is a web page"):
        merge(Path("base"), [Path(named)], Linear(), tmp_path / "out")


def test_a_folder_that_is_not_there_is_named_with_those_that_are_called_like_it(family, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("llama-chat").mkdir()
    Path("llama-chart.txt").touch()
    Path("gone").symlink_to("elsewhere")
    for name, message in (
        ("llama-chta", r"There is no folder llama-chta\. Did you mean llama-chat\?"),
        ("nowhere/llama-chat/x", r"There is no folder nowhere/llama-chat/x\. Name a folder that save_pretrained wrote"),
        ("gone", r"gone is a link to elsewhere, and nothing is there"),
        ("m1/config.json", r"m1/config\.json is a file, and a model is the folder around its files"),
    ):
        with pytest.raises(FileNotFoundError, match=message):
            merge(Path("base"), [Path("m1"), Path(name)], Linear(), Path("out"))
    assert no_output_in(tmp_path)
