"""The pair loss on logits that are there already, against losses that sort whole vocabularies."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from fusion.core.rows import LogitRows
from fusion.models.head.logits import summarize_logits
from fusion.objectives import InfiFusion
from tests.benchmarks import bodies
from tests.benchmarks.measure import Figure, paired

ROWS, SOURCE = 64, 151_936


def measure() -> Iterable[Figure]:
    """Forward and backward of one source's term, down to the gradient of the pivot's logits."""
    torch.manual_seed(0)
    logits, theirs = torch.randn(ROWS, bodies.PIVOT) * 3, torch.randn(ROWS, SOURCE) * 3
    ours = _step(logits, _pair_loss(ROWS))
    full = paired(_step(logits, lambda x: sorted_uld(x, theirs)), ours)
    yield Figure("full-vocabulary sorted ULD / pair loss", str(full), "≥ 4", f"{ROWS} rows, {full.b * 1e3:.0f} ms")
    if trl := _trl(theirs):
        ratio = paired(_step(logits, trl), ours)
        yield Figure(
            "TRL's ULD loss / pair loss", str(ratio), "", "trl.experimental.gold, by position, no cross-entropy"
        )
    else:
        yield Figure("TRL's ULD loss / pair loss", "not measured", "", "trl is not installed")


def sorted_uld(pivot: Tensor, source: Tensor) -> Tensor:
    """ULD as published: both softmaxes sorted, the shorter padded, L1."""
    p = pivot.softmax(-1).sort(-1, descending=True).values
    q = source.softmax(-1).sort(-1, descending=True).values
    p = torch.nn.functional.pad(p, (0, q.shape[1] - p.shape[1]))
    return (p - q).abs().sum(-1).mean()


def _pair_loss(rows: int) -> Callable[[Tensor], Tensor]:
    source, objective = bodies.random_rows(1, rows, SOURCE), InfiFusion()

    def loss(logits: Tensor) -> Tensor:
        found = summarize_logits(
            logits, torch.zeros(rows, dtype=torch.long), torch.empty(rows, 0, dtype=torch.long), 10, False
        )
        place = torch.zeros(rows, dtype=torch.long)
        mine = LogitRows(found.logprobs, found.ids, found.gold, found.mean, found.std, prefix=place, example=place)
        return objective(mine, source).mean()

    return loss


def _step(logits: Tensor, loss: Callable[[Tensor], Tensor]) -> Callable[[], None]:
    def step() -> None:
        x = logits.detach().requires_grad_()
        loss(x).backward()

    return step


def _trl(source: Tensor) -> Callable[[Tensor], Tensor] | None:
    try:
        from trl.experimental.gold import GOLDConfig
        from trl.experimental.gold.gold_trainer import ULDLoss
    except ImportError:
        return None
    settings: dict[str, Any] = {"use_uld_loss": True, "use_extended_uld": False, "uld_crossentropy_weight": 0.0}
    config = GOLDConfig(output_dir="unused", report_to=[], use_cpu=True, bf16=False, **settings)
    uld = ULDLoss(config)
    ids = torch.zeros(1, ROWS + 1, dtype=torch.long)
    labels = ids.clone()
    labels[:, 0] = -100
    pad = torch.nn.functional.pad

    def loss(logits: Tensor) -> Tensor:
        ours, theirs = (pad(x, (0, 0, 0, 1))[None] for x in (logits, source))
        return uld(ours, theirs, labels, labels, ids, ids)

    return loss
