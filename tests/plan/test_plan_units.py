"""Numbers in words, against words written by hand."""

import pytest

from fusion.plan.units import count, format_flops, size, size_in, time, unit


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (size(0), ""), (size(999), "999 B"), (size(999.7), "1 kB"), (size(1_234_567), "1.23 MB"), (size(29.3e9), "29.3 GB"),
        (size(5e15), "5e+03 TB"), (unit(80e9), "GB"), (size_in(80e9, "GB"), "80.0"), (size_in(243e9, "GB"), "243"),
        (size_in(0, "GB"), ""), (format_flops(0), ""), (format_flops(1.2e11), "120 GFLOP"), (format_flops(2e20), "200 EFLOP"),
        (format_flops(1.5e21), "1.5 ZFLOP"), (time(0), ""), (time(0.2), "< 1 s"), (time(42), "42 s"), (time(90), "1.5 min"),
        (time(47.9 * 3600), "47.9 h"), (time(49 * 3600), "2.04 d"), (count(0), ""), (count(130_000), "130,000"),
        (count(520_000_000), "520M"), (count(1_560_000_000), "1.56B"),
    ],
)  # fmt: skip
def test_numbers_read_as_people_write_them(words, expected):
    assert words == expected
