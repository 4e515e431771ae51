"""Sizes, FLOPs and times as people read them."""

from __future__ import annotations

Number = int | float
BYTES = {"B": 1.0, "kB": 1e3, "MB": 1e6, "GB": 1e9, "TB": 1e12}


def unit(count: Number) -> str:
    """Return the unit, such as MB, in which so many bytes have one to three digits."""
    return next((name for name, one in BYTES.items() if count < 999.5 * one), "TB")


def size(count: Number) -> str:
    """Bytes: 1.5 MB; nothing for 0."""
    return f"{count / BYTES[unit(count)]:.3g} {unit(count)}" if count else ""


def size_in(count: Number, name: str) -> str:
    """Bytes in a given unit, without its name: 1.5; nothing for 0."""
    return f"{count / BYTES[name]:.{0 if count >= 100 * BYTES[name] else 1}f}" if count else ""


def format_flops(flops: Number) -> str:
    """Floating-point operations: 1.5 TFLOP; nothing for 0."""
    flops /= 1e6
    for unit in ("MFLOP", "GFLOP", "TFLOP", "PFLOP", "EFLOP"):
        if flops < 999.5:
            return f"{flops:.3g} {unit}" if flops else ""
        flops /= 1000
    return f"{flops:.3g} ZFLOP"


def time(seconds: Number) -> str:
    """Seconds, minutes, hours or days: 2.5 h; nothing for 0."""
    if seconds < 1:
        return "< 1 s" if seconds else ""
    for name, one, enough in (("s", 1, 60), ("min", 60, 3600), ("h", 3600, 48 * 3600)):
        if seconds < enough:
            return f"{seconds / one:.3g} {name}"
    return f"{seconds / 86400:.3g} d"


def count(number: int) -> str:
    """12,345 or 1.56B; nothing for 0."""
    for name, one in (("B", 1e9), ("M", 1e6)):
        if number >= one:
            return f"{number / one:.3g}{name}"
    return f"{number:,}" if number else ""
