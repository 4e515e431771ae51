"""Responses to train on: those of the data sets, or those that sources generate and that pass a check."""

from fusion.responses.base import Check
from fusion.responses.checks import AgreementCheck, AnyCheck, EndedCheck, FinalAnswerCheck, TestsCheck
from fusion.responses.choose import (
    PromptResponses,
    choose_examples,
    count_responses,
    example_from_json,
    example_to_json,
    placeholder_examples,
    rank_sources,
)
from fusion.responses.eligibility import PASSES, passes_to_jsonl, read_eligibility
from fusion.responses.fit import RANKS, TOO_LONG, PivotFit, logprobs_per_byte, rank_surprisal_ratios
from fusion.responses.function_check import FunctionCheck
from fusion.responses.response import Response
from fusion.responses.response_store import ResponseStore
from fusion.responses.settings import AnyResponses, BestSource, DatasetResponses, EverySource, GeneratedResponses

__all__ = [
    "PASSES",
    "RANKS",
    "TOO_LONG",
    "AgreementCheck",
    "AnyCheck",
    "AnyResponses",
    "BestSource",
    "Check",
    "DatasetResponses",
    "EndedCheck",
    "EverySource",
    "FinalAnswerCheck",
    "FunctionCheck",
    "GeneratedResponses",
    "PivotFit",
    "PromptResponses",
    "Response",
    "ResponseStore",
    "TestsCheck",
    "choose_examples",
    "count_responses",
    "example_from_json",
    "example_to_json",
    "logprobs_per_byte",
    "passes_to_jsonl",
    "placeholder_examples",
    "rank_sources",
    "rank_surprisal_ratios",
    "read_eligibility",
]
