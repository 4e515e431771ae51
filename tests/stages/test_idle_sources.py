"""Sources whose predictions nothing learns from do not read the training data: no cache, no cost, and the same training."""

import json

import pytest
from safetensors.torch import load_file

from fusion import pipeline
from fusion.plan import plan
from fusion.report.html_page import write_report
from fusion.runtime.run_file import RunFile
from fusion.runtime.run_record import RunRecord
from fusion.stages.context import RunContext
from fusion.stages.lineage import idle_sources
from tests.helpers import runs

TEXT = [{"kind": "cross_entropy"}]
SHARES = {"kind": "learned"}


def config(folder, name, **changes):
    return runs.loading.parse(runs.raw(folder, name=name) | {"objectives": TEXT} | changes, "test")


def watched(folder, **changes):
    """With validation examples, on which `weighting: learned` finds its shares."""
    raw = runs.raw(folder)
    held = [
        {**each, "path": runs.write_data(folder, "validation.jsonl", 6, start=200)} for each in raw["data"]["heldout"]
    ]
    return {"data": {**raw["data"], "validation": held}, **changes}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("idle")


@pytest.fixture(scope="module")
def text_alone(folder):
    return pipeline.run(config(folder, "text"), "train")


def test_only_the_pivot_reads_where_the_text_alone_is_learned(text_alone):
    assert [each.name for each in (text_alone / "cache").iterdir()] == ["pivot"]
    found = RunFile.model_validate(RunRecord(text_alone).read())
    assert [each.name for each in found.stages if each.name.startswith("extract")] == ["extract pivot"]
    assert (found.helping, found.sources_read, json.loads((text_alone / "alignment.json").read_text())) == (
        [],
        False,
        [],
    )


def test_the_training_is_plain_fine_tuning(text_alone):
    fine_tuned, unified = (
        load_file(text_alone / "train" / name / "model" / "model.safetensors") for name in ("fine-tuned", "unified")
    )
    assert all(fine_tuned[name].equal(unified[name]) for name in fine_tuned)


def test_the_weight_of_the_term_is_the_runs_own(folder):
    pipeline.run(config(folder, "half", objectives=[{"kind": "cross_entropy", "weight": 0.5}]), "train")
    log = {
        name: json.loads((folder / "runs" / "half" / "train" / name / "log.json").read_text())[0]["loss"]
        for name in ("fine-tuned", "unified")
    }
    assert log["unified"] == pytest.approx(log["fine-tuned"] / 2)


@pytest.mark.parametrize(("changes", "reading"), [
    ({}, ["pivot"]),
    ({"objectives": [*TEXT, {"kind": "forward_kl", "weight": 0}]}, ["pivot"]),
    ({"objectives": [*TEXT, {"kind": "forward_kl"}]}, ["pivot", "neox", "qwen"]),
    ({"weighting": SHARES}, ["pivot"]),
])  # fmt: skip
def test_the_plan_counts_who_reads(folder, changes, reading):
    context = RunContext(config(folder, "planned", **(watched(folder) if "weighting" in changes else {}), **changes))
    stages = [each.stage for each in plan(context).stages]
    assert [stage.removeprefix("extract ") for stage in stages if stage.startswith("extract")] == reading


def test_sources_read_where_rounds_take_over_the_shares_that_are_found_on_their_rows(folder):
    rounds = {"objectives": [{"kind": "forward_kl"}, {"kind": "cross_entropy", "weight": 0.1}]}
    later = watched(folder, weighting=SHARES, rounds=rounds)
    later["data"]["responses"] = {"kind": "best_source"}
    assert config(folder, "later", **later).reads_sources
    assert not config(folder, "later", **later | {"weighting": {"kind": "sum"}}).reads_sources


def test_shares_that_nothing_asks_for_are_not_looked_for(folder, text_alone):
    run = pipeline.run(config(folder, "shares", **watched(folder, weighting=SHARES)), "train")
    rows = {each: RunFile.model_validate(RunRecord(each).read()).caches["pivot"].rows for each in (run, text_alone)}
    assert rows[run] == rows[text_alone]  # the training data, and no validation examples


def test_it_is_said_before_and_in_the_report(folder, text_alone):
    assert idle_sources(config(folder, "said")) == [
        "No objective learns what sources predict, so these do not read the training data: neox, qwen. They answer no prompts "
        "either, and are only measured beside it."
    ]
    answering = {**runs.raw(folder)["data"], "responses": {"kind": "best_source"}}
    assert idle_sources(config(folder, "said", data=answering)) == [
        "No objective learns what sources predict, so these do not read the training data: neox, qwen."
    ]
    assert idle_sources(config(folder, "said", objectives=[{"kind": "forward_kl"}])) == []
    page = write_report(text_alone).read_text()
    assert (
        page.count("Left out: no objective learns what sources predict, so they did not read the training data.") == 2
    )


def test_what_is_set_for_their_reading_and_changes_nothing_is_said(folder):
    text = {"objectives": [{"kind": "cross_entropy", "use_remaining_weight": True}]}
    given = text | {"weighting": {"kind": "mean"}, "alignment": "dtw", "extract": {"top_k": 20}}
    assert idle_sources(config(folder, "said", **given))[1:] == [
        "So weighting, alignment, extract.top_k, cross_entropy.use_remaining_weight change nothing here."
    ]
    assert idle_sources(config(folder, "said", **text))[1:] == [
        "So cross_entropy.use_remaining_weight changes nothing here."
    ]
