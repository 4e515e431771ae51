"""Arms that differ in a number become lines over it."""

import pytest

from fusion.study.growth import growth, numbered_arms
from fusion.study.growth_table import growth_tables
from fusion.study.results import StudyResults
from fusion.study.results_page import markdown
from fusion_eval.results import Result, Sample


def result(model, right, seed=0):
    samples = [
        Sample(id=f"{domain}{i}", domain=domain, bytes=4, nll=4.0, exact_match=i < right, prompt="p", target="t")
        for domain in "ab"
        for i in range(10)
    ]
    return Result(model=model, suite="heldout", path="p", provenance={"seed": seed}, samples=samples)


@pytest.mark.parametrize(
    ("arms", "found"),
    [
        (["kl_10", "kl_300", "text_10"], {"kl": {10: "kl_10", 300: "kl_300"}, "text": {10: "text_10"}}),
        (["kl_10", "kl"], {}),
        (["kl_1", "text_2"], {}),
        (["top_k_3", "top_k_10"], {"top_k": {3: "top_k_3", 10: "top_k_10"}}),
    ],
)
def test_arms_are_numbered_where_all_of_them_end_in_a_number(arms, found):
    assert numbered_arms(arms) == found


def test_each_method_is_a_line_through_its_values_and_the_original_models_are_levels():
    arms = {"text_100": 3, "text_10": 1, "logits_10": 2, "logits_100": 8}
    results = StudyResults(
        "text_10", {}, {arm: [result(arm, right)] for arm, right in arms.items()},
        [result("pivot", 0), result("weak", 1), result("strong", 9)],
    )  # fmt: skip
    figure = growth(results, "exact_match")
    domain_a = figure.axes[0]
    lines = {each.get_label(): each.lines[0].get_xydata().tolist() for each in domain_a.containers}
    assert lines == {"text": [[10, 10], [100, 30]], "logits": [[10, 20], [100, 80]]}
    levels = {each.get_label(): each.get_ydata()[0] for each in domain_a.lines if each.get_label()[0] != "_"}
    assert levels == {"pivot, untouched": 0, "best source": 90}
    assert [axes.get_title(loc="left") for axes in figure.axes] == [f"{d}: exact match %" for d in ("a", "b", "mean")]


def test_methods_are_compared_at_the_same_number():
    arms = {"text_100": 3, "text_10": 1, "logits_10": 1, "logits_100": 10, "logits_1000": 9}
    results = StudyResults(
        "text_10", {}, {arm: [result(arm, right)] for arm, right in arms.items()}, [result("pivot", 0)]
    )
    found = growth_tables(results)
    lines = found[found.index("| a: exact match %") :].splitlines()
    assert lines[0] == "| a: exact match % | text | logits (minus text, 95%) |"
    assert lines[2].startswith("| 10 | 10.0 | 10.0 (+0.0, ")
    assert lines[3].startswith("| 100 | 30.0 | 100.0 (+70.0★, ")
    assert lines[4] == "| 1,000 | – | 90.0 |"
    assert lines[12].startswith("| mean: exact match %")
    assert found in markdown(results)
