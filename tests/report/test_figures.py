"""Figures draw the numbers they are given, parse as XML, share a page, take the page's colour, and are the same each time."""

import struct
import xml.etree.ElementTree as ET

import matplotlib as mpl
import numpy as np
import pytest
from report_runs import DOMAINS, SKILL, log, result, run_json

from fusion.report import figures
from fusion.report.table import helping_rows
from fusion_eval.results import Item, Result
from fusion_eval.statistics import summarise

NAMES = ["bits", "exact", "loss", "weight", "helping"]


def draw(name: str) -> mpl.figure.Figure:
    results = [result(model) for model in SKILL]
    return {
        "bits": lambda: figures.bars(results, "bits_per_byte"),
        "exact": lambda: figures.bars(results, "exact_match"),
        "loss": lambda: figures.curves({"unified": log(("cross_entropy", "kl")), "pairwise/smol": log(("a",))}),
        "weight": lambda: figures.curves({"unified": log(())}, "weight"),
        "helping": lambda: figures.helping(helping_rows(run_json()["helping"])),
    }[name]()


def texts(figure) -> list[str]:
    return [t.text for t in ET.fromstring(figures.svg(figure, "f", "alt")).iter("{http://www.w3.org/2000/svg}text")]


@pytest.mark.parametrize("name", NAMES)
def test_a_figure_is_well_formed_and_the_same_each_time(name):
    first, second = (figures.svg(draw(name), name, 'a "<b>" & c') for _ in "ab")
    assert first == second
    root = ET.fromstring(first)
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    assert root.get("aria-label") == 'a "<b>" & c'


@pytest.mark.parametrize("name", ["bits", "loss", "helping"])
def test_a_figure_takes_its_text_colour_from_the_page_and_has_no_background(name):
    text = figures.svg(draw(name), name, "")
    assert "currentColor" in text
    for colour in (figures.INK, "#000000", "#ffffff"):
        assert colour not in text


def test_two_figures_on_a_page_share_no_id_and_every_reference_is_met():
    parts = [figures.svg(draw(name), name, "") for name in NAMES]
    ids = [element.get("id") for part in parts for element in ET.fromstring(part).iter() if element.get("id")]
    by_name = [{id for id in ids if id.startswith(f"{name}-")} for name in NAMES]
    assert sum(map(len, by_name)) == len(set(ids)) > 50
    for part in parts:
        root = ET.fromstring(part)
        known = {element.get("id") for element in root.iter()}
        used = [e.get("{http://www.w3.org/1999/xlink}href") for e in root.iter()]
        used += [(e.get("clip-path") or "")[4:-1] for e in root.iter() if e.get("clip-path")]
        assert {reference.lstrip("#") for reference in used if reference} <= known


def test_bars_are_as_high_as_the_values_and_whiskers_reach_the_ends_of_the_intervals():
    results = [result("unified"), result("pivot")]
    axes = figures.bars(results, "exact_match").axes[0]
    heights = np.array([patch.get_height() for patch in axes.patches]).reshape(2, 4)
    whiskers = [line.get_segments() for line in axes.collections]
    for row, segments, one in zip(heights, whiskers, results, strict=True):
        found = [summarise(one)[domain]["exact_match"] for domain in (*DOMAINS, "mean")]
        assert row == pytest.approx([100 * i.value for i in found])
        assert [[y for _, y in s] for s in segments] == [pytest.approx([100 * i.low, 100 * i.high]) for i in found]


def test_bars_name_every_model_domain_and_the_way_to_better():
    found = texts(draw("bits"))
    assert {*SKILL, *DOMAINS, "mean", "bits per byte, lower is better"} <= set(found)
    assert "exact match %, higher is better" in texts(draw("exact"))


def test_a_single_example_has_a_bar_and_no_whisker():
    one = Item(id="1", domain="sums", bytes=1, nats=1.0, exact=None, prompt="", expected="2", answer=None)
    figure = figures.bars([Result(model="a", suite="s", path="a", made={}, items=[one])], "bits_per_byte")
    assert [len(c.get_segments()) for c in figure.axes[0].collections] == [0]
    ET.fromstring(figures.svg(figure, "f", ""))


def test_loss_curves_hold_every_point_of_the_total_and_of_each_part():
    entries = log(("cross_entropy", "forward_kl"))
    axes = figures.curves({"unified": entries}).axes[0]
    lines = {line.get_label(): line.get_xydata().tolist() for line in axes.lines}
    assert set(lines) == {"total", "cross_entropy", "forward_kl"}
    for label, key in [("total", "loss"), ("cross_entropy", "loss/cross_entropy"), ("forward_kl", "loss/forward_kl")]:
        assert lines[label] == [[entry["step"], entry[key]] for entry in entries]


def test_a_part_has_one_colour_in_all_panels_and_entries_without_it_are_skipped():
    logs = {"a": [{"step": 1, "loss/y": 2.0}, {"step": 2, "loss/y": None}, {"step": 3}], "b": log(("x", "y"))}
    first, second = (axes.lines for axes in figures.curves(logs).axes)
    assert [line.get_label() for line in first] == ["y"]
    assert first[0].get_xydata().tolist() == [[1, 2.0]]
    assert first[0].get_color() == {line.get_label(): line.get_color() for line in second}["y"]


def test_each_training_has_its_panel_also_where_a_row_of_panels_stays_open():
    logs = {f"run{i}": log(()) for i in range(4)}
    assert [axes.get_title(loc="left") for axes in figures.curves(logs).axes] == list(logs)


def test_helping_draws_match_rate_and_weight_of_each_source_by_domain():
    rows = helping_rows(run_json()["helping"])
    match, weight = figures.helping(rows).axes
    assert [p.get_height() for p in match.patches] == pytest.approx([100 * row.match_rate for row in rows])
    assert [p.get_height() for p in weight.patches] == pytest.approx([row.weight for row in rows])


def test_without_weights_there_is_no_panel_of_weights():
    rows = helping_rows([row | {"weight": None} for row in run_json()["helping"]])
    assert [axes.get_title(loc="left") for axes in figures.helping(rows).axes] == ["match rate %"]


def test_names_are_text_and_never_mathematics_or_markup():
    odd = result("unified").model_copy(update={"model": "$x_1$ <script>"})
    assert "$x_1$ <script>" in texts(figures.bars([odd], "exact_match"))


def test_a_png_is_a_png_on_white():
    image = figures.png(draw("bits"))
    assert image[:8] == b"\x89PNG\r\n\x1a\n"
    width, height = struct.unpack(">II", image[16:24])
    assert width > 1000
    assert height > 400
    assert image == figures.png(draw("bits"))


def test_drawing_leaves_the_settings_of_matplotlib_alone():
    before = dict(mpl.rcParams)
    for name in NAMES:
        figures.svg(draw(name), "f", "")
        figures.png(draw(name))
    assert dict(mpl.rcParams) == before


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda: figures.bars([result("pivot")], "rouge"), "No result has rouge"),
        (lambda: figures.curves({"unified": log(())}, "grad"), "No training log has 'grad'"),
        (lambda: figures.helping([]), "no row"),
    ],
)
def test_nothing_to_draw_is_refused(make, why):
    with pytest.raises(ValueError, match=why):
        make()
