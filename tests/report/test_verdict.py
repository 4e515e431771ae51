"""What is said of the fused model and of each source follows from the numbers, also where they disappoint."""

import html

import pytest

from fusion.report.html_page import write_report
from fusion.report.model_card import model_card
from fusion.report.run_contents import helping_rows, read_run
from fusion.report.verdict import EQUAL, helping_verdict, suite_verdict, verdict
from fusion_eval.results import Result, Sample
from fusion_eval.statistics.comparison import compare
from tests.helpers.report_runs import change, result, run_json, write_run


def measured(model: str, nats: float, right: float, domains: tuple[str, ...] = ("sums",)) -> Result:
    """50 items of each domain with about `nats` each, of which the share `right` is answered right."""
    items = [
        Sample(
            id=f"{d}{i:02}",
            domain=d,
            bytes=1,
            nll=nats + 0.01 * (i % 5),
            exact_match=i < 50 * right,
            prompt="",
            target="2",
        )
        for d in domains
        for i in range(50)
    ]
    return Result(model=model, suite="heldout", path=model, provenance={}, samples=items)


@pytest.mark.parametrize(
    ("nats", "right", "outcome", "words"),
    [
        (0.5, 0.9, "better", "fused is better than plain in the one domain of heldout."),
        (1.5, 0.1, "worse", "fused is worse than plain"),
        (1.0, 0.5, "no different", "fused is not shown to differ from plain"),
        (0.5, 0.1, "mixed", "fused is better in one metric and worse in another than plain"),
        (0.5, 0.5, "better", "fused is better than plain"),
    ],
)
def test_the_outcome_follows_from_the_paired_intervals(nats, right, outcome, words):
    found = verdict(measured("fused", nats, right), measured("plain", 1.0, 0.5))
    assert found.outcome == outcome
    assert words in found.headline
    assert not any("In mean" in line for line in found.details)


def test_the_details_give_both_values_the_difference_its_interval_and_n():
    ours, plain = result("unified"), result("finetune")
    found, difference = verdict(ours, plain), compare(ours, plain)["mean"]["exact_match"]
    sentence = next(line for line in found.details if line.startswith("exact match"))
    share = {one.model: 100 * sum(item.exact_match for item in one.samples) / len(one.samples) for one in (ours, plain)}
    assert f"{share['unified']:.1f} against {share['finetune']:.1f}" in sentence
    assert f"difference +{100 * difference.value:.1f}, 95% interval +{100 * difference.low:.1f} to" in sentence
    assert f"{100 * difference.high:.1f}, n = 120: better." in sentence


def test_a_domain_that_got_worse_is_named_even_where_the_mean_got_better():
    plain = measured("plain", 1.0, 0.5, ("dates", "sums", "lists"))
    good, bad = measured("fused", 0.2, 0.9, ("dates", "sums")), measured("fused", 1.2, 0.5, ("lists",))
    found = verdict(good.model_copy(update={"samples": good.samples + bad.samples}), plain)
    assert found.outcome == "better"
    worse = [line for line in found.details if "got worse" in line]
    assert len(worse) == 1
    assert worse[0].startswith("In domain lists it got worse than plain (bits per byte: difference +0.289")


def test_a_domain_that_fell_below_the_untouched_pivot_is_in_the_headline_also_where_the_mean_got_better():
    domains = ("dates", "sums", "lists")
    plain, pivot = measured("plain", 1.0, 0.5, domains), measured("pivot", 0.9, 0.5, ("dates", "lists"))
    pivot = pivot.model_copy(update={"samples": pivot.samples + measured("pivot", 0.1, 0.5, ("sums",)).samples})
    found = verdict(measured("fused", 0.2, 0.9, domains), plain, pivot)
    assert (found.outcome, found.below_pivot) == ("better", ["sums"])
    assert found.headline.endswith("of heldout, but worse than the untouched pivot in domain sums.")
    assert next(line for line in found.details if "untouched" in line).startswith(
        "In domain sums it got worse than the untou"
    )


def test_a_verdict_without_a_fall_below_the_pivot_says_nothing_of_it():
    fused, plain, pivot = measured("fused", 0.5, 0.9), measured("plain", 1.0, 0.5), measured("pivot", 1.0, 0.5)
    assert verdict(fused, plain, pivot) == verdict(fused, plain)
    assert verdict(measured("fused", 1.5, 0.1), plain, pivot).headline.endswith(
        "and worse than the untouched pivot in domain sums."
    )


def test_models_without_a_common_metric_are_not_judged(monkeypatch):
    monkeypatch.setattr("fusion.report.verdict.compare", lambda *_, **__: {})
    with pytest.raises(ValueError, match="fused and plain have no metric in common"):
        verdict(measured("fused", 1, 1), measured("plain", 1, 1))


@pytest.mark.parametrize(
    ("keys", "why"),
    [
        ({"result": None}, "run.json names no result"),
        ({"baseline": None}, "run.json names no baseline"),
        ({"result": "pairwise"}, "pairwise, which run.json names as result, was not evaluated"),
        ({"baseline": "unified"}, "the same model"),
    ],
)
def test_without_both_models_there_is_a_reason_and_no_verdict(tmp_path, keys, why):
    run = write_run(tmp_path / "run")
    change(run, **keys)
    found, reason = suite_verdict(read_run(run), "heldout")
    assert found is None
    assert why in reason


def test_a_run_is_judged_by_its_result_against_its_baseline(tmp_path):
    found, reason = suite_verdict(read_run(write_run(tmp_path / "run")), "heldout")
    assert found == verdict(result("unified"), result("finetune"), result("pivot"))
    assert reason == ""


@pytest.mark.parametrize(
    ("learns_predictions", "end"),
    [(True, "a run with cross_entropy for its only objective shows."), (False, "are these answers.")],
)
def test_where_sources_answered_it_is_said_that_the_two_learned_different_texts(tmp_path, learns_predictions, end):
    run = write_run(tmp_path / "run")
    counts = {"domain": "sums", "prompts": 9000, "answers": 9000, "passed": 7, "chosen": 4000}
    answered = [counts | {"source": name} for name in ("smol", "qwen")]
    data = {"train": {"sums": 8000}, "fine_tuned": {"sums": 300, "dates": 100}}
    change(run, learns_predictions=learns_predictions, responses=answered, data=data)
    found, _ = suite_verdict(read_run(run), "heldout")
    assert found.caution.startswith("unified learned 8,000 answers that sources wrote, finetune the 400 responses that")
    assert found.caution.endswith(end)
    assert found.caution in " ".join(model_card(run, resamples=2).split()).replace("\\_", "_")
    assert found.caution in html.unescape(write_report(run, resamples=2).read_text())
    change(run, data={"train": {"sums": 8000}})  # prompts alone: plain fine-tuning learned the same answers
    found, _ = suite_verdict(read_run(run), "heldout")
    assert found.caution == ""


def test_a_metric_of_some_domains_alone_names_them():
    """A text without a right answer has a likelihood, and no exact match."""

    def both(model, nats, right):
        closed, open_ended = measured(model, nats, right, ("sums", "dates")), measured(model, nats, right, ("tales",))
        silent = [sample.model_copy(update={"exact_match": None}) for sample in open_ended.samples]
        return closed.model_copy(update={"samples": closed.samples + silent})

    found = verdict(both("fused", 0.5, 0.9), both("plain", 1.0, 0.5))
    assert any(line.startswith("exact match % (sums, dates): ") for line in found.details)
    assert any(line.startswith("bits per byte: ") for line in found.details)


@pytest.mark.parametrize(
    ("gold_source", "said"),
    [
        (-0.5 + 1.01 * EQUAL, "knows more"),
        (-0.5 + 0.99 * EQUAL, "about equal"),
        (-0.5 - 0.99 * EQUAL, "about equal"),
        (-0.5 - 1.01 * EQUAL, "knows less"),
        (None, "not measured"),
    ],
)
def test_a_source_knows_more_where_the_truth_is_likelier_by_more_than_the_margin(gold_source, said):
    row = run_json()["helping"][0] | {"gold_pivot": -0.5, "gold_source": gold_source}
    assert helping_verdict(helping_rows([row])[0]) == said
