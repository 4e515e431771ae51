"""Models from folders and GGUF files: what identifies them, and what is refused."""

import shutil

import pytest
import torch
from transformers import AutoTokenizer

from fusion.models.loading import (
    ModelRef,
    count_parameters,
    load_config,
    load_model,
    load_tokenizer,
    model_fingerprint,
    vocabulary_size,
)
from tests.helpers import gguf_file as gguf_files
from tests.helpers import tiny


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny.folder("llama", tmp_path_factory.mktemp("models") / "llama")


def test_a_fingerprint_follows_the_contents_and_not_the_place(folder, tmp_path):
    copy = shutil.copytree(folder, tmp_path / "copy")
    (copy / "README.md").write_text("notes")
    assert model_fingerprint(ModelRef(str(copy))) == model_fingerprint(ModelRef(str(folder)))
    (copy / "chat_template.jinja").write_text("{{ messages }}")
    assert model_fingerprint(ModelRef(str(copy))) != model_fingerprint(ModelRef(str(folder)))


@pytest.mark.parametrize("kind", tiny.TOKENIZERS)
def test_a_tokenizer_that_is_loaded_without_the_models_configuration_is_the_same(kind, tmp_path):
    folder = tiny.folder(kind, tmp_path / kind)
    ours, theirs = load_tokenizer(ModelRef(str(folder))), AutoTokenizer.from_pretrained(folder)
    assert type(ours) is type(theirs)
    assert ours.backend_tokenizer.to_str() == theirs.backend_tokenizer.to_str()
    assert ours.special_tokens_map.items() >= theirs.special_tokens_map.items()


def test_a_damaged_tokenizer_configuration_is_named(folder, tmp_path):
    copy = shutil.copytree(folder, tmp_path / "copy")
    (copy / "tokenizer_config.json").write_text("{")
    with pytest.raises(ValueError, match=f"Cannot load the tokenizer of {copy}"):
        load_tokenizer(ModelRef(str(copy)))


def test_one_changed_weight_changes_the_fingerprint(folder, tmp_path):
    copy = shutil.copytree(folder, tmp_path / "copy")
    data = bytearray((copy / "model.safetensors").read_bytes())
    data[-1] ^= 1
    (copy / "model.safetensors").write_bytes(data)
    assert model_fingerprint(ModelRef(str(copy))) != model_fingerprint(ModelRef(str(folder)))


def test_parameters_are_counted_without_weights(folder, tmp_path):
    copy = shutil.copytree(folder, tmp_path / "copy", ignore=shutil.ignore_patterns("*.safetensors"))
    model = load_model(ModelRef(str(folder)))
    assert count_parameters(ModelRef(str(copy))) == sum(p.numel() for p in model.parameters())


def test_the_vocabulary_ends_where_the_tokenizer_does(folder):
    ref = ModelRef(str(folder))
    assert load_config(ref).vocab_size == vocabulary_size(load_tokenizer(ref)) + 5


@pytest.mark.parametrize("path", ["./absent", "/no/such/model", "absent.gguf", "~/no/such/folder/at/all"])
def test_a_local_path_that_does_not_exist_is_named(path):
    with pytest.raises(FileNotFoundError, match="does not exist"):
        load_model(ModelRef(path))


def test_a_hub_id_that_cannot_be_had_says_what_to_do():
    with pytest.raises(ValueError, match=r"Cannot load the weights of nobody/nothing .*--set pivot.path="):
        load_model(ModelRef("nobody/nothing"))


@pytest.fixture(scope="module")
def gguf_file(tmp_path_factory):
    """A tiny Llama as GGUF, the model it was made from, and its tokenizer."""
    file = tmp_path_factory.mktemp("gguf") / "tiny.gguf"
    return file, *gguf_files.write(file)


def test_a_gguf_file_is_the_model_it_was_made_from_and_can_be_saved(gguf_file, tmp_path):
    file, original, tokenizer = gguf_file
    ref = ModelRef(str(file))
    loaded = load_model(ref)
    text = "how much is 12 + 30? naïve 北京"
    ids = load_tokenizer(ref)(text, add_special_tokens=False)["input_ids"]
    assert ids == tokenizer(text, add_special_tokens=False)["input_ids"]
    torch.testing.assert_close(
        loaded(torch.tensor([ids])).logits, original(torch.tensor([ids])).logits, atol=1e-4, rtol=1e-4
    )
    loaded.save_pretrained(tmp_path)
    again = load_model(ModelRef(str(tmp_path)))
    assert all(torch.equal(a, b) for a, b in zip(again.parameters(), loaded.parameters(), strict=True))


def test_a_gguf_file_is_known_by_its_contents(gguf_file, tmp_path):
    copy = shutil.copy(gguf_file[0], tmp_path / "other.gguf")
    assert model_fingerprint(ModelRef(str(copy))) == model_fingerprint(ModelRef(str(gguf_file[0])))
    assert count_parameters(ModelRef(str(copy))) == sum(p.numel() for p in gguf_file[1].parameters())


def loaded(ref):
    return load_tokenizer(ref), count_parameters(ref)


@pytest.mark.parametrize(
    ("name", "spoil", "message"),
    [
        (
            "tokenizer.json",
            lambda text: text.replace('"BPE"', '"BQE"'),
            "tokenizer.json is damaged or of another version",
        ),
        ("tokenizer.json", lambda text: text[:500], "Cannot load the tokenizer"),
        (
            "tokenizer_config.json",
            lambda text: text.replace('"model_max_length": ', '"model_max_length": {}, "y": '),
            "should be a number of tokens",
        ),
        ("config.json", lambda text: text.replace('"hidden_size": 32', '"hidden_size": "x"'), "hidden_size"),
        ("config.json", lambda text: text.replace('"hidden_size": 32', '"hidden_size": null'), "hidden_size"),
        (
            "config.json",
            lambda text: text.replace('"num_attention_heads": 2', '"num_attention_heads": 0'),
            "Cannot load the",
        ),
    ],
)
def test_a_damaged_file_of_a_model_is_a_sentence_with_the_folder(folder, tmp_path, name, spoil, message):
    copy = shutil.copytree(folder, tmp_path / "copy")
    whole = (copy / name).read_text()
    (copy / name).write_text(spoil(whole))
    assert (copy / name).read_text() != whole
    with pytest.raises(ValueError, match=f"(?s){copy}.*{message}|{message}.*{copy}"):
        loaded(ModelRef(str(copy)))
