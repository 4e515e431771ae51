"""Which models of a run are put to the held-out examples."""

import pytest

from fusion import pipeline
from fusion.stages import evaluate
from fusion.stages.context import RunContext
from fusion.stages.evaluate import original_models
from fusion_eval.results import Result
from tests.helpers import runs


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("measured")


def measured(folder, **settings):
    raw = runs.raw(folder)
    raw["data"]["responses"] = "best_source"
    raw["sources"][1] = {"name": "itself", "path": raw["pivot"]["path"], **settings}
    return original_models(RunContext(runs.loading.parse(raw, "test")))


def test_a_source_that_is_the_pivot_is_measured_once_with_it(folder):
    assert measured(folder) == ["pivot", "neox"]


def test_the_pivot_with_a_prompt_of_its_own_is_measured_beside_it(folder):
    assert measured(folder, shots="1 + 1 = 2\n") == ["pivot", "neox", "itself"]


def test_none_where_a_run_measures_what_it_trained_alone(folder):
    raw = runs.raw(folder) | {"evaluation": {"original_models": False}}
    assert original_models(RunContext(runs.loading.parse(raw, "test"))) == []


def test_runs_that_share_a_store_measure_a_model_once(tmp_path, monkeypatch):
    """Their results are equal but for the names and folders of the models."""
    configs = [
        runs.config(tmp_path, name=name, store=str(tmp_path / "store"), strategies=["unified"]) for name in ("a", "b")
    ]
    pipeline.run(configs[0], "evaluate")
    monkeypatch.setattr(evaluate.heldout, "score", None)
    monkeypatch.setattr(evaluate, "_provenance", lambda _: {"versions": {"torch": "another"}, "seed": 0})
    pipeline.run(configs[1], "evaluate")
    for model in ("pivot", "neox", "qwen", "fine-tuned", "unified"):
        one, other = (Result.load(each.folder / "eval" / model / "heldout.json") for each in configs)
        assert (one.samples, one.model, one.provenance) == (other.samples, model, other.provenance)
    assert str(configs[1].folder) in other.path


def test_originals_are_measured_before_a_run_and_by_it_no_more(tmp_path, monkeypatch, capsys):
    config = runs.config(tmp_path, strategies=["unified"])
    pipeline.evaluate_originals(config)
    table = capsys.readouterr().out
    assert "than pivot" in table
    assert not (config.folder / "train").exists()
    before = {name: Result.load(config.folder / "eval" / name / "heldout.json") for name in ("pivot", "neox", "qwen")}
    measured_now = []
    score = evaluate.heldout.score
    monkeypatch.setattr(
        evaluate.heldout, "score", lambda ref, *a, **k: measured_now.append(ref.path) or score(ref, *a, **k)
    )
    pipeline.run(config, "evaluate")
    assert "What this run will take" in capsys.readouterr().out
    assert [path.split("/")[-2] for path in measured_now] == ["fine-tuned", "unified"]
    for name, result in before.items():
        assert Result.load(config.folder / "eval" / name / "heldout.json") == result


def test_originals_that_a_run_does_not_measure_are_refused(tmp_path):
    config = runs.config(tmp_path, evaluation={"original_models": False})
    with pytest.raises(ValueError, match=r"evaluation\.original_models is false, .* set it to true\."):
        pipeline.evaluate_originals(config)
    assert not config.folder.exists()
