"""Which responses are learned from: those of the data, or those that sources write themselves and that pass a check."""

from fusion.responses.checks import AnyCheck, Ended, Tests
from fusion.responses.choose import Question, chosen, counts, expected, restored, saved
from fusion.responses.response import Response
from fusion.responses.response_store import Lines
from fusion.responses.settings import AnyResponses, BestSource, EverySource, Reference, Written

__all__ = [
    "AnyCheck",
    "AnyResponses",
    "BestSource",
    "Ended",
    "EverySource",
    "Lines",
    "Question",
    "Reference",
    "Response",
    "Tests",
    "Written",
    "chosen",
    "counts",
    "expected",
    "restored",
    "saved",
]
