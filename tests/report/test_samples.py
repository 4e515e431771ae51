"""The samples of the report are chosen by rule: won ones, lost ones, the same each time, of the models that matter."""

import pytest

from fusion.report.run_contents import read_run
from fusion.report.samples import chosen_samples, passed
from tests.helpers.report_runs import SKILL, result, write_run


def item(exact: bool | None):
    return result("unified").samples[0].model_copy(update={"exact_match": exact})


@pytest.mark.parametrize("exact", [True, False, None])
def test_an_answer_is_right_where_the_metric_that_judges_answers_gives_it_all(exact):
    assert passed(item(exact)) is exact


def test_a_share_of_the_score_is_not_right(monkeypatch):
    metric = type("Metric", (), {"lower_is_better": False, "parts": staticmethod(lambda item: (0.5, 1.0))})
    monkeypatch.setattr("fusion.report.samples.METRICS", {"accuracy": metric})
    assert passed(item(True)) is False


def contents(tmp_path, samples: dict[str, list]):
    run = write_run(tmp_path / "run")
    for model, of_model in samples.items():
        one = result(model).model_copy(update={"samples": of_model})
        one.save(run / "eval" / model / "heldout.json")
    return read_run(run)


def answered(right: dict[str, str]) -> dict[str, list]:
    """Samples of one domain: for each model a letter a question, `+` where it is right."""
    one = result("unified").samples[0]
    return {
        model: [
            one.model_copy(update={"id": f"q{i}", "prompt": f"q{i}", "exact_match": letter == "+"})
            for i, letter in enumerate(letters)
        ]
        for model, letters in right.items()
    }


def test_domains_without_answers_have_none_to_show(tmp_path):
    one = result("unified")
    asked = [
        i if i.domain == "sums" else i.model_copy(update={"answer": None, "exact_match": None}) for i in one.samples
    ]
    found = chosen_samples(contents(tmp_path, dict.fromkeys(SKILL, asked)), "heldout")
    assert list(found) == ["sums"]


def test_samples_are_those_won_against_most_others_and_those_lost_to_most_others(tmp_path):
    right = {
        "unified": "+++---++",
        "finetune": "++-+--+-",
        "pivot": "+--++-++",
        "smol": "+--+++-+",
        "tiny-llama": "--------",
    }
    found = chosen_samples(contents(tmp_path, answered(right)), "heldout")["dates"]
    assert [(one["prompt"], one["kind"]) for one in found] == [
        ("q2", "is right where others are wrong"),
        ("q1", "is right where others are wrong"),
        ("q3", "is wrong"),
        ("q4", "is wrong"),
    ]
    assert [model for model, _, _ in found[0]["answers"]] == ["unified", "finetune", "pivot", "smol"]


def test_the_best_source_is_that_of_the_domain(tmp_path):
    right = {"unified": "+-", "finetune": "--", "pivot": "--", "smol": "--", "tiny-llama": "-+"}
    found = chosen_samples(contents(tmp_path, answered(right)), "heldout")["dates"]
    assert {model for one in found for model, _, _ in one["answers"]} == {"unified", "finetune", "pivot", "tiny-llama"}


def test_where_nothing_judges_the_fused_model_the_first_questions_are_shown(tmp_path):
    samples = answered(dict.fromkeys(SKILL, "++++++"))
    unjudged = {m: [s.model_copy(update={"exact_match": None}) for s in each] for m, each in samples.items()}
    found = chosen_samples(contents(tmp_path, unjudged), "heldout")["dates"]
    assert [(one["prompt"], one["kind"]) for one in found] == [(f"q{i}", "the first") for i in range(4)]
