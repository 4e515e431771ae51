"""Tokenizers that must agree, and models with more or fewer tokens than the base."""

import json

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from fusion.merging.files.stream import merge
from fusion.merging.files.tokenizer_check import tokenizer_problems
from fusion.merging.methods.registry import SCE, TIES, Linear
from fusion.merging.tokenizers.tokenizer_notes import tokenizer_notes
from tests.helpers.families import EMBEDDING, HEAD, WEIGHTS, load_tensors, no_output_in, save_tiny_llama, set_config

PIECES = {"a": 0, "b": 1, "c": 2}


def tokenizer(folder, vocab=PIECES, added=(), kind="BPE"):
    pieces = [[piece, 0.0] for piece in vocab] if kind == "Unigram" else vocab
    tokens = [{"id": index, "content": content} for index, content in added]
    content = {"model": {"type": kind, "vocab": pieces}, "added_tokens": tokens}
    (folder / "tokenizer.json").write_text(json.dumps(content))


def other_size(base, folder, rows):
    """A child of `base` with another number of rows in its embedding and head."""
    model = save_tiny_llama(folder, seed=5, like=base)
    model.resize_token_embeddings(rows, mean_resizing=False)
    model.save_pretrained(folder)


@pytest.fixture
def pair(tmp_path):
    """A base, and a child of it."""
    base = save_tiny_llama(tmp_path / "base")
    save_tiny_llama(tmp_path / "m1", seed=1, like=base)
    return tmp_path / "base", tmp_path / "m1"


@pytest.mark.parametrize("kind", ["BPE", "Unigram"])
def test_the_same_tokens_merge_whatever_else_the_files_say(pair, tmp_path, kind):
    base, model = pair
    tokenizer(base, kind=kind, added=[(3, "<end>")])
    tokenizer(model, kind=kind, added=[(3, "<end>")])
    (model / "tokenizer.json").write_text((model / "tokenizer.json").read_text() + "\n")
    merge(base, [model], Linear(), tmp_path / "out")
    assert (tmp_path / "out/tokenizer.json").read_bytes() == (base / "tokenizer.json").read_bytes()


@pytest.mark.parametrize(
    ("vocab", "added", "message"),
    [
        ({"a": 0, "x": 1, "c": 2}, [], r"m1: token 1 is 'x', the base \S+base has 'b' \(1 tokens differ\)$"),
        (PIECES, [(3, "<end>")], r"m1: token 3 is '<end>', the base \S+base has None .*--vocabulary pad lets"),
        ({"a": 0}, [], r"m1: token 1 is None, the base \S+base has 'b' \(2 tokens differ\)"),
    ],
)
def test_other_tokens_are_named(pair, tmp_path, vocab, added, message):
    base, model = pair
    tokenizer(base)
    tokenizer(model, vocab, added)
    with pytest.raises(ValueError, match=message):
        merge(base, [model], Linear(), tmp_path / "out")
    assert no_output_in(tmp_path)


def test_padding_lets_tokens_be_absent_but_not_change_their_meaning(pair, tmp_path):
    base, model = pair
    tokenizer(base)
    tokenizer(model, added=[(3, "<end>")])
    assert merge(base, [model], Linear(), tmp_path / "out", vocabulary="pad").created
    tokenizer(model, {"b": 0, "a": 1, "c": 2})
    with pytest.raises(ValueError, match="token 0 is 'b'"):
        merge(base, [model], Linear(), tmp_path / "out2", vocabulary="pad")


def test_other_tokenizer_files_are_compared_whole(pair, tmp_path):
    base, model = pair
    (base / "merges.txt").write_text("a b")
    (model / "merges.txt").write_text("b c")
    with pytest.raises(ValueError, match=r"m1: merges.txt differs from that of the base"):
        merge(base, [model], Linear(), tmp_path / "out")


@pytest.mark.parametrize(
    "name",
    [
        "tekken.json",
        "tokenizer.model",
        "tokenizer.model.v3",
        "spiece.model",
        "source.spm",
        "qwen.tiktoken",
        "vocab.txt",
    ],
)
def test_each_kind_of_tokenizer_file_is_compared_and_copied(pair, tmp_path, name):
    base, model = pair
    for folder in pair:
        (folder / name).write_text("one")
    merge(base, [model], Linear(), tmp_path / "out")
    assert (tmp_path / "out" / name).read_text() == "one"
    (model / name).write_text("other")
    with pytest.raises(ValueError, match=f"m1: {name} differs from that of the base"):
        merge(base, [model], Linear(), tmp_path / "out2")


def test_other_merges_of_the_same_words_are_no_problem(pair, tmp_path):
    base, model = pair
    for folder, merges in zip(pair, ("a b", "b c"), strict=True):
        (folder / "vocab.json").write_text(json.dumps(PIECES))
        (folder / "merges.txt").write_text(merges)
    assert merge(base, [model], Linear(), tmp_path / "out").created
    assert (tmp_path / "out/merges.txt").read_text() == "a b"


# Tokens that settings add to those of a tokenizer.model, or of a tokenizer.json


def add_in_its_file(folder, tokens):
    (folder / "added_tokens.json").write_text(json.dumps(tokens))


def add_in_settings(folder, tokens):
    decoder = {str(index): {"content": token, "special": True} for token, index in tokens.items()}
    (folder / "tokenizer_config.json").write_text(json.dumps({"added_tokens_decoder": decoder}))


@pytest.mark.parametrize("add", [add_in_its_file, add_in_settings])
@pytest.mark.parametrize("kind", ["tokenizer.model", "tokenizer.json"])
def test_added_tokens_are_compared(pair, tmp_path, add, kind):
    base, model = pair
    for folder in pair:
        tokenizer(folder) if kind == "tokenizer.json" else (folder / kind).write_text("spm")
        add(folder, {"<end>": 3})
    merge(base, [model], Linear(), tmp_path / "out")
    add(model, {"<eot>": 3})
    with pytest.raises(
        ValueError, match=r"m1: token 3 is '<eot>', the base \S+ has '<end>' \(1 tokens differ\); --tok"
    ):
        merge(base, [model], Linear(), tmp_path / "out2")
    add(model, {"<end>": 4})
    with pytest.raises(ValueError, match=r"m1: token 3 is None, the base \S+ has '<end>' \(2 tokens differ\)"):
        merge(base, [model], Linear(), tmp_path / "out2")


def test_a_token_that_settings_add_to_a_tokenizer_json_is_one_more(pair, tmp_path):
    base, model = pair
    for folder in pair:
        tokenizer(folder)
    add_in_its_file(model, {"a": 0, "<tool>": 3})
    with pytest.raises(
        ValueError, match=r"m1: token 3 is '<tool>', the base \S+ has None \(1 tokens differ\); --vocabulary"
    ):
        merge(base, [model], Linear(), tmp_path / "out")
    assert merge(base, [model], Linear(), tmp_path / "out", vocabulary="pad").created


def test_tokens_that_one_folder_alone_lists_are_named_unless_they_have_a_role_in_the_other(pair):
    base, model = pair
    for folder in pair:
        (folder / "tokenizer.model").write_text("spm")
    add_in_settings(base, {"<s>": 1, "</s>": 2, "<end>": 3})
    (model / "tokenizer_config.json").write_text(json.dumps({"bos_token": "<s>", "pad_token": None}))
    (model / "special_tokens_map.json").write_text(json.dumps({"eos_token": {"content": "</s>"}}))
    for first, second in ((base, model), (model, base)):
        assert tokenizer_problems(first, second) == []
        [note] = tokenizer_notes(first, second)
        assert note.startswith(
            f"Of {second} and the base {first} only one lists these tokens, and the other has no tokenizer."
        )
        assert ": 3 is '<end>'. They are taken to be the same in both; the result has the tokenizer of" in note


@pytest.mark.parametrize(
    ("name", "content"),
    [("added_tokens.json", {"<end>": [3]}), ("tokenizer_config.json", {"added_tokens_decoder": {"three": "<end>"}})],
)
def test_added_tokens_without_ids_are_refused(pair, tmp_path, name, content):
    base, model = pair
    tokenizer(base)
    tokenizer(model)
    (model / name).write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"m1: added_tokens.json or added_tokens_decoder in .* gives tokens no ids"):
        merge(base, [model], Linear(), tmp_path / "out")


def test_a_tokenizer_that_cannot_be_read_is_named(pair, tmp_path):
    base, model = pair
    tokenizer(base)
    (model / "tokenizer.json").write_text("{}")
    with pytest.raises(ValueError, match=r"m1/tokenizer.json is no tokenizer that can be read \(KeyError\('model'\)\)"):
        merge(base, [model], Linear(), tmp_path / "out")


@pytest.mark.parametrize("rows", [30, 45])
@pytest.mark.parametrize("method", [Linear(), TIES(), SCE()], ids=lambda method: method.kind)
def test_rows_a_model_lacks_are_the_bases_and_rows_the_base_lacks_are_left_out(tmp_path, method, rows, monkeypatch):
    base = save_tiny_llama(tmp_path / "base")
    save_tiny_llama(tmp_path / "m1", seed=1, like=base)
    other_size(base, tmp_path / "m2", rows)
    monkeypatch.setattr("fusion.merging.methods.tiles.TILE_ENTRIES", 64)
    models = [tmp_path / "m1", tmp_path / "m2"]
    merge(tmp_path / "base", models, method, tmp_path / "out", vocabulary="pad")
    origin, first, second = (load_tensors(folder) for folder in (tmp_path / "base", *models))
    merged = load_tensors(tmp_path / "out")
    for name in (EMBEDDING, HEAD):
        padded = torch.cat([second[name], origin[name][rows:]])[:37]
        assert merged[name].shape == (37, 16)
        assert torch.equal(merged[name], method(origin[name], [first[name], padded], name, num_layers=2))
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "out").config.vocab_size == 37


def test_other_numbers_of_tokens_are_refused_with_the_way_out(tmp_path):
    base = save_tiny_llama(tmp_path / "base")
    other_size(base, tmp_path / "m1", 40)
    with pytest.raises(ValueError, match="vocab_size is 40, the base"):
        merge(tmp_path / "base", [tmp_path / "m1"], Linear(), tmp_path / "out")
    set_config(tmp_path / "m1", vocab_size=37)
    with pytest.raises(ValueError, match=r"embed_tokens.weight has shape \(40, 16\).*--vocabulary pad lets rows"):
        merge(tmp_path / "base", [tmp_path / "m1"], Linear(), tmp_path / "out")
    assert len(load_file(tmp_path / "base" / WEIGHTS)) == 21
