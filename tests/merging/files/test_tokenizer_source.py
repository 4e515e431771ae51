"""A tokenizer taken from one of the models: which are refused, and what the configurations of the result then say."""

import json
from pathlib import Path

import pytest
import torch

from fusion.merging.files.checkpoint import Checkpoint
from fusion.merging.files.stream import merge
from fusion.merging.files.tokenizer_source import TokenizerSource, extend_vocabulary
from fusion.merging.methods.registry import TIES, Linear
from fusion.merging.recipes.merge_recipe import load_recipe, parse_recipe
from tests.helpers.families import EMBEDDING, HEAD, load_tensors, no_output_in, save_tiny_llama, set_config
from tests.helpers.tiny_tokenizers import byte_level


@pytest.fixture
def pair(tmp_path):
    """A base and a model of it with one tokenizer, of which the model's has a chat template."""
    rows = len(byte_level())
    base = save_tiny_llama(tmp_path / "base", vocab_size=rows)
    save_tiny_llama(tmp_path / "m1", seed=1, like=base, vocab_size=rows)
    byte_level(chat=False).save_pretrained(tmp_path / "base")
    byte_level().save_pretrained(tmp_path / "m1")
    for name in ("base", "m1"):
        (tmp_path / name / "generation_config.json").unlink()
    return tmp_path / "base", tmp_path / "m1"


def read(file):
    return json.loads(file.read_text())


def merge_with(pair, out, source, **options):
    return merge(pair[0], [pair[1]], Linear(), out, tokenizer_source=source, **options)


def test_a_folder_that_is_none_of_the_models_is_refused(pair, tmp_path):
    with pytest.raises(ValueError, match=r"other is none of the models; name the base or one of \S+m1\."):
        merge_with(pair, tmp_path / "out", tmp_path / "other")
    assert no_output_in(tmp_path)


def test_a_model_without_a_tokenizer_is_refused(pair, tmp_path):
    for file in (pair[1] / name for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja")):
        file.unlink()
    with pytest.raises(ValueError, match=r"tokenizer_source: \S+m1 has no tokenizer; name another model"):
        merge_with(pair, tmp_path / "out", pair[1])


def test_a_tokenizer_that_is_code_is_refused(pair, tmp_path):
    file = pair[1] / "tokenizer_config.json"
    file.write_text(json.dumps(read(file) | {"auto_map": {"AutoTokenizer": ["mine.T", None]}}))
    with pytest.raises(ValueError, match=r"m1 is code of its own \(auto_map\); name another model"):
        merge_with(pair, tmp_path / "out", pair[1])


def test_tokens_without_an_embedding_are_refused(tmp_path):
    base = save_tiny_llama(tmp_path / "base", vocab_size=300)
    save_tiny_llama(tmp_path / "m1", seed=1, like=base, vocab_size=300)
    byte_level().save_pretrained(tmp_path / "m1")
    with pytest.raises(ValueError, match=r"m1 has tokens up to id 399, and the result has embeddings of 300\. Where"):
        merge(tmp_path / "base", [tmp_path / "m1"], Linear(), tmp_path / "out", tokenizer_source=tmp_path / "m1")
    assert no_output_in(tmp_path)


def test_models_are_held_against_the_tokenizer_that_is_taken_where_the_base_has_none(pair, tmp_path):
    base = save_tiny_llama(tmp_path / "m2", seed=2, vocab_size=len(byte_level()))
    assert base is not None
    byte_level(size=300).save_pretrained(tmp_path / "m2")
    (pair[0] / "tokenizer.json").unlink()
    with pytest.raises(ValueError, match=r"m2: token \d+ is .* the source of the tokenizer \S+m1 has"):
        merge(pair[0], [pair[1], tmp_path / "m2"], Linear(), tmp_path / "out", tokenizer_source=pair[1])


@pytest.mark.parametrize(
    "own", [None, {"eos_token_id": 7, "temperature": 0.6}], ids=["no settings", "the base's settings"]
)
def test_without_generation_settings_the_ends_are_those_of_configuration_tokenizer_and_template(pair, tmp_path, own):
    base, model = pair
    if own:
        (base / "generation_config.json").write_text(json.dumps(own))
    set_config(model, eos_token_id=9, bos_token_id=5, pad_token_id=6)
    merge_with(pair, tmp_path / "out", model)
    expected = {"bos_token_id": 5, "pad_token_id": 6, "eos_token_id": [9, 0, 2]}  # stated, <|endoftext|>, <|im_end|>
    assert expected.items() <= read(tmp_path / "out/config.json").items()
    assert (tmp_path / "out/generation_config.json").exists() == (own is not None)
    if own:
        assert read(tmp_path / "out/generation_config.json") == own | expected


def test_the_base_by_name_and_by_folder_means_its_own_tokenizer(pair, tmp_path):
    named = {"models": ["a"], "method": "linear", "tokenizer_source": "base"}
    assert parse_recipe(named, "r").options["tokenizer_source"] == Path("a")  # the first model, where no base is named
    assert parse_recipe(named | {"base_model": "b"}, "r").options["tokenizer_source"] == Path("b")
    merge_with(pair, tmp_path / "out", pair[0])
    assert not (tmp_path / "out/chat_template.jinja").exists()


def test_the_recipe_of_the_result_says_where_its_tokenizer_is_from(pair, tmp_path):
    merge_with(pair, tmp_path / "out", pair[1])
    recipe = load_recipe(tmp_path / "out/recipe.yaml")
    assert recipe.options["tokenizer_source"] == pair[1]
    assert not merge(pair[0], [pair[1]], Linear(), tmp_path / "out", **recipe.options).created


def test_ids_go_into_the_text_part_where_it_states_them():
    source = TokenizerSource.__new__(TokenizerSource)
    object.__setattr__(source, "special_ids", {"eos_token_id": [1, 2], "bos_token_id": 3})
    config = {
        "model_type": "gemma3",
        "text_config": {"eos_token_id": 9, "hidden_size": 4},
        "vision_config": {"eos_token_id": 0},
    }
    assert source.set_ids(config) == {
        "model_type": "gemma3",
        "text_config": {"eos_token_id": [1, 2], "hidden_size": 4},
        "vision_config": {"eos_token_id": 0},
        "eos_token_id": [1, 2],
        "bos_token_id": 3,
    }


# Rows of tokens that the base lacks


@pytest.fixture
def longer(tmp_path):
    """A base of 400 tokens, m1 with 400 and m2 with 410 rows."""
    rows = len(byte_level())
    base = save_tiny_llama(tmp_path / "base", vocab_size=rows)
    save_tiny_llama(tmp_path / "m1", seed=1, like=base, vocab_size=rows)
    second = save_tiny_llama(tmp_path / "m2", seed=2, like=base, vocab_size=rows)
    second.resize_token_embeddings(rows + 10, mean_resizing=False)
    second.save_pretrained(tmp_path / "m2")
    byte_level().save_pretrained(tmp_path / "m2")
    return [tmp_path / name for name in ("base", "m1", "m2")]


@pytest.mark.parametrize("method", [Linear(), TIES()], ids=lambda method: method.kind)
def test_rows_that_only_the_source_of_the_tokenizer_has_are_its_rows(longer, tmp_path, method, monkeypatch):
    base, *models = longer
    monkeypatch.setattr("fusion.merging.methods.tiles.TILE_ENTRIES", 64)
    merge(base, models, method, tmp_path / "out", vocabulary="pad", tokenizer_source=models[1])
    origin, first, second = (load_tensors(folder) for folder in longer)
    merged = load_tensors(tmp_path / "out")
    for name in (EMBEDDING, HEAD):
        padded = [torch.cat([tensors[name], second[name][400:]]) for tensors in (origin, first)]
        assert torch.equal(merged[name], method(padded[0], [padded[1], second[name]], name, num_layers=2))
        assert torch.equal(merged[name][400:], second[name][400:])
    assert read(tmp_path / "out/config.json")["vocab_size"] == 410


def test_the_text_part_counts_the_rows_too(longer):
    base, _, model = map(Checkpoint.open, longer)
    base.config["text_config"] = {"vocab_size": 400}
    assert extend_vocabulary(base, model).config["text_config"] == {"vocab_size": 410}
    assert base.config["text_config"] == {"vocab_size": 400}
    assert extend_vocabulary(model, base) is model


# Renamed tokens, and what is said of tokenizers that are not taken


@pytest.mark.parametrize("source", ["base", "m1"])
def test_renamed_tokens_are_merged_by_their_ids_where_a_source_is_named(pair, tmp_path, source, caplog):
    base, model = pair
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        (model / name).write_text((model / name).read_text().replace("<|im_end|>", "<|User|>"))
    with pytest.raises(
        ValueError, match=rf"token 2 is '<|User|>'.*; --tokenizer-source {base} or {model} merges renamed"
    ):
        merge(base, [model], Linear(), tmp_path / "out")
    assert no_output_in(tmp_path)
    out = merge_with(pair, tmp_path / "out", tmp_path / source).folder
    assert (out / "tokenizer.json").read_bytes() == (tmp_path / source / "tokenizer.json").read_bytes()
    assert torch.equal(load_tensors(out)[EMBEDDING], load_tensors(model)[EMBEDDING])
    said = "calls tokens by other names than"
    assert said in caplog.text
    assert said in (out / "README.md").read_text()
    recipe = load_recipe(out / "recipe.yaml")
    assert recipe.options["tokenizer_source"] == tmp_path / source
    assert not merge(base, [model], Linear(), out, **recipe.options).created


def test_what_embedding_models_have_behind_the_transformer_is_said_where_it_is_lost(pair, tmp_path, caplog):
    (pair[1] / "modules.json").write_text("[]")
    out = merge(pair[0], [pair[1]], Linear(), tmp_path / "out").folder
    assert "the result has no pooling" in caplog.text
    assert "the result has no pooling" in (out / "README.md").read_text()
