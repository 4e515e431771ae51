"""A source that is not here at all: its rows were put into the cache by `fusion cache import`."""

from __future__ import annotations

from typing import Literal, NoReturn

from fusion.sources.base import Backend, SourceRequest


class Imported(Backend):
    """Rows come from files that another program wrote; see `fusion cache import`. Which fields they hold, the files decide."""

    kind: Literal["imported"] = "imported"
    unknown = frozenset({"hidden"})

    def open(self, wanted: SourceRequest) -> NoReturn:
        """Always raises ValueError: there is nothing to run."""
        raise ValueError(
            f"The source with the tokenizer {wanted.ref.path} has backend kind: imported, and its cache is not there yet. Run "
            "`fusion cache import FILE... --config CONFIG --source NAME --format FORMAT`, or give it another backend."
        )
