"""Searching merge weights: the minimum of a known bowl, and of bits per byte on real little models."""

import json
import math
import os
import threading

import pytest

from fusion.data.datasets import load
from fusion.merging.recipes.merge_recipe import parse_recipe
from fusion.merging.recipes.search_settings import GridSearch, NelderMead
from fusion.merging.search import (
    check_disjoint,
    count_trials,
    initial_weights,
    is_searched,
    merge_again,
    merge_recipe,
    minimize_score,
    search_and_merge,
)
from tests.helpers import tiny
from tests.helpers.families import WEIGHTS, edit_weights, tree


def bowl(weights):
    return (weights[0] - 0.5) ** 2 + 2 * (weights[1] - 0.8) ** 2


def test_the_simplex_finds_the_bottom_of_a_bowl():
    trials = minimize_score(bowl, [0.3, 0.3], NelderMead(evaluations=80))
    assert trials.best == pytest.approx((0.5, 0.8), abs=0.01)
    assert len(trials.scores) <= 80
    assert next(iter(trials.scores)) == (0.3, 0.3)


def test_a_grid_tries_every_combination_once_and_the_start():
    tried = []
    trials = minimize_score(lambda w: tried.append(w) or bowl(w), [0.3, 0.3], GridSearch(values=[0.0, 0.5, 0.75]))
    assert len(tried) == len(set(tried)) == 10
    assert trials.best == (0.5, 0.75)


def test_the_best_is_never_worse_than_the_start():
    assert minimize_score(lambda w: sum(w), [0.0, 0.0], GridSearch(values=[1.0])).best == (0.0, 0.0)


def test_weights_a_method_refuses_count_as_worst():
    assert minimize_score(lambda w: math.inf if w[0] < 0.4 else w[0], [0.5], NelderMead(evaluations=30)).best[0] >= 0.4


# On real little models


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Two children of a base: one that is worse than it on everything, one like it; and a recipe that weighs them alike."""
    folder = tmp_path_factory.mktemp("search")
    for name in ("base", "good", "bad"):
        tiny.folder("llama", folder / name)
    spoil(folder / "bad")
    rows = [{"prompt": f"{i}: ", "response": text} for i, text in enumerate(tiny.TEXTS[:4])]
    (folder / "dev.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    (folder / "test.jsonl").write_text(json.dumps(rows[2]))
    return folder


def spoil(folder):
    def louder(tensors):
        tensors["lm_head.weight"] *= 6  # sure of itself, and wrong

    edit_weights(folder, louder)


def recipe_with_search(folder):
    search = {
        "validation": {"path": str(folder / "dev.jsonl")},
        "algorithm": {"kind": "grid", "values": [0.0, 0.5, 1.0]},
    }
    models = [str(folder / "good"), str(folder / "bad")]
    raw = {"base_model": str(folder / "base"), "models": models, "method": "linear", "search": search}
    return parse_recipe(raw, "r.yaml")


def examples(file):
    return load(str(file), domain="validation")


def test_a_search_leaves_out_the_model_that_makes_it_worse(trained, tmp_path):
    recipe = recipe_with_search(trained)
    assert not is_searched(recipe, tmp_path / "out")
    assert search_and_merge(recipe, tmp_path / "out", examples(trained / "dev.jsonl")).created
    record = json.loads((tmp_path / "out/search.json").read_text())
    assert record["best"][1] == 0
    assert record["best"][0] > 0
    assert len(record["trials"]) == 8  # of nine pairs, 0 and 0 is refused by the method, and the start is one of them
    scores = {tuple(trial["weights"]): trial["bits_per_byte"] for trial in record["trials"]}
    assert min(scores.values()) == scores[tuple(record["best"])]
    assert json.loads((tmp_path / "out/merge.json").read_text())["method"]["weights"] == record["best"]
    assert not (tmp_path / ".out.trial").exists()
    assert is_searched(recipe, tmp_path / "out")
    assert not is_searched(recipe.model_copy(update={"dtype": "bfloat16"}), tmp_path / "out")
    assert not merge_again(recipe, tmp_path / "out").created
    spoiled = tmp_path / "out" / WEIGHTS
    spoiled.write_bytes(spoiled.read_bytes()[:-1])
    with pytest.raises(FileExistsError, match="is gone or changed; remove the folder"):
        merge_again(recipe, tmp_path / "out")


# Where it writes


def unscored(monkeypatch, during=lambda: None):
    """Let candidates be merged, not read; `during` is called while one is scored."""
    monkeypatch.setattr("fusion.merging.search.bits_per_byte", lambda *_: (during(), 1.0)[1])


@pytest.mark.parametrize("existed", [False, True])
def test_a_search_holds_its_output_from_the_first_merge_to_the_last(trained, tmp_path, monkeypatch, existed):
    out, refused = tmp_path / "out", []
    if existed:
        out.mkdir()

    def another_thread():
        with pytest.raises(BlockingIOError, match=rf"out is being written by process {os.getpid()} on"):
            merge_recipe(recipe_with_search(trained), out)
        refused.append(True)

    def another():
        thread = threading.Thread(target=another_thread)
        thread.start()
        thread.join()

    unscored(monkeypatch, another)
    assert search_and_merge(recipe_with_search(trained), out, []).created
    assert refused == [True] * 8
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert not [path.name for path in out.iterdir() if path.name.startswith(".")]
    assert (out / "search.json").is_file()


def test_a_search_into_another_merge_is_refused_before_it_tries_one(trained, tmp_path, monkeypatch):
    unscored(monkeypatch, lambda: pytest.fail("it was tried"))
    merge_recipe(recipe_with_search(trained), tmp_path / "out")
    before = tree(tmp_path / "out")
    with pytest.raises(FileExistsError, match="out holds a merge that this search did not make; give another folder"):
        search_and_merge(recipe_with_search(trained), tmp_path / "out", [])
    with pytest.raises(ValueError, match="lies in the input .*good"):
        search_and_merge(recipe_with_search(trained), trained / "good" / "out", [])
    assert tree(tmp_path / "out") == before


def test_what_a_killed_search_left_goes_and_what_is_not_its_own_stays(trained, tmp_path, monkeypatch):
    unscored(monkeypatch)
    for name in ("candidate", ".candidate.partial"):
        (tmp_path / ".out.trial" / name).mkdir(parents=True)
    assert search_and_merge(recipe_with_search(trained), tmp_path / "out", []).created
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    (tmp_path / ".other.trial").mkdir()
    (tmp_path / ".other.trial/mine.txt").write_text("mine")
    with pytest.raises(FileExistsError, match=r".other.trial is in the way, and no merge has made it; move it away"):
        search_and_merge(recipe_with_search(trained), tmp_path / "other", [])
    assert (tmp_path / ".other.trial/mine.txt").read_text() == "mine"


def test_a_search_says_beforehand_how_many_merges_it_tries_at_most(trained):
    recipe = recipe_with_search(trained)
    assert count_trials(recipe) == 10  # three values for each of two weights, and the start
    search = recipe.search.model_copy(update={"algorithm": NelderMead(evaluations=7)})
    assert count_trials(recipe.model_copy(update={"search": search})) == 7


def test_validation_examples_may_not_be_test_examples(trained):
    dev, test = examples(trained / "dev.jsonl"), examples(trained / "test.jsonl")
    check_disjoint(dev[:2], test)
    with pytest.raises(ValueError, match="1 of 4 validation examples are test examples too"):
        check_disjoint(dev, test)


def test_what_has_no_single_number_a_model_is_not_searched(trained):
    plain = {"base_model": "b", "models": ["x", "y"]}
    with pytest.raises(ValueError, match="sce has no weights to search for"):
        initial_weights(parse_recipe(plain | {"method": "sce"}, "r"))
    varied = {"kind": "ties", "weights": [{"layers": [0, 1]}, 1]}
    with pytest.raises(ValueError, match="A search starts from one number a model"):
        initial_weights(parse_recipe(plain | {"method": varied}, "r"))
    assert initial_weights(parse_recipe(plain | {"method": "slerp"}, "r")) == [0.5]
    assert initial_weights(parse_recipe(plain | {"method": "task_arithmetic"}, "r")) == [0.3, 0.3]
