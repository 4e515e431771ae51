"""Effects of the sources, by example and by token, compared with the predictions of the pivot and the fused model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from fusion.analysis.rescaling import Rescaling, rescaling
from fusion.analysis.source_rows import source_cache
from fusion.analysis.token_classes import TokenClass, token_classes
from fusion.cache import Cache
from fusion.models.head import Head, hidden_states
from fusion.models.loading import ModelRef, load_model, vocabulary_size
from fusion.objectives import BatchTargets
from fusion.runtime.console import bar
from fusion.runtime.distributed import device
from fusion.stages.context import RunContext
from fusion.stages.train import training_source
from fusion.training import TrainingCollator
from fusion.transforms.true_token import with_gold_entry
from fusion.weighting import Sum

SAMPLE = 500
"""Examples that models are run on."""


def rescaling_by_source(context: RunContext, share: float, sample: int = 2000) -> dict[str, list[Rescaling]]:
    """How each source rescales the training examples, the first `sample` of them, against the pivot before training.

    Raises ValueError where a cache is not there yet.
    """
    pivot = Cache(context.config.folder / "cache" / "pivot")
    names = [source.name for source in context.config.sources]
    source_gold: dict[str, list[Tensor]] = {name: [] for name in names}
    pivot_gold: dict[str, list[Tensor]] = {name: [] for name in names}
    domains: dict[str, list[str]] = {name: [] for name in names}
    for numbers, batch in _batches(context, sample, 64):
        gold = pivot.rows([context.ids[n] for n in numbers]).gold
        for name, source in batch["targets"].sources.items():
            source_gold[name].append(source.mapped.pivot_token_logprob)
            pivot_gold[name].append(gold[source.pivot_index])
            domains[name] += [context.train_examples[numbers[e]].domain for e in source.mapped.example.tolist()]
    return {n: rescaling(torch.cat(source_gold[n]), torch.cat(pivot_gold[n]), domains[n], share) for n in names}


def token_classes_by_source(context: RunContext, min_rows: int, sample: int = SAMPLE) -> dict[str, list[TokenClass]]:
    """Mean predictions of each source, of the pivot, and of the fused model if there is one, where a token follows.

    On the first `sample` training examples, for tokens that follow at least `min_rows` times. Raises ValueError where a
    cache is not there yet.
    """
    batches = [batch for _, batch in _batches(context, sample, 8)]
    names = [source.name for source in context.config.sources]
    mapped = {name: [with_gold_entry(batch["targets"].sources[name].mapped)[0] for batch in batches] for name in names}
    logprobs = {name: {"source": [rows.logprobs for rows in mapped[name]]} for name in names}
    for which, model in load_models(context):
        head = Head.from_model(model, vocabulary_size(context.tokenizers["pivot"]))
        with bar(f"predictions of {which}", len(batches), "batches") as advance:
            for number, batch in enumerate(batches):
                predicted = _logprobs_of(model, head, batch, {name: mapped[name][number].ids for name in names})
                for name in names:
                    logprobs[name].setdefault(which, []).append(predicted[name])
                advance(1)
    found = {}
    for name in names:
        label, ids = (torch.cat([getattr(rows, field) for rows in mapped[name]]) for field in ("token", "ids"))
        found[name] = token_classes(
            label, ids, {who: torch.cat(parts) for who, parts in logprobs[name].items()}, min_rows
        )
    return found


def load_models(context: RunContext) -> Iterator[tuple[str, Any]]:
    """The pivot before training, and the fused model where there is one, each loaded in its turn."""
    yield "pivot", load_model(context.config.pivot.ref, context.config.extract.resolved_dtype, device())
    if (context.config.folder / "fused" / "fusion.json").exists():
        yield (
            "fused",
            load_model(ModelRef(str(context.config.folder / "fused")), context.config.extract.resolved_dtype, device()),
        )


def _batches(context: RunContext, sample: int, size: int) -> Iterator[tuple[range, dict[str, Any]]]:
    """Numbers of the first `sample` training examples, and what training would see of them with every source counting fully."""
    names = [source.name for source in context.config.sources]
    sources = [training_source(context, name, source_cache(context, name)) for name in names]
    collator = TrainingCollator(
        context.train_examples, context.encoded("pivot"), sources, Sum(), alignment=context.config.alignment
    )
    count = min(sample, len(context.train_examples))
    for start in range(0, count, size):
        numbers = range(start, min(start + size, count))
        yield numbers, collator(numbers)


@torch.inference_mode()
def _logprobs_of(model: Any, head: Head, batch: dict[str, Any], ids: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Log-probabilities that the model gives to `ids` at the rows that are matched with each source."""
    inputs = {name: batch[name].to(model.device) for name in ("input_ids", "attention_mask")}
    targets: BatchTargets = batch["targets"].to(model.device)
    hidden = hidden_states(model, **inputs).flatten(0, 1)[targets.hidden_index]
    found = {}
    for name, token_ids in ids.items():
        index, token_ids = targets.sources[name].pivot_index, token_ids.to(model.device)
        _, logprobs = head.rows(hidden[index], targets.positions.select(index), 0, token_ids, moments=False)
        found[name] = logprobs.cpu()
    return found
