"""Bars are as long as their values, can always be seen, and bear their numbers."""

import math
import xml.etree.ElementTree as ET

import pytest

from fusion.report.figures.bars import bars, helping
from fusion.report.figures.drawing import svg
from fusion.report.score_table import helping_rows
from fusion_eval.results import Result, Sample
from fusion_eval.statistics.comparison import summarise
from tests.helpers.report_runs import DOMAINS, result, run_json


def test_bars_are_as_long_as_the_values_and_whiskers_reach_the_ends_of_the_intervals():
    results = [result("unified"), result("pivot")]
    for axes, domain in zip(bars(results, "exact_match").axes, (*DOMAINS, "mean"), strict=True):
        found = [summarise(one)[domain]["exact_match"] for one in results]
        assert [bar.get_width() for bar in axes.patches] == pytest.approx([100 * i.value for i in found])
        ends = [[x for x, _ in line.get_segments()[0]] for line in axes.collections]
        assert ends == [pytest.approx([100 * i.low, 100 * i.high]) for i in found]


def test_a_single_example_has_a_bar_and_no_whisker():
    one = Sample(id="1", domain="sums", bytes=1, nll=1.0, exact_match=None, prompt="", target="2", answer=None)
    figure = bars([Result(model="a", suite="s", path="a", provenance={}, samples=[one])], "bits_per_byte")
    assert list(figure.axes[0].collections) == []
    assert [text.get_text() for text in figure.axes[0].texts] == ["1.443"]
    ET.fromstring(svg(figure, "f", ""))


@pytest.mark.parametrize("value", [0.0, 0.002])
def test_a_value_near_nothing_has_a_bar_that_is_seen_and_its_number(value):
    def one(model: str, bits: float) -> Result:
        sample = Sample(id="1", domain="sums", bytes=1, nll=bits * math.log(2), prompt="", target="2")
        return Result(model=model, suite="s", path="a", provenance={}, samples=[sample])

    axes = bars([one("good", value), one("bad", 0.6)], "bits_per_byte").axes[0]
    good, bad = (bar.get_width() for bar in axes.patches)
    assert bad == pytest.approx(0.6)
    assert good >= 0.01 * bad
    assert [text.get_text() for text in axes.texts] == [f"{value:.3f}", "0.600"]


def test_helping_draws_match_rate_and_weight_of_each_source_by_domain():
    rows = helping_rows(run_json()["helping"])
    panels = {
        axes.get_title(loc="left").replace("\n", " "): [bar.get_width() for bar in axes.patches]
        for axes in helping(rows).axes
    }
    assert len(panels) == 2 * len(DOMAINS)
    for domain in DOMAINS:
        of_domain = [row for row in rows if row.domain == domain]
        assert panels[f"match rate, domain {domain}"] == pytest.approx([row.match_rate for row in of_domain])
        assert panels[f"weight, domain {domain}"] == pytest.approx([row.weight for row in of_domain])


def test_without_weights_there_is_no_panel_of_weights():
    rows = helping_rows([row | {"weight": None} for row in run_json()["helping"]])
    heads = [axes.get_title(loc="left").replace("\n", " ") for axes in helping(rows).axes]
    assert heads == [f"match rate, domain {domain}" for domain in DOMAINS]
