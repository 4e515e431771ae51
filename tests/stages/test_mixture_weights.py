"""Shares of a mixture against scipy and known answers; found on validation rows; and a run that learns with them."""

from __future__ import annotations

import json
import math

import pytest
import torch
from scipy.optimize import minimize

from fusion import pipeline
from fusion.config.loading import ConfigError
from fusion.core.rows import LogitRows
from fusion.stages.context import RunContext
from fusion.stages.helping import Batch
from fusion.stages.mixture_weights import find_shares, mixture
from tests.helpers import runs


def likelihood(w, score):
    return (w[:, None] * score.exp()).sum(0).log().mean()


@pytest.mark.parametrize(("S", "n"), [(2, 5), (3, 40), (5, 200), (1, 3)])
def test_no_shares_are_better_than_those_that_are_found(S, n):
    score = torch.randn(S, n, dtype=torch.float64, generator=torch.Generator().manual_seed(S)) * 3
    found = mixture(score)
    assert found.sum().item() == pytest.approx(1)
    assert (found >= 0).all()
    best = minimize(
        lambda w: -likelihood(torch.tensor(w), score).item(),
        [1 / S] * S,
        bounds=[(0, 1)] * S,
        constraints={"type": "eq", "fun": lambda w: sum(w) - 1},
        options={"ftol": 1e-12},
    )
    assert likelihood(found, score).item() == pytest.approx(-best.fun, abs=2e-6)
    assert likelihood(found, score) > -best.fun - 2e-6


def test_models_that_each_know_their_own_text_share_by_its_amount():
    score = torch.full((3, 10), -50.0)
    for model, spans in enumerate([range(0, 2), range(2, 7), range(7, 10)]):
        score[model, list(spans)] = -1.0
    torch.testing.assert_close(mixture(score), torch.tensor([0.2, 0.5, 0.3], dtype=torch.float64), atol=1e-6, rtol=0)


def test_two_models_and_two_spans_are_solved_by_hand():
    """w p + (1-w) q with likelihoods (4, 1) and (1, 2): the derivative 3/(1+3w) = 1/(2-w) at w = 5/6."""
    score = torch.tensor([[4.0, 1.0], [1.0, 2.0]]).log()
    assert mixture(score)[0].item() == pytest.approx(5 / 6, abs=1e-3)


def test_a_model_that_is_nowhere_better_gets_nothing_and_equal_models_share_equally():
    score = torch.randn(1, 50, dtype=torch.float64)
    worse = mixture(torch.cat([score, score - 0.5]))
    assert worse[1].item() == pytest.approx(0, abs=1e-5)
    torch.testing.assert_close(mixture(score.expand(4, -1)), torch.full((4,), 0.25, dtype=torch.float64))


def test_a_factor_on_a_span_and_the_order_of_models_and_spans_change_nothing():
    score = torch.randn(3, 30, dtype=torch.float64) * 2
    known = mixture(score)
    torch.testing.assert_close(mixture(score + torch.randn(30) * 100), known)
    torch.testing.assert_close(mixture(score[:, torch.randperm(30)]), known)
    torch.testing.assert_close(mixture(score.flip(0)).flip(0), known, atol=1e-3, rtol=0)


def test_a_model_without_rows_of_an_example_takes_no_part_in_it():
    score = torch.tensor([[-1.0] * 4, [-math.inf, -math.inf, -0.5, -0.5]])
    w = mixture(score)
    assert w.isfinite().all()
    assert 0 < w[1] < 1


def text(example, prefix, gold):
    n = len(prefix)
    nan, gold = torch.full((n,), torch.nan), torch.tensor(gold)
    return LogitRows(
        gold[:, None],
        torch.zeros(n, 1).long(),
        gold,
        nan,
        nan,
        prefix=torch.tensor(prefix),
        example=torch.full((n,), example),
    )


def batch(domains=("a", "b")):
    """In `a` the source knows everything, in `b` nothing; its tokens are longer than the pivot's."""
    pivot = LogitRows.cat([text(e, [0, 1, 2, 4], [-2.0, -2.0, -2.0, -2.0]) for e in range(2)])
    source = LogitRows.cat([text(0, [0, 2, 4], [-0.1, -0.1, -0.1]), text(1, [0, 2, 4], [-9.0, -9.0, -9.0])])
    return Batch(pivot, {"s": source}, list(domains), {0: b"abcd", 1: b"abcd"})


def test_the_source_gets_the_domain_it_knows_and_the_pivot_the_other():
    found = find_shares([batch()], "prefix", by_domain=True)
    assert list(found) == ["a", "b"]
    assert found["a"] == [pytest.approx(1, abs=1e-3)]
    assert found["b"] == [pytest.approx(0, abs=1e-3)]
    (both,) = find_shares([batch()], "prefix", by_domain=False)["*"]
    assert both == pytest.approx(0.5, abs=0.1)


def test_batches_add_up_and_spans_run_from_boundary_to_boundary():
    one, other = batch(("a", "b")), batch(("b", "a"))
    assert find_shares([one, other], "prefix", True)["a"] == find_shares([other, one], "prefix", True)["a"]
    assert find_shares([one], "prefix", False) == find_shares([one, one], "prefix", False)


def validated(folder, **changes):
    raw = runs.raw(folder)
    path = runs.write_data(folder, "validation.jsonl", 8, start=200)
    validation = [{"path": path, "domain": f"d{i}", "where": {"domain": i}} for i in range(2)]
    weighting = {"weighting": {"kind": "learned"}}
    return runs.config(folder, **weighting | {"data": raw["data"] | {"validation": validation}} | changes)


def test_a_run_finds_shares_on_validation_examples_and_trains_with_them(tmp_path):
    config = validated(tmp_path, baseline=False)
    pipeline.run(config, until="train")
    context = RunContext(config)
    assert set(context.weighting.shares) == {"d0", "d1"}
    assert all(0 <= share <= 1 and len(each) == 2 for each in context.weighting.shares.values() for share in each)
    assert len(json.loads((config.folder / "cache/qwen/manifest.json").read_text())["ids"]) == 24
    helping = json.loads((config.folder / "run.json").read_text())["helping"]
    for row in helping:
        index = ["neox", "qwen"].index(row["source"])
        assert row["weight"] == pytest.approx(context.weighting.shares[row["domain"]][index], abs=1e-6)
        assert row["rows"] < 400
    log = json.loads((config.folder / "train/unified/log.json").read_text())
    weights = [entry["weight/qwen"] for entry in log if "loss" in entry]
    assert [entry["step"] for entry in log if "eval_bits_per_byte" in entry] == [0, 1, 2, 3, 4]
    low, high = sorted(each[1] for each in context.weighting.shares.values())
    assert all(low - 1e-6 <= weight <= high + 1e-6 for weight in weights)


def test_validation_changes_neither_what_is_trained_on_nor_the_number_of_steps(tmp_path):
    from fusion.plan import plan

    plain, more = RunContext(runs.config(tmp_path)), RunContext(validated(tmp_path))
    steps = [[stage.steps for stage in plan(context).stages if stage.steps] for context in (plain, more)]
    assert steps[0] == steps[1]
    assert [e.id for e in more.train_examples] == [e.id for e in plain.train_examples]
    extracted = [
        next(s.examples for s in plan(context).stages if s.stage == "extract qwen") for context in (plain, more)
    ]
    assert extracted == [16, 24]


UNWATCHED = {"training": {"max_steps": 2, "eval_strategy": "no"}}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"weighting": {"kind": "sum"}, **UNWATCHED}, "training.eval_strategy is no, or by weighting: learned"),
        ({"weighting": {"kind": "learned", "shares": {"*": [0.1, 0.2]}}, **UNWATCHED}, "data.validation is read while"),
        ({"data": {}}, "finds its shares on data.validation, which is empty"),
        ({"data": {"validation": [{"path": "v.jsonl", "domain": "d1"}]}}, "data.validation has none of d0; add it, or"),
    ],
)
def test_validation_data_without_use_and_use_without_validation_data_are_refused(tmp_path, changes, message):
    if "data" in changes:
        changes = {"data": runs.raw(tmp_path)["data"] | changes["data"]}
    with pytest.raises(ConfigError, match=message):
        validated(tmp_path, **changes)


def test_examples_that_are_trained_or_measured_on_are_refused_for_validation(tmp_path):
    raw = runs.raw(tmp_path)
    for which, name in (("train", "training"), ("heldout", "held-out")):
        config = validated(tmp_path, data=raw["data"] | {"validation": raw["data"][which]})
        with pytest.raises(ValueError, match=f"of .* validation examples ask what is also in the {name} data"):
            _ = RunContext(config).validation_examples


def test_one_step_in_a_run_learns_from_one_source(tmp_path):
    config = runs.config(
        tmp_path, weighting={"kind": "random_source", "probabilities": [0.5, 0.5], "start": 1}, baseline=False,
        training=runs.raw(tmp_path)["training"] | {"max_steps": 6},
    )  # fmt: skip
    pipeline.run(config, until="train")
    log = json.loads((config.folder / "train/unified/log.json").read_text())
    weights = [(entry["weight/neox"], entry["weight/qwen"]) for entry in log]
    assert weights[0] == (1.0, 0.0)
    assert set(weights) == {(1.0, 0.0), (0.0, 1.0)}
    assert all((entry["loss/forward_kl/qwen"] == 0) == (entry["weight/qwen"] == 0) for entry in log)
    assert {row["weight"] for row in json.loads((config.folder / "run.json").read_text())["helping"]} == {0.5}
