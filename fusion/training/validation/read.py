"""One reading of all validation examples by a model in training, which it leaves as it was."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from fusion.core.rows import Positions
from fusion.data.encode import Encoded
from fusion.models.head import Head, hidden_states
from fusion.runtime import distributed
from fusion.training.validation.sums import measures, sums_of
from fusion.training.validation.texts import ValidationTexts

LayOut = Callable[[Sequence[Encoded]], tuple[dict[str, Tensor], Tensor, Positions]]
"""Texts to a batch as in training, padded or packed: model inputs, index of the hidden state of each row, positions."""


def read_validation(
    model: Any, head: Head, texts: ValidationTexts, lay_out: LayOut, *, batch_size: int, device: torch.device,
    add_up: Callable[[Tensor], Tensor],
) -> dict[str, float]:  # fmt: skip
    """Read the examples with `model`, which may be wrapped for distributed training; numbers as `measures` names them.

    Every process calls it, reads its share, and gets the numbers of all: `add_up` sums a tensor over processes. Weights,
    gradients, random numbers and the mode of the model are afterwards what they were before.
    """
    sums = torch.zeros(())
    with _undisturbed(model, device):
        for batch in texts.batches(batch_size, distributed.rank(), distributed.world_size()):
            found = _read_batch(model, head, texts, batch or [0], lay_out, device)
            sums = sums + (found if batch else torch.zeros_like(found))  # read to keep step with the other processes
    return measures(add_up(sums.to(device)).cpu(), texts.domains)


def _read_batch(
    model: Any, head: Head, texts: ValidationTexts, batch: Sequence[int], lay_out: LayOut, device: torch.device
) -> Float[Tensor, "G P"]:
    domains = texts.domains
    encoded, scored = [texts.encoded[n] for n in batch], [texts.scored(n) for n in batch]
    inputs, index, positions = lay_out(encoded)
    counted = torch.tensor(
        [row < count for text, (count, _) in zip(encoded, scored, strict=True) for row in range(text.num_rows)]
    )
    hidden = hidden_states(model, **{name: each.to(device) for name, each in inputs.items()}).flatten(0, 1)
    positions = positions.select(counted)
    found, entropy = head.rows_and_entropy(hidden[index[counted].to(device)], positions.to(device))
    rows = found.to("cpu")
    return sums_of(
        rows,
        entropy.cpu(),  # waits for the device, and so for the rows too
        domain=torch.tensor([domains.index(texts.examples[n].domain) for n in batch]),
        size=torch.tensor([size for _, size in scored]),
        domains=len(domains),
    )


@contextmanager
def _undisturbed(model: Any, device: torch.device) -> Iterator[None]:
    """Evaluation mode without gradients; the mode and the random numbers of training go on as if nothing had been read."""
    was_training = model.training
    model.eval()
    try:
        # some architectures draw numbers in evaluation mode too
        with torch.random.fork_rng([device] if device.type == "cuda" else []), torch.no_grad():
            yield
    finally:
        model.train(was_training)
