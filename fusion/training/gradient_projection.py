"""Gradients of some terms, kept apart from the others' and projected so that they do not oppose them (as PCGrad does)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor, nn


class GradientProjection:
    """Gradients of terms that may help the other terms of a step but not oppose them, added up over its micro-batches.

    It holds one more number for each weight that these terms reach, and each micro-batch is read backwards twice.
    """

    def __init__(self, parameters: Iterable[nn.Parameter]):
        self.parameters = [parameter for parameter in parameters if parameter.requires_grad]
        self._clear()

    def add(self, loss: Tensor, scale: float = 1.0) -> Tensor:
        """Compute and keep the gradients of a loss, times what those of the other terms will be scaled by.

        Returns its value, for the sum of all terms. From that value only zeros flow back: every weight has a part in the
        backward pass of the others, as DDP expects.
        """
        with torch.autocast(loss.device.type, enabled=False):  # as in any other backward pass
            found = torch.autograd.grad(loss * scale, self.parameters, retain_graph=True, allow_unused=True)
        self._gradients = [_sum(old, new) for old, new in zip(self._gradients, found, strict=True)]
        return loss.detach() + 0 * loss

    def join(self, reduced: Callable[[Tensor], Tensor]) -> None:
        """Add the kept gradients, as `projected` leaves them, to those of the other terms, which are whole.

        `reduced` is the mean over processes.
        """
        both = [
            (weight, reduced(gradient))
            for weight, gradient in zip(self.parameters, self._gradients, strict=True)
            if gradient is not None
        ]
        others = [torch.zeros_like(own) if weight.grad is None else weight.grad for weight, own in both]
        for (weight, _), own, other in zip(both, projected([own for _, own in both], others), others, strict=True):
            weight.grad = other.add_(own)
        self._clear()

    def _clear(self) -> None:
        self._gradients: list[Tensor | None] = [None] * len(self.parameters)


def projected(gradients: Sequence[Tensor], others: Sequence[Tensor]) -> list[Tensor]:
    """Remove from `gradients` their part against `others`: g - min(0, g . h) h / |h|^2, each list being one long vector.

    Source: the gradient alignment of DHKD, Yang et al. 2024, arXiv:2411.08937, after Yu et al. 2020, arXiv:2001.06782.
    """
    dot, square = (_inner(each, others) for each in (gradients, others))
    against = (dot.clamp(max=0) / square.clamp(min=torch.finfo(square.dtype).tiny)).item()
    return [g - against * h for g, h in zip(gradients, others, strict=True)] if against else list(gradients)


def _inner(a: Sequence[Tensor], b: Sequence[Tensor]) -> Tensor:
    return torch.stack([(x * y).sum(dtype=torch.float64) for x, y in zip(a, b, strict=True)]).sum()


def _sum(old: Tensor | None, new: Tensor | None) -> Tensor | None:
    return new if old is None else old if new is None else old + new
