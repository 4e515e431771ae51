"""What puts questions to a model and writes results."""

from collections.abc import Callable

Progress = Callable[[int], None]
"""Called with the number of requests that were answered since the last call."""
