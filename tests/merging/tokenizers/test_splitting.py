"""Tokenizers of one vocabulary that make other tokens of a text, held against what the tokenizers make of it."""

import json

import pytest

from fusion.merging.tokenizers.splitting import splitting_differences
from tests.helpers.tiny_tokenizers import byte_level, llama_style
from tokenizers import Tokenizer

TEXT = " The cat's  12345 tasks"


def write(folder, tokenizer, edit=lambda content: None):
    """A tokenizer.json, changed."""
    content = json.loads(tokenizer.backend_tokenizer.to_str())
    edit(content)
    folder.mkdir()
    (folder / "tokenizer.json").write_text(json.dumps(content))
    return folder / "tokenizer.json"


def without_last_merges(content):
    content["model"]["merges"] = content["model"]["merges"][:-60]


def split_at_digits(content):
    content["pre_tokenizer"] = {
        "type": "Sequence", "pretokenizers": [{"type": "Digits", "individual_digits": True}, content["pre_tokenizer"]]
    }  # fmt: skip


def lower(content):
    content["normalizer"] = {"type": "Lowercase"}


def strip_added(content):
    content["added_tokens"][1]["lstrip"] = True


def begin_with_end(content):
    content["post_processor"] = {
        "type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "<|endoftext|>", "type_id": 0}},
        {"Sequence": {"id": "A", "type_id": 0}}], "pair": [{"Sequence": {"id": "A", "type_id": 0}}],
        "special_tokens": {"<|endoftext|>": {"id": "<|endoftext|>", "ids": [0], "tokens": ["<|endoftext|>"]}},
    }  # fmt: skip


EDITS = {
    "merges": without_last_merges, "pre_tokenizer": split_at_digits, "normalizer": lower, "added_tokens": strip_added,
    "post_processor": begin_with_end,
}  # fmt: skip


@pytest.mark.parametrize("part", EDITS)
def test_each_part_that_changes_the_tokens_of_a_text_is_named(tmp_path, part):
    first, second = write(tmp_path / "a", byte_level()), write(tmp_path / "b", byte_level(), EDITS[part])
    assert splitting_differences(first, second) == splitting_differences(second, first) == [part]
    text = f"{TEXT} <|im_start|>"
    ids = [Tokenizer.from_file(str(file)).encode(text).ids for file in (first, second)]
    assert ids[0] != ids[1]


def as_old_releases_wrote(content):
    content["model"]["merges"] = [" ".join(pair) for pair in content["model"]["merges"]]
    content["padding"] = {
        "strategy": {"Fixed": 8}, "direction": "Right", "pad_to_multiple_of": None, "pad_id": 0, "pad_type_id": 0,
        "pad_token": "<unk>",
    }  # fmt: skip
    content["model"].pop("ignore_merges", None)


@pytest.mark.parametrize("tokenizer", [byte_level, llama_style])
def test_other_ways_to_write_the_same_are_no_difference(tmp_path, tokenizer):
    files = write(tmp_path / "a", tokenizer()), write(tmp_path / "b", tokenizer(), as_old_releases_wrote)
    assert files[0].read_bytes() != files[1].read_bytes()
    assert splitting_differences(*files) == []


def test_scores_of_the_pieces_that_both_have_are_compared(tmp_path):
    pieces = [["<unk>", 0.0], ["a", -1.0], ["aa", -2.5], ["b", -2.0]]
    files = []
    for name, own in (("a", pieces), ("b", [*pieces[:2], ["aa", -1.5], pieces[3]]), ("c", [*pieces, ["c", -3.0]])):
        content = {"model": {"type": "Unigram", "unk_id": 0, "vocab": own, "byte_fallback": False}}
        (tmp_path / name).mkdir()
        files.append(tmp_path / name / "tokenizer.json")
        files[-1].write_text(json.dumps({"version": "1.0", "added_tokens": []} | content))
    assert splitting_differences(files[0], files[1]) == ["scores"]
    assert splitting_differences(files[0], files[2]) == []


def test_files_that_the_library_cannot_read_are_compared_as_they_are(tmp_path):
    files = [tmp_path / name for name in ("a.json", "b.json", "c.json")]
    for file, kind in zip(files, ("New", "New", "Newer"), strict=True):
        file.write_text(json.dumps({"model": {"type": kind, "vocab": {"a": 0}}, "padding": file.name}))
    assert splitting_differences(*files[:2]) == []
    assert splitting_differences(files[0], files[2]) == ["type"]
