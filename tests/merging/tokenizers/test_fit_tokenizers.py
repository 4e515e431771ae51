"""Which tokenizer a merge takes, which names of tokens then hold, and what is said of those that it does not take."""

import json
from pathlib import Path

import pytest

from fusion.merging.files.checkpoint import Checkpoint
from fusion.merging.tokenizers.fit_tokenizers import fit_tokenizers
from tests.helpers.families import save_tiny_llama
from tests.helpers.tiny_tokenizers import byte_level

END, START = "<|im_end|>", "<|im_start|>"
"""Added tokens 2 and 1 of the tokenizers here."""


@pytest.fixture(scope="module")
def grown(tmp_path_factory):
    """A base and two models of it, of one tokenizer."""
    folder = tmp_path_factory.mktemp("tokenizers")
    for number, name in enumerate(("base", "m1", "m2")):
        save_tiny_llama(folder / name, seed=number, vocab_size=len(byte_level()))
        byte_level().save_pretrained(folder / name)
    return folder


@pytest.fixture
def folders(grown, tmp_path, monkeypatch):
    """Links to their weights beside copies of the rest, in the current folder."""
    monkeypatch.chdir(tmp_path)
    for name in ("base", "m1", "m2"):
        Path(name).mkdir()
        for file in (grown / name).iterdir():
            copy = Path(name, file.name)
            copy.symlink_to(file) if file.suffix == ".safetensors" else copy.write_bytes(file.read_bytes())
    return tmp_path


def fit(source=None, *, pad=False, base="base", models=("m1", "m2")):
    opened = [Checkpoint.open(Path(name)) for name in models]
    return fit_tokenizers(Checkpoint.open(Path(base)), opened, source and Path(source), pad=pad)


def edit(name, change):
    """Change the tokenizer.json of a folder."""
    file = Path(name, "tokenizer.json")
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))


def rename(name, old, new):
    for file in (Path(name, "tokenizer.json"), Path(name, "tokenizer_config.json"), Path(name, "chat_template.jinja")):
        file.write_text(file.read_text().replace(old, new))


def without_tokenizer(*names):
    for name in names:
        Path(name, "tokenizer.json").unlink()


def test_one_tokenizer_needs_no_words(folders):
    fitted = fit()
    assert (fitted.source, fitted.is_base_named, fitted.notes) == (None, False, ())


# Renamed tokens


@pytest.mark.parametrize("source", ["base", "m1", "m2"])
def test_renamed_tokens_are_refused_until_a_source_says_whose_names_hold(folders, source):
    rename("m1", END, "<|User|>")
    rename("m1", START, "<|Assistant|>")
    message = (
        r"m1: token 1 is '<|Assistant|>', the base base has '<|im_start|>' (2 tokens differ); --tokenizer-source base or m1 "
        "merges renamed tokens by their ids, with the names that one has"
    )
    with pytest.raises(ValueError) as caught:
        fit()
    assert message in str(caught.value)
    fitted = fit(source)
    assert fitted.is_base_named == (source == "base")
    assert source == "base" if fitted.source is None else fitted.source.folder == Path(source)
    role = "the base" if source == "base" else "the source of the tokenizer"
    mine = "1 is '<|Assistant|>' ('<|im_start|>'), 2 is '<|User|>' ('<|im_end|>')"
    theirs = "1 is '<|im_start|>' ('<|Assistant|>'), 2 is '<|im_end|>' ('<|User|>')"
    others, listed = (["base", "m2"], theirs) if source == "m1" else (["m1"], mine)
    assert [note for note in fitted.notes if "other names" in note] == [
        f"{other} calls tokens by other names than {role} {source} does (in brackets): {listed}. They are merged by their ids, "
        f"and the result has the names of {source}."
        for other in others
    ]


def swap(content):
    for token in content["added_tokens"]:
        token["content"] = {END: START, START: END}.get(token["content"], token["content"])


def change_a_piece(content):
    vocab = content["model"]["vocab"]
    piece = next(piece for piece, index in vocab.items() if index == 300)
    vocab["changed"] = vocab.pop(piece)


@pytest.mark.parametrize("change", [swap, change_a_piece])
def test_tokens_that_have_moved_and_pieces_of_words_are_not_renamed(folders, change):
    edit("m1", change)
    for source in (None, "base", "m1"):
        with pytest.raises(ValueError, match=r"m1: token \d+ is '[^;]*\d tokens differ\)$"):
            fit(source)


def test_a_renamed_token_beside_one_that_is_absent_has_both_ways_out(folders):
    rename("m1", END, "<|User|>")
    edit("m1", lambda content: content["added_tokens"].append({"id": 400, "content": "<new>"}))
    with pytest.raises(
        ValueError, match=r"\(2 tokens differ\); --vocabulary pad lets [^;]*; --tokenizer-source base or m1"
    ):
        fit()
    with pytest.raises(
        ValueError, match=r"\(1 tokens differ\); --vocabulary pad lets one have tokens the other lacks$"
    ):
        fit("base")
    assert len(fit("base", pad=True).notes) == 1


# What is said of tokenizers that are not taken


def test_tokenizers_that_cannot_be_compared_are_named(folders):
    without_tokenizer("m1")
    Path("m1/tokenizer.model").write_text("other")
    unlisted, note = fit().notes
    assert "no tokenizer.json: 1 is '<|im_start|>', 2 is '<|im_end|>'. They are taken to be the same" in unlisted
    assert note == (
        "m1 has tokenizer.model, and the base base has tokenizer.json: whether these mean the same tokens by the same ids "
        "could not be compared. They are taken to, and the result has the tokenizer of base."
    )
    [*_, note] = fit("m2").notes
    assert note.startswith("m1 has tokenizer.model, and the source of the tokenizer m2 has tokenizer.json")
    assert note.endswith("the result has the tokenizer of m2.")


def test_a_file_of_both_is_enough_to_compare(folders):
    without_tokenizer("m1")
    for name in ("base", "m1"):
        Path(name, "tokenizer.model").write_text("one")
    Path("m1/special_tokens_map.json").write_text(json.dumps({"additional_special_tokens": [START, {"content": END}]}))
    assert fit().notes == ()


def test_models_without_a_tokenizer_are_named_together(folders):
    without_tokenizer("m1", "m2")
    assert fit().notes == ("m1 and m2: without tokenizer; the tokens are taken to be those of the base base.",)


def test_a_base_without_a_tokenizer_gives_none_and_the_way_out_is_named(folders):
    without_tokenizer("base")
    assert fit().notes[0] == (
        "base has no tokenizer, and neither has the result; --tokenizer-source m1 takes the one there."
    )
    assert fit("m1").notes == (
        "base: without tokenizer; the tokens are taken to be those of the source of the tokenizer m1.",
    )


def test_nothing_is_said_where_nobody_has_a_tokenizer(folders):
    without_tokenizer("base", "m1", "m2")
    for name in ("base", "m1", "m2"):
        Path(name, "chat_template.jinja").unlink()
    assert fit().notes == ()


def test_tokenizers_that_split_texts_otherwise_are_named(folders):
    edit("m1", lambda content: content["model"]["merges"].pop())
    edit("m2", lambda content: content.update(normalizer={"type": "NFC"}))
    expected = (
        "{} may split texts into other tokens than {} does: they differ in {}. The result has the tokenizer of {}."
    )
    assert fit().notes == (
        expected.format("m1", "the base base", "merges", "base"),
        expected.format("m2", "the base base", "normalizer", "base"),
    )
    source = "the source of the tokenizer m1"
    assert fit("m1").notes == (
        expected.format("base", source, "merges", "m1"),
        expected.format("m2", source, "merges, normalizer", "m1"),
    )


def test_merges_in_a_file_of_their_own_split_texts_too(folders):
    without_tokenizer("base", "m1")
    for name in ("base", "m1"):
        Path(name, "vocab.json").write_text("{}")
        Path(name, "merges.txt").write_text(name)
    assert any("they differ in merges.txt. The result has" in note for note in fit(models=["m1"]).notes)


@pytest.mark.parametrize("name", ["tekken.json", "tokenizer.model", "qwen.tiktoken"])
def test_a_file_that_other_programs_read_is_named_where_it_differs(folders, name):
    for folder in ("base", "m1", "m2"):
        Path(folder, name).write_text("other" if folder == "m1" else "one")
        Path(folder, "merges.txt").write_text(folder)
    assert fit().notes == (
        f"m1 has another {name} than the base base, though the tokens of tokenizer.json agree; the result has that of base.",
    )
