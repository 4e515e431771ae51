"""Runners, which evaluate models on held-out examples or on suites of benchmarks and write results."""

from collections.abc import Callable

Progress = Callable[[int], None]
"""Called with the number of requests that were answered since the last call."""
