"""Numbers are written for people."""

import math

import pytest

from fusion.report.units import byte_size, duration, format_flops, grouped, minus, percent, size, visible


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.04, "0.0 s"), (9.4, "9.4 s"), (59.6, "1 min 0 s"), (754.2, "12 min 34 s"), (7625.0, "2 h 7 min")],
)
def test_durations_are_for_people(seconds, text):
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("count", "text"), [(None, "–"), (812, "812"), (1_210_000, "1.21M"), (14_770_000_000, "14.8B")]
)
def test_sizes_have_three_digits(count, text):
    assert size(count) == text


def test_counts_have_their_thousands_apart():
    assert (grouped(151936), grouped(None)) == ("151,936", "–")


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1 kB"), (999_600, "1 MB"), (2_850_000, "2.85 MB"), (4 * 10**14, "400 TB")],
)
def test_bytes_have_three_digits_and_a_unit(count, text):
    assert byte_size(count) == text


@pytest.mark.parametrize(
    ("flops", "text"), [(0, "–"), (2.4e10, "24 GFLOP"), (1.09e12, "1.09 TFLOP"), (3e21, "3 ZFLOP")]
)
def test_work_is_counted_in_operations(flops, text):
    assert format_flops(flops) == text


def test_shares_are_whole_percentages():
    assert [percent(share) for share in (0.386, -0.17, 0, 1, math.inf, -math.inf)] == [
        "39%",
        "-17%",
        "0%",
        "100%",
        "∞",
        "-∞",
    ]


@pytest.mark.parametrize(
    ("text", "shown"),
    [("-0.5", "−0.5"), ("+0.5 ±0.1", "+0.5 ±0.1"), ("a: -1%", "a: −1%"), ("-∞", "−∞"), ("a-1", "a-1"), ("-", "-")],
)
def test_a_negative_number_has_a_minus_sign_and_a_name_keeps_its_hyphen(text, shown):
    assert minus(text) == shown


def test_white_space_can_be_seen():
    assert visible(" a\tb\r\n") == "·a⇥b␍↵"
