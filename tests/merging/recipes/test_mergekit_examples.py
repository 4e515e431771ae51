"""The forms of mergekit's examples run, or are refused with the reason that the table in docs/merging.md has."""

import re
from pathlib import Path

import pytest

from fusion.merging.recipes.merge_recipe import is_merge_recipe, load_recipe
from fusion.merging.search import merge_recipe
from tests.merging.recipes.golden_yaml import write_models
from tests.merging.recipes.mergekit_examples import EXAMPLES, RUNS

PAGE = (Path(__file__).parents[3] / "docs/merging.md").read_text()


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    write_models(folder)
    return folder


def rows():
    """The table of the page: names and what becomes of each."""
    section = PAGE.split("### Its examples\n")[1].split("\n## ")[0]
    return dict(re.findall(r"^\| (\S.*?) \| .*? \| (runs|refused)[^|]* \|$", section.replace("`", ""), re.MULTILINE))


def test_the_page_has_a_row_for_every_example_and_no_other():
    assert rows() == {name: "runs" if outcome == RUNS else "refused" for name, (_, outcome) in EXAMPLES.items()}


@pytest.mark.parametrize("name", [name for name, (_, outcome) in EXAMPLES.items() if outcome == RUNS])
def test_it_runs(name, models, monkeypatch):
    monkeypatch.chdir(models)
    (models / "m.yaml").write_text(EXAMPLES[name][0])
    merged = merge_recipe(load_recipe(models / "m.yaml"), models / f"out {name}", threads=1, show_progress=False)
    assert merged.created


@pytest.mark.parametrize("name", [name for name, (_, outcome) in EXAMPLES.items() if outcome != RUNS])
def test_it_is_refused_with_the_reason(name, models, monkeypatch):
    monkeypatch.chdir(models)
    (models / "m.yaml").write_text(EXAMPLES[name][0])
    with pytest.raises(ValueError, match=re.escape(EXAMPLES[name][1])):
        load_recipe(models / "m.yaml")


def test_files_of_its_other_tools_are_told_from_runs():
    assert is_merge_recipe({"base_model": "A", "gate_mode": "hidden", "experts": []})
    assert is_merge_recipe({"genome": {}, "tasks": []})
    assert is_merge_recipe({"models": [{"model": "A", "parameters": {}}]})
    assert not is_merge_recipe({"pivot": {}, "slices": []})
