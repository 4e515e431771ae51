"""A run whose answers a function of the user's judges: what it is given, what its file is to the run, when it is read."""

import json
import shutil

import pytest

from fusion import pipeline
from fusion.plan import plan
from fusion.stages.context import CHOSEN, RunContext
from fusion.stages.limits.refuse import refuse_plan
from fusion.stages.respond import answers, choose
from tests.helpers import runs

EVEN = "def right(prompts, completions, domain):\n    return [each == 0 for each in domain]\n"


def config(folder, source=EVEN, name="judged", **check):
    file = folder / f"{name}.py"
    if source is not None:
        file.write_text(source)
    raw = runs.raw(folder, name=name)
    how = {"max_new_tokens": 5, "truncated": "keep", "fallback": "reference"}
    raw["data"]["responses"] = {"kind": "best_source", **how}
    check = {"kind": "function", "path": str(file), "name": "right", "columns": ["domain"], **check}
    raw["data"]["train"] = [data | {"check": check} for data in raw["data"]["train"]]
    return runs.loading.parse(raw, "test")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("judged")


@pytest.fixture(scope="module")
def judged(folder):
    return pipeline.run(config(folder), "respond")


def test_the_function_decides_by_columns_of_the_data(judged):
    counts = json.loads((judged / "run.json").read_text())["responses"]
    assert {(c["domain"], c["answers"], c["passed"]) for c in counts} == {("d0", 8, 8), ("d1", 8, 0)}


def test_a_run_that_is_started_again_judges_nothing(folder, judged, monkeypatch):
    monkeypatch.setattr(choose, "judged_responses", None)
    pipeline.run(config(folder), "respond")


def test_an_edited_function_is_told_from_the_one_that_chose_and_chooses_anew(folder):
    chosen = pipeline.run(config(folder, name="edited"), "respond") / CHOSEN
    edited = config(folder, EVEN.replace("== 0", "== 1"), name="edited")
    with pytest.raises(
        ValueError, match=r"responses/chosen was made from something else: checks.*delete .*chosen and run"
    ):
        pipeline.run(edited, "respond")
    shutil.rmtree(chosen)  # as the message says
    pipeline.run(edited, "respond")
    counts = json.loads((edited.folder / "run.json").read_text())["responses"]
    assert {(c["domain"], c["passed"]) for c in counts} == {("d0", 0), ("d1", 8)}


def test_other_values_in_its_columns_are_told_from_those_it_chose_by(folder):
    made, file = config(folder, EVEN.replace("domain", "note"), name="noted", columns=["note"]), folder / "train.jsonl"
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    for note in (0, 1):
        file.write_text("".join(f"{json.dumps(row | {'note': note})}\n" for row in rows))
        if note == 0:
            pipeline.run(made, "respond")
    with pytest.raises(ValueError, match=r"responses/chosen was made from something else: examples"):
        pipeline.run(made, "respond")


def test_a_file_that_changes_while_it_judges_chooses_nothing(folder):
    source = "def right(prompts, completions, domain):\n    open(__file__, 'a').write('# \\n')\n    return [1] * len(prompts)\n"
    made = config(folder, source, name="changing")
    with pytest.raises(ValueError, match=r"A file of a check was changed while it was judging answers"):
        pipeline.run(made, "respond")
    assert not (made.folder / CHOSEN / "done.json").exists()
    pipeline.run(config(folder, EVEN, name="changing"), "respond")


@pytest.mark.parametrize(("source", "message"), [
    (None, r"data.train\[0\].check names .*absent.py, which is not there"),
    ("def other(): pass", "absent.py has no function right; it has other"),
])  # fmt: skip
def test_a_function_that_is_not_there_is_said_before_any_source_writes(folder, monkeypatch, source, message):
    monkeypatch.setattr(answers, "source_request", None)
    with pytest.raises(ValueError, match=message):
        pipeline.run(config(folder, source, name="absent"), "respond")


def test_a_plan_names_a_file_that_is_not_there_and_runs_none(folder):
    context = RunContext(config(folder, None, name="planned"))
    assert any("planned.py, which is not there" in each for each in refuse_plan(context))
    plan(RunContext(config(folder, "raise SystemExit", name="planned")))
