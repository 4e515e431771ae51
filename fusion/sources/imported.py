"""The backend of sources that never run here: their rows were imported into the cache by `fusion cache import`."""

from __future__ import annotations

from typing import Literal, NoReturn

from typing_extensions import override

from fusion.sources.base import Backend, SourceRequest


class Imported(Backend):
    """Rows come from files that another program wrote; see `fusion cache import`. Which fields they hold, the files decide."""

    kind: Literal["imported"] = "imported"
    unknown_fields = frozenset({"hidden"})

    @override
    def open(self, request: SourceRequest) -> NoReturn:
        # nothing to run: a missing cache has to be imported
        raise ValueError(
            f"The source with the tokenizer {request.ref.path} has backend kind: imported, and its cache is not there yet. Run "
            "`fusion cache import FILE... --config CONFIG --source NAME --format FORMAT`, or give it another backend."
        )
