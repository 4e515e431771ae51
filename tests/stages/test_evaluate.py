"""Which models of a run are put to the held-out examples."""

import pytest

from fusion.stages.context import RunContext
from fusion.stages.evaluate import original_models
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
