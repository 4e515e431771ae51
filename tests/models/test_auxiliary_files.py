"""Which files a model made from another takes over, and that a model from the hub has them: what is copied is downloaded."""

import json

import pytest
from huggingface_hub.utils import filter_repo_objects

from fusion.models.auxiliary_files import DOWNLOADED_PATTERNS, copy_auxiliary_files, find_auxiliary_files
from fusion.models.hub_folder import IGNORED, READ

TOKENIZERS = [
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "tokenizer.model",
    "tokenizer.model.v3", "spiece.model", "sentencepiece.bpe.model", "source.spm", "target.spm", "qwen.tiktoken",
    "tekken.json", "vocab.json", "vocab.txt", "vocab.bpe", "vocab-src.json", "target_vocab.json", "entity_vocab.json",
    "rwkv_vocab_v20230424.txt", "encoder.json", "merges.txt", "bpe.codes", "dict.txt", "normalizer.json", "emoji.json",
    "word_shape.json", "chat_template.jinja", "additional_chat_templates/tools.jinja", "SYSTEM_PROMPT.txt",
]  # fmt: skip
EMBEDDING = [
    "modules.json", "config_sentence_transformers.json", "sentence_bert_config.json", "sentence_xlm-roberta_config.json",
    "1_Pooling/config.json", "2_Dense/config.json", "2_Dense/model.safetensors", "3_Dense/pytorch_model.bin",
]  # fmt: skip
OTHERS = [
    "generation_config.json", "preprocessor_config.json", "LICENSE", "LICENCE.txt", "COPYING", "NOTICE.md", "USE_POLICY.md",
]  # fmt: skip
TAKEN = [*TOKENIZERS, *EMBEDDING, *OTHERS]
LEFT = [
    "config.json", "model.safetensors", "pytorch_model.bin", "README.md", "optimizer.pt", "trainer_state.json", "log.txt",
    "code.py", "1_epoch/model.safetensors", "checkpoint-10/config.json", "onnx/model.onnx",
]  # fmt: skip


def fill(folder, names):
    """A folder with these files, each of which holds its name."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(json.dumps(name))
    (folder / "modules.json").write_text(json.dumps([{"path": ""}, {"path": "1_Pooling"}]))
    (folder / "config.json").write_text("{}")
    (folder / "tokenizer_config.json").write_text("{}")


def names_in(folder, files):
    return {file.relative_to(folder).as_posix() for file in files}


def test_everything_but_weights_and_what_a_training_left_is_taken_over(tmp_path):
    fill(tmp_path / "a", [*TAKEN, *LEFT])
    assert names_in(tmp_path / "a", find_auxiliary_files(tmp_path / "a")) == set(TAKEN)
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "tekken.json").write_text("its own")
    copy_auxiliary_files(tmp_path / "a", tmp_path / "b")
    copied = {name: (tmp_path / "b" / name).read_bytes() for name in TAKEN}
    assert copied == {name: (tmp_path / "a" / name).read_bytes() for name in TAKEN}


@pytest.mark.parametrize("patterns", [READ, DOWNLOADED_PATTERNS], ids=["of a merge", "of an export"])
def test_what_is_taken_over_is_downloaded(patterns):
    found = filter_repo_objects(TAKEN, allow_patterns=list(patterns), ignore_patterns=IGNORED)
    assert set(found) == set(TAKEN)


def test_weights_and_code_of_a_merge_are_downloaded_once():
    names = [
        "model-00001-of-00002.safetensors",
        "model.safetensors.index.json",
        "config.json",
        "modeling.py",
        "README.md",
    ]
    copies = [
        "original/consolidated.00.pth",
        "consolidated.safetensors",
        "onnx/model.onnx",
        "pytorch_model.bin",
        "a.gguf",
    ]
    found = filter_repo_objects([*names, *copies], allow_patterns=READ, ignore_patterns=IGNORED)
    assert list(found) == names


def test_modules_are_those_that_their_list_names_whatever_they_are_called(tmp_path):
    fill(tmp_path, ["pooling/config.json", "pooling/inner/config.json", "2_Dense/config.json", "other/config.json"])
    (tmp_path / "modules.json").write_text(json.dumps([{"path": ""}, {"path": "pooling"}, {"path": "3_Normalize"}]))
    found = names_in(tmp_path, find_auxiliary_files(tmp_path))
    assert {name for name in found if "/" in name} == {
        "pooling/config.json", "pooling/inner/config.json", "2_Dense/config.json",
    }  # fmt: skip
    (tmp_path / "modules.json").unlink()
    assert not [name for name in names_in(tmp_path, find_auxiliary_files(tmp_path)) if "/" in name]


@pytest.mark.parametrize(
    ("modules", "message"),
    [
        ({"path": "1_Pooling"}, r"modules\.json should list modules, each with a path"),
        ([{"name": "0"}], r"modules\.json should list modules, each with a path"),
        ([{"path": "../other"}], r"modules\.json: the path '\.\./other' is not in the folder of the model"),
        ([{"path": "/etc"}], r"modules\.json: the path '/etc' is not in the folder of the model"),
    ],
)
def test_a_list_that_names_no_modules_of_the_model_is_refused(tmp_path, modules, message):
    fill(tmp_path, [])
    (tmp_path / "modules.json").write_text(json.dumps(modules))
    with pytest.raises(ValueError, match=message):
        find_auxiliary_files(tmp_path)
