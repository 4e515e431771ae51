"""What is said of models before a run begins."""

import shutil

from fusion.runtime.run_file import RunFile
from fusion.stages.context import RunContext
from fusion.stages.hardware import hardware
from fusion.stages.lineage import lineage, same_models
from tests.helpers import runs


def test_a_source_that_is_another_again_is_told(tmp_path):
    raw = runs.raw(tmp_path)
    copy = shutil.copytree(raw["sources"][0]["path"], tmp_path / "copy")
    raw["sources"] += [
        {"name": "again", "path": str(copy)},
        {"name": "shown", "path": str(copy), "shots": "1 + 1 = 2\n"},
    ]
    context = RunContext(runs.loading.parse(raw, "test"))
    assert same_models(context) == [
        "Source again is the same model as neox, read alike: it teaches nothing that neox does not."
    ]


def test_a_source_that_is_the_pivot_is_told_unless_it_answers_or_says_something_else(tmp_path):
    raw = runs.raw(tmp_path)
    copy = shutil.copytree(raw["pivot"]["path"], tmp_path / "pivot-copy")
    raw["sources"] = [
        {"name": "start", "path": str(copy)},
        {"name": "swapped", "path": str(copy), "transforms": [{"kind": "logit_swap"}]},
    ]
    (said,) = same_models(RunContext(runs.loading.parse(raw, "test")))
    assert said.startswith("Source start is the pivot itself: it holds the pivot to what it was")
    raw["data"]["responses"] = "best_source"
    assert same_models(RunContext(runs.loading.parse(raw, "test"))) == []


def test_what_a_run_computes_on_is_kept(tmp_path):
    facts = lineage(RunContext(runs.loading.parse(runs.raw(tmp_path), "test")))
    assert RunFile.model_validate(facts).hardware == hardware()
