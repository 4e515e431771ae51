"""A run, a merge and an evaluation from Python; and what importing the package costs and offers."""

import importlib
import json
import pkgutil
import shutil
import subprocess
import sys
import types

import pytest

import fusion
from fusion.config import loading
from tests.helpers import runs, tiny


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    return fusion.run(runs.raw(tmp_path_factory.mktemp("run")))


def test_a_run_gives_its_folder_its_results_and_rows_for_pandas(finished):
    assert (finished.fused / "config.json").is_file()
    assert finished.report.is_file()
    assert finished.record["versions"]
    assert "pivot" in finished.results
    rows = finished.table()
    assert {row["model"] for row in rows} == set(finished.results)
    assert {"model", "domain", "metric", "value", "low", "high", "n"} == rows[0].keys()
    assert all(row["low"] <= row["value"] <= row["high"] for row in rows)


def test_the_examples_of_a_run_are_those_of_its_caches(finished):
    cache = fusion.Cache(finished.folder / "cache/pivot")
    assert {example.id for example in finished.examples} == set(cache.ids)
    assert finished.examples[0].response


def test_it_runs_twice_in_one_process_and_does_nothing_again(finished, capsys):
    again = fusion.run(finished.config, until="evaluate")  # a report is made each time
    assert again.table() == finished.table()
    assert fusion.Run(fusion.load_config(finished.folder / "config.yaml")).table() == finished.table()


def test_a_run_is_found_again_by_its_folder_wherever_that_is_now(finished, tmp_path):
    assert fusion.Run(str(finished.folder)) == finished
    moved = fusion.Run(shutil.copytree(finished.folder, tmp_path / "moved.here", symlinks=True))
    assert moved.folder == tmp_path / "moved.here"
    assert moved.table() == finished.table()
    with pytest.raises(ValueError, match=r"is no folder of a run \(it has no config.yaml\). Give the one"):
        fusion.Run(tmp_path)


@pytest.mark.parametrize("overrides", [{"seed": 3}, {"training": {"max_steps": 7}}, {"training.max_steps": 7}], ids=str)
def test_values_are_changed_by_place_or_by_nested_keys(tmp_path, overrides):
    raw = runs.raw(tmp_path)
    config = fusion.load_config(raw, overrides)
    assert (config.seed, config.training.get("max_steps")) in {
        (3, raw["training"].get("max_steps")),
        (raw.get("seed", 0), 7),
    }
    assert raw == runs.raw(tmp_path)  # what was given is not changed
    assert fusion.load_config(fusion.load_config(raw), overrides) == config


def test_an_entry_of_a_list_is_a_place_by_its_name(tmp_path):
    raw = runs.raw(tmp_path)
    name = raw["sources"][0]["name"]
    assert fusion.load_config(raw, {f"sources.{name}.path": "elsewhere/model"}).sources[0].path == "elsewhere/model"
    with pytest.raises(loading.ConfigError, match="no entry nobody; there are"):
        fusion.load_config(raw, {"sources.nobody.path": "x"})
    with pytest.raises(loading.ConfigError, match=r"overrides\['sede'\]: unknown key sede"):
        fusion.load_config(raw, {"sede": 1})


def test_the_recipe_that_the_docstring_names_is_there():
    assert fusion.load_config("quickstart", {"seed": 1}).seed == 1


def test_a_merge_and_an_evaluation(tmp_path):
    folders = [tiny.folder("llama", tmp_path / name, seed=seed) for seed, name in enumerate("abc")]
    base, one, other = map(str, folders)
    merged = fusion.merge("task_arithmetic", base, {one: 0.5, other: 0.25}, tmp_path / "out")
    assert json.loads((merged / "merge.json").read_text())["method"]["weights"] == [0.5, 0.25]
    with pytest.raises(ValueError, match=r"merge: .*densiti"):
        fusion.merge("ties", base, [one, other], tmp_path / "two", densiti=0.5)
    rows = [{"prompt": "a", "response": "the lazy dog"}, {"prompt": "b", "response": "lines"}]
    result = fusion.evaluate(merged, rows, exact_match=["data"], max_new_tokens=4)
    assert [sample.exact_match for sample in result.samples] == [False, False]
    with pytest.raises(ValueError, match="exact_match names maths; the domains of the examples are data"):
        fusion.evaluate(merged, rows, exact_match=["maths"])
    with pytest.raises(ValueError, match="exact_match is 'data'; it is a list"):
        fusion.evaluate(merged, rows, exact_match="data")
    scores = fusion.summarise(result)
    assert scores["data"]["bits_per_byte"].n == 2
    difference = fusion.compare(result, fusion.evaluate(base, rows, exact_match=["data"], max_new_tokens=4))
    assert difference["data"]["bits_per_byte"].value != 0


def test_importing_is_quick_in_what_it_imports():
    code = "import sys, fusion; print(sorted({'torch', 'transformers', 'numpy', 'pydantic'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"


def test_no_public_name_is_a_module_after_every_module_was_imported():
    for module in pkgutil.walk_packages(fusion.__path__, "fusion."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    rooms = [module for name, module in sys.modules.items() if name.split(".")[0] in ("fusion", "fusion_eval")]
    names = [(room, name) for room in rooms for name in getattr(room, "__all__", ())]
    assert len(names) > 200
    assert [
        f"{room.__name__}.{name}" for room, name in names if isinstance(getattr(room, name), types.ModuleType)
    ] == []
    assert set(fusion.__all__) <= set(dir(fusion))


def test_an_unknown_name_is_an_error_that_lists_the_public_ones():
    with pytest.raises(AttributeError, match=r"no attribute 'fuse'.*run"):
        fusion.fuse  # noqa: B018


def test_a_stage_that_is_none_is_refused_with_those_that_are(tmp_path):
    with pytest.raises(ValueError, match="until is 'training'; a run goes until respond, extract, train"):
        fusion.run(runs.raw(tmp_path), until="training")
