"""One over-long prompt among many is named with its row, or left out for all models and counted."""

import json

import pytest

from fusion import pipeline
from fusion.config.models import FineTune
from fusion.stages.context import RunContext
from fusion.stages.limits.refuse import refuse_limits
from tests.helpers import runs

LONG = "number 777: " * 60


def context(folder, part: str = "train", long: str = LONG, **settings) -> RunContext:
    """The helper's run with over-long prompts in the middle of one part of its data."""
    settings = {"max_length": 100, "filter_overlong_prompts": True} | settings
    config = runs.config(folder, data=runs.raw(folder)["data"] | settings, evaluation={})
    file = folder / ("train.jsonl" if part == "train" else "heldout.jsonl")
    lines = file.read_text().splitlines()
    more = [json.dumps({"prompt": f"{long}{n}", "response": f"yes {n}", "domain": 0}) for n in range(2)]
    file.write_text("\n".join([*lines[:3], *more, *lines[3:]]))
    return RunContext(config)


def test_overlong_prompts_are_counted_and_the_first_is_named_with_its_row(tmp_path):
    with pytest.raises(ValueError) as error:
        refuse_limits(context(tmp_path, filter_overlong_prompts=False))
    said = str(error.value)
    assert "2 of 18 training prompts leave no room for a response within 100 tokens: the first (" in said
    assert "train.jsonl, line 4, begins 'number 777" in said
    assert "data.filter_overlong_prompts: true" in said


@pytest.mark.parametrize("part", ["train", "heldout"])
def test_overlong_prompts_are_left_out_for_all_models_and_counted(tmp_path, part):
    ours = context(tmp_path, part)
    refuse_limits(ours)
    assert [len(ours.train_examples), len(ours.heldout_examples)] == [16, 6]
    sets = ours.data.training if part == "train" else ours.data.heldout
    (left_out,) = [one for each in sets for one in each.left_out if "too long" in one.reason]
    assert (left_out.count, left_out.first.endswith("line 4")) == (2, True)
    assert left_out.reason.startswith(
        "too long for pivot (100 tokens" if part == "train" else "too long for pivot (256 t"
    )
    assert "2 rows left out: too long for pivot" in "".join(each.describe() for each in sets)


def test_what_one_source_alone_cannot_read_is_left_out_for_all(tmp_path):
    ours = context(tmp_path, max_length=1000)
    file = runs.models(tmp_path)["qwen"] / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"max_position_embeddings": 90}))
    for name in ("pivot", "neox"):
        other = runs.models(tmp_path)[name] / "config.json"
        other.write_text(json.dumps(json.loads(other.read_text()) | {"max_position_embeddings": 4000}))
    assert {name: len(ours.encoded(name)) for name in ours.models} == dict.fromkeys(["pivot", "neox", "qwen"], 16)
    (left_out,) = [one for each in ours.data.training for one in each.left_out if "too long" in one.reason]
    assert left_out.reason == "too long for source qwen (90 tokens at most)"


def test_where_nothing_is_left_it_is_said(tmp_path):
    with pytest.raises(ValueError, match="filter_overlong_prompts leaves nothing of .*train.jsonl.*too long for pivot"):
        _ = context(tmp_path, max_length=2).train_examples


def test_prompts_without_room_for_answers_are_left_out_where_answers_are_written(tmp_path):
    settings = {"max_length": 1000, "responses": {"kind": "best_source", "max_new_tokens": 200}}
    ours = context(tmp_path, long=LONG[:300], **settings).planned
    left_out = [one for each in ours.data.training for one in each.left_out if "too long" in one.reason]
    assert (len(ours.original_examples), sum(one.count for one in left_out)) == (16, 2)
    assert len(ours.baseline_context.train_examples) == 16
    refuse_limits(ours)


def test_a_source_that_is_fine_tuned_first_reads_what_all_read(tmp_path):
    shortened = json.loads((runs.models(tmp_path)["qwen"] / "config.json").read_text()) | {
        "max_position_embeddings": 90
    }
    (runs.models(tmp_path)["qwen"] / "config.json").write_text(json.dumps(shortened))
    ours = context(tmp_path, long=LONG[:200], max_length=200)
    sources = [ours.config.sources[0].model_copy(update={"fine_tune": FineTune()}), ours.config.sources[1]]
    tuned = RunContext(ours.config.model_copy(update={"sources": sources}))
    (alone,) = tuned.fine_tunings(sources[0]).values()
    assert len(alone.train_examples) == len(tuned.train_examples) == 16


def test_a_run_says_what_it_left_out(tmp_path):
    folder = pipeline.run(context(tmp_path).config, "extract")
    recorded = json.loads((folder / "run.json").read_text())["data"]["sets"]
    assert [one["count"] for each in recorded for one in each["left_out"] if "too long" in one["reason"]] == [2]
