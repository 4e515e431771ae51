"""What the sections show follows from the items, whatever a suite measures."""

import pytest

from fusion.report.sections import answers, passed
from tests.helpers.report_runs import result


def item(exact: bool | None):
    return result("unified").samples[0].model_copy(update={"exact_match": exact})


@pytest.mark.parametrize("exact", [True, False, None])
def test_an_answer_is_right_where_the_metric_that_judges_answers_gives_it_all(exact):
    assert passed(item(exact)) is exact


def test_a_share_of_the_score_is_not_right(monkeypatch):
    metric = type("Metric", (), {"lower_is_better": False, "parts": staticmethod(lambda item: (0.5, 1.0))})
    monkeypatch.setattr("fusion.report.sections.METRICS", {"accuracy": metric})
    assert passed(item(True)) is False


def test_domains_without_answers_have_none_to_show():
    one = result("unified")
    asked = [
        i if i.domain == "sums" else i.model_copy(update={"answer": None, "exact_match": None}) for i in one.samples
    ]
    assert list(answers([one.model_copy(update={"samples": asked})])) == ["sums"]
