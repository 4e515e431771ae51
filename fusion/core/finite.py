"""Numbers that are none: where rows and weights hold NaN or infinity, so that whoever reads them can stop and say the place.

-inf is a number among log-probabilities: that of an id which cannot come, as in a masked vocabulary. NaN in `gold`, `mean` and
`std` of rows means *unknown* where a backend cannot know them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor

from fusion.core.rows import LogitRows

COMPARABLE = {torch.float64, torch.float32, torch.float16, torch.bfloat16}
"""Types that torch finds the largest number of; others, of 8 bits, are made float32 before."""


@dataclass(frozen=True)
class RowFault:
    """The first row that holds no numbers."""

    example: int
    """Number of its example among those of the rows."""
    prefix: int
    """Bytes of the response before it."""
    what: str
    """What is NaN or infinite."""
    count: int
    """How many rows are like it."""

    def __str__(self) -> str:
        more = f", and so are those of {self.count - 1} more rows" if self.count > 1 else ""
        return f"behind {self.prefix} bytes of the response {self.what}{more}"


def row_fault(rows: LogitRows, *, gold_is_known: bool = False) -> RowFault | None:
    """Return where `rows`, on the CPU, hold NaN or infinity that no row may hold; None for good ones.

    `gold_is_known` says that the rows come from a model whose logits were seen, so that a NaN there is none that means unknown.
    """
    entries = (rows.logprobs.isnan() | rows.logprobs.isposinf()) & (rows.ids >= 0)
    gold = rows.gold.isposinf() | (rows.gold.isnan() & gold_is_known)
    parts = {
        "its log-probabilities are NaN or infinite": entries.any(-1),
        "the log-probability of its true token is NaN or infinite": gold,
    }
    if rows.hidden is not None:
        parts["its hidden state is NaN"] = rows.hidden.isnan().any(-1)  # of one beyond float16 the cache says so
    for what, wrong in parts.items():
        if bool(wrong.any()):
            at = int(wrong.nonzero()[0, 0])
            return RowFault(int(rows.example[at]), int(rows.prefix[at]), what, int(wrong.sum()))
    return None


def impossible_ids_left_out(rows: LogitRows) -> LogitRows:
    """Return the rows with entries of probability 0, as masked ids have, made empty ones (-1, -inf)."""
    ids = rows.ids.masked_fill(rows.logprobs.isneginf(), -1)
    return LogitRows(**{**vars(rows), "ids": ids})


def broken_weights(weights: Iterable[tuple[str, Tensor]]) -> list[str]:
    """Return the names of weights that hold NaN or infinity, looking at this process's part of sharded ones.

    A bias may hold -inf, which masks ids. One wait for the device, however many weights there are.
    """
    names, largest = [], []
    for name, weight in weights:
        part = local_part(weight.detach())
        if part.numel() and part.is_floating_point():
            low, high = (part if part.dtype in COMPARABLE else part.float()).aminmax()  # NaN where any is
            names.append(name)
            largest.append((high if part.dim() == 1 and name.endswith("bias") else torch.maximum(-low, high)).float())
    if not names:
        return []
    values = torch.stack(largest)
    wrong = (values.isnan() | values.isposinf()).tolist()
    return [name for name, is_wrong in zip(names, wrong, strict=True) if is_wrong]


def local_part(weight: Tensor) -> Tensor:
    """Return what this process holds of a weight that may be sharded, by FSDP2 or ZeRO-3."""
    shard = getattr(weight, "ds_tensor", None)
    if shard is not None:
        return shard
    to_local = getattr(weight, "to_local", None)
    return weight if to_local is None else to_local()


def refuse_broken_files(folder: Path, way_out: str) -> None:
    """Raise ValueError where the safetensors files of a model hold NaN or infinity: then it is no model."""
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, "pt") as opened:
            names: Sequence[str] = list(opened.keys())
            broken = [name for name in names if broken_weights([(name, opened.get_tensor(name))])]
        if broken:
            more = f" and {len(broken) - 1} more" if len(broken) > 1 else ""
            raise ValueError(
                f"{file}: the weights {broken[0]}{more} are NaN or infinite, so this is no model. {way_out}"
            )
