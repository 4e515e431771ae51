"""Sources that read a richer prompt than the pivot: what they see, and that nothing else changes with it."""

from __future__ import annotations

import dataclasses
import json

import pytest
import torch

from fusion import pipeline
from fusion.config.loading import ConfigError
from fusion.data import datasets
from fusion.data.encode import encode_prompt, truncate_rows
from fusion.stages import train
from fusion.stages.context import RunContext
from fusion.stages.lineage import lineage
from fusion.training import TrainingCollator
from fusion.weighting import Mean
from tests.helpers import runs

RICH = "{last_message} It ends in: {response}"


def config(folder, look_ahead=RICH, looks=("neox",), **changes):
    raw = runs.raw(folder)
    for source in raw["sources"]:
        source["look_ahead"] = source["name"] in looks
    for data in raw["data"]["train"]:
        data["look_ahead"] = look_ahead
    return runs.config(folder, sources=raw["sources"], data=raw["data"] | changes.pop("data", {}), **changes)


def collated(context, caches):
    sources = [train.training_source(context, name, cache) for name, cache in caches.items() if name != "pivot"]
    return TrainingCollator(context.train_examples, context.encoded("pivot"), sources, Mean())(range(8))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("ahead")


@pytest.fixture(scope="module")
def made(folder):
    """Jobs with their caches: nobody looks ahead, one source does, one does and sees another text."""
    jobs = {
        "plain": RunContext(runs.config(folder, name="plain")),
        "rich": RunContext(config(folder, name="rich")),
        "other": RunContext(config(folder, look_ahead="{last_message}!", name="other")),
    }
    for context in jobs.values():
        context.record.update(**lineage(context))
    return {name: (context, pipeline.extract(context)) for name, context in jobs.items()}


def test_the_source_that_looks_ahead_reads_the_richer_prompt_and_only_that_source_does(made):
    context, _ = made["rich"]
    first = context.train_examples[0]
    prompts = {name: context.encoded(name)[0].input_ids[: context.encoded(name)[0].start] for name in context.models}
    rich = [{"role": "user", "content": f"{first.prompt} It ends in: {first.response}"}]
    for name, messages in {"pivot": first.messages, "qwen": first.messages, "neox": rich}.items():
        assert prompts[name] == encode_prompt(context.tokenizers[name], messages).ids


def test_every_prompt_leaves_the_same_rows_in_the_same_places_and_other_numbers(made):
    for name in ("rich", "other"):
        for source in ("neox", "qwen", "pivot"):
            plain, rich = (made[which][1][source].rows(made["plain"][0].ids) for which in ("plain", name))
            assert torch.equal(plain.prefix, rich.prefix)
            assert torch.equal(plain.example, rich.example)
            assert torch.equal(plain.logprobs, rich.logprobs) == (source != "neox")


def test_the_pivots_batch_is_the_same_whatever_sources_are_shown(made):
    batches = {name: collated(context, caches) for name, (context, caches) in made.items()}
    plain = batches.pop("plain")
    for batch in batches.values():
        for name in ("input_ids", "attention_mask"):
            assert torch.equal(batch[name], plain[name])
        assert torch.equal(batch["targets"].hidden_index, plain["targets"].hidden_index)
        for field in dataclasses.fields(plain["targets"].positions):
            ours, theirs = (getattr(each["targets"].positions, field.name) for each in (batch, plain))
            assert ours is theirs is None or torch.equal(ours.nan_to_num(), theirs.nan_to_num())
        for name, source in plain["targets"].sources.items():
            assert torch.equal(batch["targets"].sources[name].pairs.pivot, source.pairs.pivot)
        assert not torch.equal(batch["targets"].sources["neox"].rows.gold, plain["targets"].sources["neox"].rows.gold)


def test_both_prompts_are_in_the_key_of_that_sources_cache_alone(made):
    keys = {which: {name: cache.key for name, cache in caches.items()} for which, (_, caches) in made.items()}
    for source in ("pivot", "qwen"):
        assert keys["plain"][source] == keys["rich"][source] == keys["other"][source]
    assert len({keys[which]["neox"]["prompts"]["tokens"] for which in keys}) == 3
    assert {name for name in keys["rich"]["neox"] if keys["rich"]["neox"][name] != keys["plain"]["neox"].get(name)} == {
        "prompts"
    }


def test_a_prompt_that_is_the_same_gives_the_same_records_to_the_byte(made, folder):
    same = RunContext(config(folder, look_ahead="{last_message}", name="same"))
    same.record.update(**lineage(same))
    caches, plain = pipeline.extract(same), made["plain"][1]
    for name, cache in caches.items():
        files = sorted(file.name for file in cache.folder.iterdir())
        assert files == sorted(file.name for file in plain[name].folder.iterdir())
        for file in files:
            assert (cache.folder / file).read_bytes() == (plain[name].folder / file).read_bytes()


def test_a_response_is_cut_where_it_would_be_behind_the_ordinary_prompt(folder):
    limit = {"max_length": 30}
    plain, rich = (
        RunContext(
            make(folder, data=runs.raw(folder)["data"] | limit) if make is runs.config else make(folder, data=limit)
        )
        for make in (runs.config, config)
    )
    cut = [text.truncated for text in plain.encoded("neox")]
    assert 0 < sum(cut) < len(cut)
    for ours, theirs in zip(rich.encoded("neox"), plain.encoded("neox"), strict=True):
        assert (ours.prefix, ours.truncated, ours.num_rows) == (theirs.prefix, theirs.truncated, theirs.num_rows)
        assert ours.input_ids[ours.start :] == theirs.input_ids[theirs.start :]
        assert ours.start > theirs.start
    text = rich.encoded("neox")[0]
    assert truncate_rows(text, text.num_rows + 3) == text


def test_the_last_message_is_the_one_that_is_filled_in(tmp_path):
    turns = [{"role": r, "content": c} for r, c in [("system", "s"), ("user", "a"), ("assistant", "b")]]
    (tmp_path / "x.jsonl").write_text(json.dumps({"talk": turns, "text": "one two three", "note": "n"}))
    (example,) = datasets.load(
        str(tmp_path / "x.jsonl"), domain="d", messages="talk", look_ahead="{note}: {last_message}"
    )
    assert example.look_ahead == (turns[0], {"role": "user", "content": "n: a"})
    (example,) = datasets.load(
        str(tmp_path / "x.jsonl"), domain="d", prompt="", response="{text}", template="plain", look_ahead="{note}"
    )
    assert (example.messages, example.look_ahead) == ((), ({"role": "user", "content": "n"},))
    with pytest.raises(ValueError, match="no column 'hint'"):
        datasets.load(str(tmp_path / "x.jsonl"), domain="d", messages="talk", look_ahead="{hint}")


def test_what_is_shown_and_who_looks_must_go_together(folder):
    with pytest.raises(
        ConfigError, match=r"data.train\[0\] has look_ahead, which no source reads; set look_ahead: true"
    ):
        config(folder, looks=())
    raw = runs.raw(folder)
    raw["sources"][1]["look_ahead"] = True
    with pytest.raises(ConfigError, match="source qwen has look_ahead, and no data set in data.train says what"):
        runs.config(folder, sources=raw["sources"])
    raw = runs.raw(folder)
    raw["data"]["heldout"][1]["look_ahead"] = "{response}"
    with pytest.raises(ConfigError, match=r"data.heldout\[1\] has look_ahead, and nothing may look ahead there"):
        runs.config(folder, data=raw["data"])


def test_validation_examples_are_read_ahead_where_their_data_set_says_so(folder):
    path = runs.write_data(folder, "validation.jsonl", 4, start=300)
    given = {"path": path, "domain": "d0", "prompt": "{prompt}", "response": "{response}"}
    weighting = {"kind": "learned", "per": "all"}
    for look_ahead in (RICH, None):
        data = {"validation": [given | ({"look_ahead": look_ahead} if look_ahead else {})]}
        context = RunContext(config(folder, data=data, weighting=weighting, name="validated"))
        text, plain = (context.encoded(name)[-1].start for name in ("neox", "pivot"))
        whole = encode_prompt(context.tokenizers["neox"], context.validation_examples[-1].messages).ids
        assert (text > len(whole)) == (look_ahead is not None)
        assert plain == len(encode_prompt(context.tokenizers["pivot"], context.validation_examples[-1].messages).ids)


def test_a_source_that_never_reads_a_prompt_cannot_look_ahead(folder):
    raw = runs.raw(folder)
    raw["sources"][0] |= {"look_ahead": True, "backend": {"kind": "similarity"}}
    raw["data"]["train"][0]["look_ahead"] = RICH
    with pytest.raises(
        ConfigError, match="source neox has look_ahead, and its backend similarity never reads a prompt"
    ):
        runs.config(folder, sources=raw["sources"], data=raw["data"])


def test_an_example_that_comes_twice_with_different_texts_is_refused(folder):
    raw = runs.raw(folder)
    train = [raw["data"]["train"][0] | {"look_ahead": text} for text in (RICH, "{last_message}")]
    context = RunContext(config(folder, data={"train": train}, name="twice"))
    with pytest.raises(ValueError, match=r"The example that begins 'number 0: ' is twice in the data"):
        context.encoded("neox")
    assert context.encoded("qwen")


def test_the_pivot_may_learn_from_itself_looking_ahead(folder):
    raw = runs.raw(folder)
    itself = {"name": "itself", "path": raw["pivot"]["path"], "look_ahead": True}
    train = [each | {"look_ahead": RICH} for each in raw["data"]["train"]]
    made = runs.config(
        folder, name="itself", sources=[itself], data=raw["data"] | {"train": train}, baseline=False,
        training=raw["training"] | {"max_steps": 1},
    )  # fmt: skip
    pipeline.run(made, until="train")
    (entry,) = json.loads((made.folder / "train/unified/log.json").read_text())
    assert entry["loss/forward_kl/itself"] > 1e-4
    assert entry["match/itself"] > 0.9  # a space put before the text has no row to match
