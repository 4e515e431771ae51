"""What sources teach, example by example and token by token, against what pivot and fused model say."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from fusion.analysis.rescaling import Rescaling, rescaling
from fusion.analysis.token_classes import TokenClass, token_classes
from fusion.cache import Cache
from fusion.models.head import Head, hidden_states
from fusion.models.loading import ModelRef, load_model, vocabulary
from fusion.objectives import BatchTargets
from fusion.runtime.console import bar
from fusion.runtime.distributed import device
from fusion.stages.context import Job
from fusion.stages.train import training_source
from fusion.training import FusionCollator
from fusion.transforms.true_token import with_gold_entry
from fusion.weighting import Sum

SAMPLE = 500
"""Examples that models are run on."""


def rescaling_all(job: Job, share: float, sample: int = 2000) -> dict[str, list[Rescaling]]:
    """How each source rescales the training examples, the first `sample` of them, against the pivot before training.

    Raises ValueError where a cache is not there yet.
    """
    pivot = Cache(job.config.folder / "cache" / "pivot")
    names = [source.name for source in job.config.sources]
    theirs: dict[str, list[Tensor]] = {name: [] for name in names}
    mine: dict[str, list[Tensor]] = {name: [] for name in names}
    domains: dict[str, list[str]] = {name: [] for name in names}
    for numbers, batch in _batches(job, sample, 64):
        gold = pivot.rows([job.ids[n] for n in numbers]).gold
        for name, source in batch["targets"].sources.items():
            theirs[name].append(source.mapped.pivot_token_logprob)
            mine[name].append(gold[source.pivot_index])
            domains[name] += [job.train[numbers[e]].domain for e in source.mapped.example.tolist()]
    return {n: rescaling(torch.cat(theirs[n]), torch.cat(mine[n]), domains[n], share) for n in names}


def classes_all(job: Job, least: int, sample: int = SAMPLE) -> dict[str, list[TokenClass]]:
    """Of each source, what it (`source`), the pivot and the fused model (if there is one) say where a token follows.

    On the first `sample` training examples and tokens that follow at least so often. Raises ValueError where a cache is not
    there yet.
    """
    batches = [batch for _, batch in _batches(job, sample, 8)]
    names = [source.name for source in job.config.sources]
    mapped = {name: [with_gold_entry(batch["targets"].sources[name].mapped)[0] for batch in batches] for name in names}
    said = {name: {"source": [rows.logprobs for rows in mapped[name]]} for name in names}
    for which, model in models(job):
        head = Head.of(model, vocabulary(job.tokenizers["pivot"]))
        with bar(f"predictions of {which}", len(batches)) as advance:
            for number, batch in enumerate(batches):
                asked = _asked(model, head, batch, {name: mapped[name][number].ids for name in names})
                for name in names:
                    said[name].setdefault(which, []).append(asked[name])
                advance(1)
    found = {}
    for name in names:
        label, ids = (torch.cat([getattr(rows, field) for rows in mapped[name]]) for field in ("token", "ids"))
        found[name] = token_classes(label, ids, {who: torch.cat(parts) for who, parts in said[name].items()}, least)
    return found


def models(job: Job) -> Iterator[tuple[str, Any]]:
    """The pivot before training, and the fused model where there is one, each loaded in its turn."""
    yield "pivot", load_model(job.config.pivot.ref, job.config.extract.dtype, device())
    if (job.config.folder / "fused" / "fusion.json").exists():
        yield "fused", load_model(ModelRef(str(job.config.folder / "fused")), job.config.extract.dtype, device())


def _batches(job: Job, sample: int, size: int) -> Iterator[tuple[range, dict[str, Any]]]:
    """Numbers of the first `sample` training examples, and what training would see of them with every source counting fully."""
    names = [source.name for source in job.config.sources]
    sources = [training_source(job, name, Cache(job.config.folder / "cache" / name)) for name in names]
    collator = FusionCollator(job.train, job.encoded("pivot"), sources, Sum(), alignment=job.config.alignment)
    count = min(sample, len(job.train))
    for start in range(0, count, size):
        numbers = range(start, min(start + size, count))
        yield numbers, collator(numbers)


@torch.inference_mode()
def _asked(model: Any, head: Head, batch: dict[str, Any], ids: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The model's log-probabilities of ids at the rows that each source teaches."""
    inputs = {name: batch[name].to(model.device) for name in ("input_ids", "attention_mask")}
    targets: BatchTargets = batch["targets"].to(model.device)
    hidden = hidden_states(model, **inputs).flatten(0, 1)[targets.row_positions]
    found = {}
    for name, wanted in ids.items():
        index = targets.sources[name].pivot_index
        _, asked = head.rows(hidden[index], targets.positions.select(index), 0, wanted.to(model.device), moments=False)
        found[name] = asked.cpu()
    return found
