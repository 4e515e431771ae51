"""A model on held-out examples."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import get_args

import torch

from fusion.api.examples import AnyExamples, read_examples
from fusion.api.given import count_of, dtype_of, path_of
from fusion.config import ModelSettings
from fusion.data.prompt_format import PromptFormat
from fusion.grading.final_answer import AnswerPart
from fusion.models.loading import model_fingerprint
from fusion.models.precision import preferred_dtype
from fusion.runtime.console import bar
from fusion.runtime.distributed import device as this_device
from fusion_eval.results import Result
from fusion_eval.runners import heldout


def evaluate(
    model: str | Path,
    examples: AnyExamples,
    *,
    exact_match: Collection[str] = (),
    compare: AnswerPart = "text",
    max_new_tokens: int = 64,
    batch_tokens: int = 4096,
    dtype: str | torch.dtype | None = None,
    device: str | None = None,
    trust_remote_code: bool = False,
) -> Result:
    """Put examples to a model: the likelihood of each response, and, where asked for, whether its own answer is the response.

    Args:
        model: A folder, a `.gguf` file, a hub id, or `quickstart:NAME` for a model that comes with the package.
        examples: What `read_examples` takes.
        exact_match: Domains in which the model also answers, greedily; its answer is right where it is the response.
        compare: What of both is compared: `text` (all of it, spaces at the ends aside), `number` (the last), or `option`.
        max_new_tokens: Tokens at which an answer ends.
        batch_tokens: Tokens of a batch, padding included.
        dtype: Type that the model computes in. If not given, bfloat16 on a GPU that has it and on a CPU with AMX, else float32.
        device: `cuda` where there is one, if not said.
        trust_remote_code: Whether code that comes with the model may run.

    Returns:
        A `Result` with one sample for each example; `fusion.summarise(result)["mean"]["bits_per_byte"]` is an interval, and
        `fusion.compare(a, b)` the paired differences of two results.

    Raises:
        ValueError: Where the model cannot be loaded, an example does not fit its context, or `exact_match` names no domain
            of the examples.
    """
    ref = ModelSettings(path=path_of(model), trust_remote_code=trust_remote_code).ref
    found = read_examples(examples)
    found = list({example.id: example for example in found}.values())
    _refuse_unknown(exact_match, compare, {example.domain for example in found})
    how = heldout.HeldoutSettings(
        tuple(exact_match),
        count_of(max_new_tokens, "max_new_tokens"),
        count_of(batch_tokens, "batch_tokens"),
        dtype_of(dtype) or preferred_dtype(),
        device or this_device(),
        dict.fromkeys(exact_match, compare) if compare != "text" else {},
    )
    formats = [PromptFormat(tools=each.tools).for_prompt(each.messages, each.template) for each in found]
    with bar(f"held-out, {Path(ref.path).name}", heldout.count_requests(found, how), "requests") as advance:
        samples = heldout.score(ref, found, formats, how, progress=advance)
    key = {"model": model_fingerprint(ref), "dtype": how.dtype, "max_new_tokens": max_new_tokens}
    key |= {
        "compare": dict.fromkeys(exact_match, compare)
    }  # by domain, so that results graded otherwise are told apart
    return Result(model=Path(ref.path).name, suite="heldout", path=ref.path, provenance={"key": key}, samples=samples)


def _refuse_unknown(exact_match: Collection[str], compare: str, domains: Collection[str]) -> None:
    """Raise ValueError for domains that no example has, which would measure nothing, and for another way to compare."""
    there = ", ".join(sorted(domains))
    if isinstance(exact_match, str) or not isinstance(exact_match, Collection):
        raise ValueError(
            f"exact_match is {exact_match!r}; it is a list of the domains whose answers are compared, of {there}."
        )
    if unknown := sorted(set(exact_match) - set(domains)):
        raise ValueError(f"exact_match names {', '.join(unknown)}; the domains of the examples are {there}.")
    if compare not in get_args(AnswerPart):
        raise ValueError(f"compare is {compare!r}; choose one of {', '.join(get_args(AnswerPart))}.")
