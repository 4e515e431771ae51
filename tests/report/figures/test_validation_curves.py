"""Curves of validation examples: a panel for each domain, a line for each training, and one zero for all panels."""

import pytest

from fusion.report.figures.drawing import BLUE, ORANGE, Look
from fusion.report.figures.validation_curves import MAX_DOMAINS, VALIDATION_CURVES, validation_curves
from tests.helpers.report_runs import DOMAINS, log, validation_log

LOOK = Look({"finetune": ORANGE, "unified": BLUE, "smol": "#0a9a73"}, {"smol": "smol (source)"})
LOGS = {
    "finetune": log(("cross_entropy",)) + validation_log(0.2),
    "unified": log(("cross_entropy",)) + validation_log(0.8),
    "pairwise/smol": validation_log(0.5),
}


def entries(values, domains=("d0", "d1")):
    """A log that says the same of each domain."""
    name = "eval_bits_per_byte"
    return [
        {"step": step, name: value, **{f"{name}/{domain}": value for domain in domains}}
        for step, value in enumerate(values)
    ]


@pytest.mark.parametrize("name", VALIDATION_CURVES)
def test_each_training_has_a_line_in_the_panel_of_the_mean_and_of_each_domain(name):
    figure = validation_curves(LOGS, name, LOOK)
    titles = [axes.get_title("left").replace("\n", " ") for axes in figure.axes]
    assert titles == ["mean over domains", *(f"domain {domain}" for domain in DOMAINS)]
    for key, axes in zip([name, *(f"{name}/{domain}" for domain in DOMAINS)], figure.axes, strict=True):
        for training, line in zip(LOGS, axes.lines, strict=True):
            points = [(entry["step"], entry[key]) for entry in LOGS[training] if key in entry]
            assert [x for x, _ in line.get_xydata()] == [step for step, _ in points]
            expected = [value * VALIDATION_CURVES[name].scale for _, value in points]
            assert [y for _, y in line.get_xydata()] == pytest.approx(expected)


def test_a_line_has_the_colour_of_its_model_and_one_on_a_single_source_that_of_the_source():
    lines = validation_curves(LOGS, "eval_entropy", LOOK).axes[0].lines
    assert [line.get_label() for line in lines] == ["finetune", "unified", "pairwise/smol"]
    assert [line.get_color() for line in lines] == [ORANGE, BLUE, "#0a9a73"]
    assert [line.get_linestyle() for line in lines] == ["-", "-", "--"]


def test_one_domain_is_its_own_mean_and_of_too_many_the_mean_is_drawn_alone():
    one = validation_curves({"unified": entries([1.0, 0.5], ["code"])}, "eval_bits_per_byte")
    assert [axes.get_title("left") for axes in one.axes] == ["domain code"]
    many = entries([1.0, 0.5], [f"d{i}" for i in range(MAX_DOMAINS + 1)])
    figure = validation_curves({"unified": many}, "eval_bits_per_byte")
    assert [axes.get_title("left") for axes in figure.axes] == ["mean over domains"]


@pytest.mark.parametrize(("values", "zero"), [([0.9, 0.3], True), ([0.9, 0.88], False)])
def test_all_panels_begin_at_zero_where_a_curve_falls_by_half_and_else_none(values, zero):
    log = entries([0.9, 0.9])
    for entry, value in zip(log, values, strict=True):
        entry["eval_bits_per_byte/d1"] = value
    figure = validation_curves({"unified": log}, "eval_bits_per_byte")
    assert {axes.get_ylim()[0] == 0 for axes in figure.axes} == {zero}
    for axes in figure.axes:  # and no point is cut off
        low, high = axes.get_ylim()
        assert all(low <= y <= high for line in axes.lines for y in line.get_ydata())


def test_a_legend_fills_the_place_that_panels_leave_free_in_their_row():
    figure = validation_curves({"unified": entries([1.0, 0.5], ["a", "b", "c", "d"])}, "eval_bits_per_byte")
    *panels, last = figure.axes
    assert len(panels) == 5
    assert last.get_legend() is not None
    assert not figure.legends


def test_logs_without_validation_examples_are_refused():
    with pytest.raises(ValueError, match="No training log has 'eval_entropy'"):
        validation_curves({"unified": log(("cross_entropy",))}, "eval_entropy")
