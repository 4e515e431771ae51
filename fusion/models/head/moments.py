"""Mean and standard deviation of logits from the hidden state: two small products instead of two passes over the vocabulary."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

ROWS_PER_CHUNK = 1 << 14  # rows of the weight that are converted to float32 at a time


@dataclass(frozen=True)
class LogitMoments:
    """Computes mean and std of logits `W h + b` from h; h is extended by a 1 and W by b as one more column (D1 = D + 1).

    With w the mean of W's rows, the mean of the logits is w·h, and their variance is h' G h / V, where G is the Gram matrix
    of the rows minus w. There is no cancellation of large numbers, so float32 is enough.
    """

    mean: Float[Tensor, " D1"]
    gram: Float[Tensor, "D1 D1"]
    """Gram matrix of the centred rows, divided by V."""

    @classmethod
    @torch.no_grad()
    def from_layer(cls, layer: nn.Linear, vocabulary: int, scale: float = 1.0) -> LogitMoments:
        """Compute them from the first `vocabulary` rows of an output layer: 2 V (D+1)^2 floating-point operations."""
        weight, bias = layer.weight[:vocabulary], layer.bias
        mean = weight.new_zeros(weight.shape[1] + 1, dtype=torch.float32)
        gram = mean.new_zeros(len(mean), len(mean))
        for start in range(0, vocabulary, ROWS_PER_CHUNK):
            mean += _rows_with_bias(weight, bias, start, scale).sum(0) / vocabulary
        for start in range(0, vocabulary, ROWS_PER_CHUNK):
            rows = _rows_with_bias(weight, bias, start, scale) - mean
            gram += rows.T @ rows / vocabulary
        return cls(mean, gram)

    def __call__(self, hidden: Float[Tensor, "N D"]) -> tuple[Float[Tensor, " N"], Float[Tensor, " N"]]:
        """Return mean and population standard deviation of each row of logits, in float32."""
        h = torch.cat([hidden.float(), hidden.new_ones(len(hidden), 1, dtype=torch.float32)], dim=1)
        return h @ self.mean, ((h @ self.gram) * h).sum(-1).clamp(min=0).sqrt()


def _rows_with_bias(weight: Tensor, bias: Tensor | None, start: int, scale: float) -> Tensor:
    rows = weight[start : start + ROWS_PER_CHUNK].float()
    column = rows.new_zeros(len(rows)) if bias is None else bias[start : start + len(rows)].float()
    return torch.cat([rows, column[:, None]], dim=1) * scale
