"""Figures draw the numbers they are given, parse as XML, share a page, take the page's colour, and are the same each time."""

import math
import struct
import xml.etree.ElementTree as ET

import matplotlib as mpl
import pytest

from fusion.report.figures import scores
from fusion.report.figures.bars import bars, helping
from fusion.report.figures.curves import POINTS, curves
from fusion.report.figures.drawing import BLUE, GREY, INK, ORANGE, TITLE_LETTERS, Look, colours, png, svg, wrapped
from fusion.report.model_roles import LABEL_LENGTH, NARROW_LABEL, label
from fusion.report.score_table import helping_rows
from fusion.runtime.run_file import ModelFacts, RunFile
from fusion_eval.results import Result
from fusion_eval.statistics.bootstrap import Interval
from fusion_eval.statistics.comparison import summarise
from tests.helpers.report_runs import DOMAINS, SKILL, log, result, run_json

NAMES = ["bits", "exact", "radar", "gap", "loss", "weight", "helping"]


def two_domains() -> Result:
    one = result("pivot")
    return one.model_copy(update={"samples": [item for item in one.samples if item.domain != "sums"]})


CLOSED = {
    "unified": {"sums": Interval(0.5, 0.4, 0.6, 40), "mean": Interval(-0.2, -0.5, 0.1, 80)},
    "finetune": {"sums": Interval(0.25, -math.inf, math.inf, 1)},
}


def draw(name: str, look: Look | None = None) -> mpl.figure.Figure:
    results = [result(model) for model in SKILL]
    return {
        "bits": lambda: bars(results, "bits_per_byte", look),
        "exact": lambda: bars(results, "exact_match", look),
        "radar": lambda: scores.radar(results, "exact_match", ["smol", "tiny-llama"], look),
        "gap": lambda: scores.gap(CLOSED, "exact match %", "finetune", look),
        "loss": lambda: curves({"unified": log(("cross_entropy", "kl")), "pairwise/smol": log(("a",))}, "loss", look),
        "weight": lambda: curves({"unified": log(())}, "weight", look),
        "helping": lambda: helping(helping_rows(run_json()["helping"]), look),
    }[name]()


def texts(figure) -> list[str]:
    return [t.text for t in ET.fromstring(svg(figure, "f", "alt")).iter("{http://www.w3.org/2000/svg}text")]


@pytest.mark.parametrize("name", NAMES)
def test_a_figure_is_well_formed_and_the_same_each_time(name):
    first, second = (svg(draw(name), name, 'a "<b>" & c') for _ in "ab")
    assert first == second
    root = ET.fromstring(first)
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    assert root.get("aria-label") == 'a "<b>" & c'


@pytest.mark.parametrize("name", ["bits", "loss", "helping"])
def test_a_figure_takes_its_text_colour_from_the_page_and_has_no_background(name):
    text = svg(draw(name), name, "")
    assert "currentColor" in text
    for colour in (INK, "#000000", "#ffffff"):
        assert colour not in text


def test_two_figures_on_a_page_share_no_id_and_every_reference_is_met():
    parts = [svg(draw(name), name, "") for name in NAMES]
    ids = [element.get("id") for part in parts for element in ET.fromstring(part).iter() if element.get("id")]
    by_name = [{id for id in ids if id.startswith(f"{name}-")} for name in NAMES]
    assert sum(map(len, by_name)) == len(set(ids)) > 50
    for part in parts:
        root = ET.fromstring(part)
        known = {element.get("id") for element in root.iter()}
        used = [e.get("{http://www.w3.org/1999/xlink}href") for e in root.iter()]
        used += [(e.get("clip-path") or "")[4:-1] for e in root.iter() if e.get("clip-path")]
        assert {reference.lstrip("#") for reference in used if reference} <= known


def test_bars_name_every_model_domain_and_the_way_to_better():
    found = texts(draw("bits"))
    heads = {*(f"domain {domain}" for domain in DOMAINS), "mean over domains", "bits per byte, lower is better"}
    assert {*SKILL, *heads} <= set(found)
    assert "exact match %, higher is better" in texts(draw("exact"))


def test_a_radar_has_a_spoke_for_each_domain_a_line_for_each_model_and_one_for_the_best_source():
    axes = draw("radar").axes[0]
    lines = {line.get_label(): line.get_ydata() for line in axes.lines}
    assert list(lines) == ["unified", "finetune", "pivot", "best source"]
    scores = {model: summarise(result(model)) for model in SKILL}
    value = {model: [100 * score[d]["exact_match"].value for d in DOMAINS] for model, score in scores.items()}
    for model in ("unified", "finetune", "pivot"):
        assert lines[model] == pytest.approx([*value[model], value[model][0]])
    best = [max(pair) for pair in zip(value["smol"], value["tiny-llama"], strict=True)]
    assert lines["best source"] == pytest.approx([*best, best[0]])
    assert [label.get_text() for label in axes.get_xticklabels()] == list(DOMAINS)


@pytest.mark.parametrize("narrow", [False, True])
def test_the_title_of_a_radar_stands_over_the_label_of_its_topmost_spoke(narrow):
    axes = _laid_out(draw("radar", Look(narrow=narrow))).axes[0]
    renderer = axes.figure.canvas.get_renderer()
    title, label = (text.get_window_extent(renderer) for text in (axes._left_title, axes.get_xticklabels()[0]))
    assert title.y0 >= label.y1


def marks(axes) -> list[list[float]]:
    return [line.get_xydata()[0].tolist() for line in axes.lines if line.get_marker() not in ("None", None, "")]


def test_the_gap_has_a_mark_at_each_share_and_a_whisker_where_the_interval_ends():
    axes = draw("gap").axes[0]
    assert [x for x, _ in marks(axes)] == pytest.approx([50, -20, 25])
    ends = [[x for x, _ in segment] for c in axes.collections for segment in c.get_segments()]
    assert ends[:2] == [pytest.approx([40, 60]), pytest.approx([-50, 10])]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["domain sums", "mean over domains"]
    assert axes.get_xlabel().startswith("0% is finetune")


@pytest.mark.parametrize(("share", "at", "shape", "number"), [(-3.6, -200, "<", "−360%"), (4.129, 300, ">", "413%")])
def test_a_share_beyond_the_edge_is_an_arrow_there_with_its_number(share, at, shape, number):
    shares = {"unified": {"sums": Interval(share, share - 1, share + 1, 40)}, "pivot": {"sums": Interval(0, 0, 0, 40)}}
    axes = scores.gap(shares, "exact match %", "finetune").axes[0]
    arrow = next(line for line in axes.lines if line.get_marker() == shape)
    assert arrow.get_xdata().tolist() == [at]
    assert not arrow.get_clip_on()
    assert [text.get_text() for text in axes.texts] == [number]
    low, high = axes.get_xlim()
    assert low <= at <= high


@pytest.mark.parametrize("narrow", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_no_text_of_a_figure_is_cut_at_its_edge(name, narrow):
    run = RunFile(name="a", created="today", models=dict.fromkeys(SKILL, ModelFacts(id="a", role="source")))
    letters = NARROW_LABEL if narrow else LABEL_LENGTH
    labels = {model: label(f"{model}-with-a-longer-name-and-more", run, letters) + " (source)" for model in SKILL}
    figure = draw(name, Look(colours("unified", "finetune", ["pivot"], SKILL), labels, narrow=narrow))
    figure.draw_without_rendering()
    drawn, width, height = figure.get_tightbbox(), figure.get_figwidth(), figure.get_figheight()
    assert drawn.x0 > -0.02
    assert drawn.y0 > -0.02
    assert drawn.x1 < width + 0.02
    assert drawn.y1 < height + 0.02


def test_on_a_phone_panels_stand_below_each_other():
    for name in ("bits", "loss", "helping"):
        left = {round(axes.get_position().x0, 2) for axes in _laid_out(draw(name, Look(narrow=True))).axes}
        assert len(left) == 1
        assert len({round(axes.get_position().x0, 2) for axes in _laid_out(draw(name)).axes}) > 1


def _laid_out(figure: mpl.figure.Figure) -> mpl.figure.Figure:
    png(figure)
    return figure


def test_a_model_has_one_colour_in_every_figure():
    known = colours("unified", "finetune", ["pivot"], ["smol", "tiny-llama", "unified", "other"])
    assert (known["unified"], known["finetune"], known["pivot"]) == (BLUE, ORANGE, GREY)
    assert len(set(known.values())) == len(known) == 6
    look = Look(known)
    panel = bars([result("smol"), result("unified")], "exact_match", look).axes[0]
    assert [mpl.colors.to_hex(bar.get_facecolor()) for bar in panel.patches] == [known["smol"], BLUE]
    parts = curves({"unified": log(("kl/smol", "gld/smol", "kl/tiny-llama", "cross_entropy"))}, "loss", look).axes[0]
    drawn = {line.get_label(): (line.get_color(), line.get_linestyle()) for line in parts.lines}
    assert drawn["kl, smol"][0] == drawn["gld, smol"][0] == known["smol"]
    assert drawn["kl, smol"] != drawn["gld, smol"]
    assert drawn["kl, tiny-llama"][0] == known["tiny-llama"]
    assert drawn["cross_entropy"][0] not in (known["smol"], known["tiny-llama"])


def test_a_long_log_is_drawn_as_means_of_neighbours():
    entries = [{"step": step, "loss": float(step % 2)} for step in range(1, 4 * POINTS + 1)]
    (line,) = curves({"unified": entries}).axes[0].lines
    steps, values = line.get_data()
    assert len(steps) == POINTS
    assert set(values) == {0.5}
    assert steps.tolist() == pytest.approx([4 * i + 2.5 for i in range(POINTS)])


def test_loss_curves_hold_every_point_of_the_total_and_of_each_part():
    entries = log(("cross_entropy", "forward_kl"))
    axes = curves({"unified": entries}).axes[0]
    lines = {line.get_label(): line.get_xydata().tolist() for line in axes.lines}
    assert set(lines) == {"total", "cross_entropy", "forward_kl"}
    for name, key in [("total", "loss"), ("cross_entropy", "loss/cross_entropy"), ("forward_kl", "loss/forward_kl")]:
        assert lines[name] == [[entry["step"], entry[key]] for entry in entries]


def test_a_part_has_one_colour_in_all_panels_and_entries_without_it_are_skipped():
    logs = {"a": [{"step": 1, "loss/y": 2.0}, {"step": 2, "loss/y": None}, {"step": 3}], "b": log(("x", "y"))}
    first, second = (axes.lines for axes in curves(logs).axes)
    assert [line.get_label() for line in first] == ["y"]
    assert first[0].get_xydata().tolist() == [[1, 2.0]]
    assert first[0].get_color() == {line.get_label(): line.get_color() for line in second}["y"]


def test_each_training_has_its_panel_also_where_a_row_of_panels_stays_open():
    logs = {f"run{i}": log(()) for i in range(4)}
    assert [axes.get_title(loc="left") for axes in curves(logs).axes] == [f"training {name}" for name in logs]


def test_names_are_text_and_never_mathematics_or_markup():
    odd = result("unified").model_copy(update={"model": "$x_1$ <script>"})
    assert "$x_1$ <script>" in texts(bars([odd], "exact_match"))


def test_a_png_is_a_png_on_white():
    image = png(draw("bits"))
    assert image[:8] == b"\x89PNG\r\n\x1a\n"
    width, height = struct.unpack(">II", image[16:24])
    assert width > 1000
    assert height > 200
    assert image == png(draw("bits"))


def test_drawing_leaves_the_settings_of_matplotlib_alone():
    before = dict(mpl.rcParams)
    for name in NAMES:
        svg(draw(name), "f", "")
        png(draw(name))
    assert dict(mpl.rcParams) == before


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda: bars([result("pivot")], "rouge"), "No result has rouge"),
        (lambda: curves({"unified": log(())}, "grad"), "No training log has 'grad'"),
        (lambda: helping([]), "no row"),
        (lambda: scores.gap({"unified": {}}, "x", "pivot"), "no gap to draw"),
        (lambda: scores.radar([result("pivot")], "bits_per_byte", []), "bits_per_byte has 3 domains"),
        (lambda: scores.radar([two_domains()], "exact_match", []), "exact_match has 2 domains"),
    ],
)
def test_nothing_to_draw_is_refused(make, why):
    with pytest.raises(ValueError, match=why):
        make()


def test_a_title_is_wrapped_after_an_underscore_and_loses_no_letter():
    for name in ("domain college_computer_science", "a_b", "ends_", "x" * 60, "domain sums"):
        lines = wrapped(name, 4).split("\n")
        assert max(map(len, lines)) <= TITLE_LETTERS[4]
        assert "".join(lines).replace(" ", "") == name.replace(" ", "")
    assert wrapped("domain college_computer_science", 4) == "domain college_\ncomputer_science"
