"""Examples are encoded once: kept in the run's folder, read by every later context, made again from anything else."""

import hashlib
import json
from dataclasses import replace
from typing import Any

import pytest

from fusion.data.encode import encode_prompt, tokens_digest
from fusion.stages.context import RunContext
from fusion.stages.encodings import examples as encoding
from fusion.stages.prompts import encode_example, heldout_prompts_digest, prompt_format, prompt_formats
from tests.helpers import runs


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where the models and the data lie."""
    return tmp_path_factory.mktemp("encodings")


@pytest.fixture
def config(folder, tmp_path):
    """A run that has a folder and nothing in it."""
    found = runs.config(folder, runs=str(tmp_path))
    found.folder.mkdir(parents=True)
    return found


def never(*_args, **_kwargs):
    raise AssertionError("encoded again")


def kept(config, name="pivot"):
    """The folders in which texts of a model are kept."""
    return sorted((config.folder / "tokens" / name).glob("*")) if (config.folder / "tokens").exists() else []


def test_all_models_encode_all_examples_as_one_by_one(config):
    context = RunContext(config)
    for name in context.models:
        limit = config.data.max_length
        wanted = [encode_example(context, name, each, each.messages, limit) for each in context.extracted_examples]
        assert list(context.encoded(name)) == wanted
        assert tokens_digest(context.encoded(name)) == tokens_digest(wanted)


def test_a_second_context_reads_what_the_first_has_kept(config, monkeypatch):
    first = RunContext(config).encoded("pivot")
    monkeypatch.setattr(encoding, "encode_batch", never)
    assert list(RunContext(config).encoded("pivot")) == list(first)
    assert len(kept(config)) == 1


@pytest.mark.parametrize(
    "change",
    [
        {"data.max_length": 24},
        {"pivot.template": "plain"},
        {"pivot.answer_prefix": "\n"},
        {"data.train.0.limit": 2},
    ],
)
def test_what_is_made_from_something_else_is_encoded_again(config, folder, tmp_path, change):
    RunContext(config).encoded("pivot")
    raw = runs.raw(folder, runs=str(tmp_path))
    for path, value in change.items():
        *way, last = (int(part) if part.isdigit() else part for part in path.split("."))
        place: Any = raw
        for part in way:
            place = place[part]
        place[last] = value
    other = runs.loading.parse(raw, "test")
    assert other.folder == config.folder
    RunContext(other).encoded("pivot")
    assert len(kept(config)) == 2


def test_another_tokenizer_in_the_same_place_encodes_again(config, folder):
    RunContext(config).encoded("pivot")
    file = runs.models(folder)["pivot"] / "tokenizer_config.json"
    before = file.read_text()
    try:
        file.write_text(json.dumps(json.loads(before) | {"note": "changed"}))
        RunContext(config).encoded("pivot")
    finally:
        file.write_text(before)
    assert len(kept(config)) == 2


def test_a_plan_keeps_nothing_and_reads_what_is_kept(config, monkeypatch):
    planned = replace(RunContext(config), for_plan=True)
    planned.encoded("pivot")
    assert kept(config) == []
    whole = RunContext(config).encoded("pivot")
    monkeypatch.setattr(encoding, "encode_batch", never)
    assert list(replace(RunContext(config), for_plan=True).encoded("pivot")) == list(whole)


def test_nothing_is_kept_before_the_run_has_a_folder(folder, tmp_path):
    config = runs.config(folder, runs=str(tmp_path / "none"))
    assert len(RunContext(config).encoded("pivot"))
    assert not (tmp_path / "none").exists()


def test_a_prompt_that_leaves_no_room_is_named_with_its_file_and_row(folder, tmp_path):
    file = tmp_path / "train.jsonl"
    rows = [{"prompt": "Why?", "response": "Because."}, {"prompt": "long " * 99, "response": "x"}]
    file.write_text("\n".join(json.dumps(row) for row in rows))
    raw = runs.raw(folder, runs=str(tmp_path))
    raw["data"] |= {"train": [{"path": str(file), "domain": "a"}], "max_length": 48}
    with pytest.raises(ValueError, match=r"train\.jsonl, line 2: .*leaves no room"):
        RunContext(runs.loading.parse(raw, "test")).encoded("pivot")
    assert not list(tmp_path.rglob("*.part"))


def test_the_digest_of_heldout_prompts_is_that_of_each(config):
    context, digest = RunContext(config), hashlib.sha256()
    for each in context.heldout_examples:
        form = prompt_format(context, "pivot", each)
        digest.update(f"{encode_prompt(context.tokenizers['pivot'], each.messages, prompt_format=form).ids}".encode())
    assert heldout_prompts_digest(context, "pivot") == digest.hexdigest()[:16]


def test_examples_share_a_format_only_where_it_is_the_same(config):
    context = RunContext(config)
    formats, first = prompt_formats(context, "pivot"), context.train_examples[0]
    tool = ({"type": "function", "function": {"name": "f"}},)
    others = [first, replace(first, tools=tool), replace(first, template="plain"), replace(first, domain="other")]
    for example in [*others, *others]:
        assert formats(example, example.messages) == prompt_format(context, "pivot", example)
    assert formats(first, first.messages) is formats(first, first.messages)
