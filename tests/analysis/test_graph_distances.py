"""`fusion inspect --graph`: bounds and POT's values on a small run's own rows."""

from __future__ import annotations

import sys

import pytest
import torch
from rich.console import Console

from fusion import pipeline
from fusion.analysis import graph_distances, graph_distances_by_source
from fusion.analysis.graph_distances import (
    ENTROPIC,
    EXACT,
    LOWER,
    ONE_START,
    UPPER,
    GraphDistances,
    compare_graphs,
    graph_settings,
)
from fusion.cache import Cache
from fusion.objectives import GromovWasserstein
from fusion.report.inspect_tables import graph_tables
from fusion.stages.context import RunContext
from tests.helpers import runs
from tests.helpers.rows import random_rows


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    config = runs.config(tmp_path_factory.mktemp("graphs"), objectives=[{"kind": "gld", "top_k": 6}])
    pipeline.run(config, until="extract")
    return config


@pytest.fixture(scope="module")
def found(config):
    return graph_distances_by_source(RunContext(config), sample=5)


def shown(distances: GraphDistances) -> str:
    console = Console(width=80)
    with console.capture() as capture:
        console.print(*graph_tables("neox", distances))
    return " ".join(capture.get().split())


def test_each_source_has_a_value_for_each_example_and_way_and_none_leaves_the_bounds(found):
    assert list(found) == ["neox", "qwen"]
    for distances in found.values():
        assert distances.nodes == 6
        assert distances.seconds.keys() == distances.values.keys() == {LOWER, EXACT, ONE_START, UPPER, ENTROPIC}
        lower, exact, one, upper = (distances.values[way] for way in (LOWER, EXACT, ONE_START, UPPER))
        assert lower.shape == (5,)
        assert (lower > 0).all()
        for below, above in ((lower, exact), (exact, one), (one, upper), (exact, distances.values[ENTROPIC])):
            assert (below <= above * (1 + 1e-9)).all()


def test_the_pivots_rows_are_those_of_its_cache_with_more_entries(config):
    context = RunContext(config)
    rows = graph_distances._pivot_rows(context, 5, 6)
    cached = Cache(config.folder / "cache" / "pivot").rows(context.ids[:5])
    assert (rows.k, cached.k) == (6, 1)
    assert torch.equal(rows.example.long(), cached.example.long())
    assert torch.equal(rows.ids[:, :1].long(), cached.ids.long())
    for name in ("mean", "std", "gold"):
        torch.testing.assert_close(getattr(rows, name), getattr(cached, name), atol=0.02, rtol=0.01)


def test_only_examples_with_rows_on_both_sides_are_compared():
    pivot, source = (random_rows(20, 6, 50, torch.float64, seed=s, examples=3) for s in (1, 2))
    values = compare_graphs(GromovWasserstein(top_k=4), pivot.select(pivot.example != 1), source, 3).values
    assert all(each.shape == (2,) for each in values.values())
    none = compare_graphs(GromovWasserstein(top_k=4), pivot.select(pivot.example > 5), source, 3)
    assert "no example has rows of the pivot and of this source" in shown(none)


def test_the_graph_is_that_of_the_runs_objective_and_never_larger_than_a_solver_takes(config, tmp_path):
    assert graph_settings(RunContext(config)).top_k == 6
    large = {"kind": "gromov_wasserstein", "nodes": "token", "top_nodes": 3000, "input": "probabilities"}
    term = graph_settings(RunContext(runs.config(tmp_path, objectives=[large])))
    assert (term.nodes, term.top_nodes, term.input) == ("token", 100, "probabilities")
    assert graph_settings(RunContext(runs.config(tmp_path))) == GromovWasserstein()


def test_the_table_and_its_sentence_say_how_much_a_search_gains():
    values = {LOWER: [0.5, 1.0], EXACT: [1.0, 2.0], UPPER: [1.0, 4.0]}
    same = GraphDistances(4, {way: torch.tensor(v) for way, v in values.items()}, dict.fromkeys(values, 0.25))
    text = shown(same)
    assert "+100.0%" in text
    assert "-50.0%" in text
    assert (
        "no better matching than the sorted one in 1 of 2 examples; elsewhere `solver: pot` finds a distance up to 50%"
        in text
    )
    same.values[UPPER] = same.values[EXACT]
    assert "in 2 of 2 examples: `solver: pot` would change nothing here" in shown(same)


def test_what_is_absent_is_named(config, tmp_path, monkeypatch):
    early = runs.config(tmp_path)
    with pytest.raises(ValueError, match="holds no complete cache"):
        graph_distances_by_source(RunContext(early))
    wide = config.model_dump(mode="json") | {"objectives": [{"kind": "forward_kl"}]}
    wide["extract"]["top_k"], wide["name"] = 3, "narrow"
    narrow = runs.loading.parse(wide, "narrow")
    pipeline.run(narrow, until="extract")
    with pytest.raises(ValueError, match="keeps 3 entries of each row, and the graphs are of the 10 largest. Extract"):
        graph_distances_by_source(RunContext(narrow))
    alone = runs.loading.parse(wide | {"name": "alone", "objectives": [{"kind": "cross_entropy"}]}, "alone")
    with pytest.raises(ValueError, match="has not read the training data of run alone, for no objective learns"):
        graph_distances_by_source(RunContext(alone))
    monkeypatch.setitem(sys.modules, "ot", None)
    with pytest.raises(ValueError, match=r"pip install 'logit-fusion\[gw\]'"):
        graph_distances_by_source(RunContext(config))
