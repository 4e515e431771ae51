"""Texts longer than a model reads are named with their row, before anything is computed."""

import json

import pytest

from fusion import pipeline
from fusion.stages.context import RunContext
from fusion.stages.limits.refuse import refuse_limits
from tests.helpers import runs


def shortened(folder, name: str, tokens: int):
    """Let a model of the helper's run read so many tokens at most."""
    file = runs.models(folder)[name] / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"max_position_embeddings": tokens}))


def refused(folder, **changes) -> str:
    with pytest.raises(ValueError) as error:
        refuse_limits(RunContext(runs.config(folder, **changes)))
    return str(error.value)


@pytest.mark.parametrize("name", ["pivot", "neox", "qwen"])
def test_texts_longer_than_any_model_reads_are_counted_and_the_first_is_named(tmp_path, name):
    shortened(tmp_path, name, 25)
    said = refused(tmp_path, evaluation={})
    line = next(line for line in said.splitlines() if "training examples" in line)
    assert line.startswith("pivot (" if name == "pivot" else f"source {name} (")
    assert "reads at most 25 tokens (max_position_embeddings)" in line
    assert "begins 'number " in line
    assert "Set data.max_length to 25 or less" in line


def test_training_texts_that_data_max_length_cuts_short_enough_are_no_mistake(tmp_path):
    shortened(tmp_path, "qwen", 200)
    raw = runs.raw(tmp_path)
    refuse_limits(RunContext(runs.config(tmp_path, data=raw["data"] | {"max_length": 40})))


def test_heldout_texts_are_not_cut_and_so_are_named(tmp_path):
    raw = runs.raw(tmp_path)
    shortened(tmp_path, "qwen", 40)
    said = refused(tmp_path, data=raw["data"] | {"max_length": 40}, evaluation={})
    assert "training" not in said
    assert "of the held-out examples are longer: the first (" in said
    assert "begins 'number 10" in said


def test_a_source_that_is_not_evaluated_reads_no_heldout_text(tmp_path):
    raw = runs.raw(tmp_path)
    shortened(tmp_path, "qwen", 40)
    config = runs.config(tmp_path, data=raw["data"] | {"max_length": 40}, evaluation={"original_models": False})
    refuse_limits(RunContext(config))


def with_validation(folder, text: str, **data):
    """Data with one validation example whose prompt is this text."""
    (folder / "validation.jsonl").write_text(json.dumps({"prompt": text, "response": "a"}))
    return runs.raw(folder)["data"] | {
        "validation": [{"path": str(folder / "validation.jsonl"), "domain": "d0"}],
        **data,
    }


def test_validation_prompts_that_leave_the_pivot_no_room_are_named_and_sources_do_not_read_them(tmp_path):
    said = refused(tmp_path, data=with_validation(tmp_path, "dog " * 100, max_length=60))
    assert "1 of 1 validation prompts leave no room for a response within 60 tokens" in said
    assert "source" not in said


def test_validation_texts_longer_than_the_pivot_reads_are_named_and_sources_may_read_less(tmp_path):
    raw = with_validation(tmp_path, "dog " * 120)
    shortened(tmp_path, "qwen", 90)
    refuse_limits(RunContext(runs.config(tmp_path, data=raw, evaluation={})))
    shortened(tmp_path, "pivot", 90)
    said = refused(tmp_path, data=raw, evaluation={})
    assert "of the validation examples are longer: the first (" in said
    assert "Set data.max_length to 90 or less" in said


def test_answers_that_have_no_room_behind_their_prompts_are_named(tmp_path):
    said = refused(tmp_path, evaluation={"exact_match": ["d0"], "max_new_tokens": 250})
    assert "for 3 of 3 held-out prompts evaluation.max_new_tokens = 250 leaves no room" in said


def test_answers_of_sources_have_room_behind_the_training_prompts(tmp_path):
    raw = runs.raw(tmp_path)
    responses = {"kind": "best_source", "max_new_tokens": 250}
    said = refused(tmp_path, data=raw["data"] | {"responses": responses}, evaluation={})
    assert "16 training prompts data.responses.max_new_tokens = 250 leaves no room" in said
    assert said.count("training prompts") == 2  # the two sources write, the pivot does not


def test_worked_examples_in_front_of_a_prompt_count(tmp_path):
    raw = runs.raw(tmp_path)
    shots = "".join(f"number {i}: {i * 7}\n" for i in range(40))
    sources = [raw["sources"][0] | {"shots": shots}, raw["sources"][1]]
    said = refused(tmp_path, sources=sources, data=raw["data"] | {"max_length": 100}, evaluation={})
    assert "source neox" in said
    assert "source qwen" not in said
    assert "Shorten what is in front of the prompts (shots" in said


def test_a_run_refuses_before_its_folder_is_there(tmp_path):
    shortened(tmp_path, "qwen", 40)
    with pytest.raises(ValueError, match="source qwen"):
        pipeline.run(runs.config(tmp_path))
    assert not (tmp_path / "runs" / "small" / "cache").exists()
