"""Numbers as people read them."""

from __future__ import annotations

import math
import re


def size(count: int | None) -> str:
    """A number of parameters or tokens in three digits: 812, 1.21M, 14.8B."""
    if count is None:
        return "–"
    for limit, letter in [(1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "K")]:
        if count >= limit:
            return f"{count / limit:.3g}{letter}"
    return str(count)


def grouped(count: int | None) -> str:
    """A count with its thousands apart; – where there is none."""
    return "–" if count is None else f"{count:,}"


def duration(seconds: int | float) -> str:
    """Wall time for people: 0.4 s, 12 s, 3 min 5 s, 2 h 7 min."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def byte_size(count: int) -> str:
    """Bytes in three digits: 812 B, 1.21 MB."""
    return _three_digits(count, ["B", "kB", "MB", "GB", "TB"])


def format_flops(flops: int | float) -> str:
    """Floating-point operations in three digits: 1.21 TFLOP; – for none."""
    return _three_digits(flops / 1e6, ["MFLOP", "GFLOP", "TFLOP", "PFLOP", "EFLOP", "ZFLOP"]) if flops else "–"


def percent(share: int | float) -> str:
    """A share as a whole percentage."""
    if math.isinf(share):
        return "∞" if share > 0 else "-∞"
    return f"{100 * share:.0f}%"


def minus(text: str) -> str:
    """The same with a real minus sign where a number is negative."""
    return re.sub(r"(?<![\w.])-(?=[\d.∞])", "−", text)


def visible(text: str) -> str:
    """Text with marks for what cannot be seen: · for a space, ↵ for a line break, ⇥ for a tab."""
    return text.replace(" ", "·").replace("\n", "↵").replace("\t", "⇥").replace("\r", "␍")


def _three_digits(value: int | float, units: list[str]) -> str:
    for unit in units[:-1]:
        if value < 999.5:
            return f"{value:.3g} {unit}"
        value /= 1000
    return f"{value:.3g} {units[-1]}"
