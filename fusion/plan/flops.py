"""Floating-point operations: a multiplication and an addition are two, whatever runs them."""

from __future__ import annotations

from dataclasses import dataclass

from fusion.plan.architecture import Architecture


@dataclass(frozen=True)
class Counts:
    """What one model reads of a data set, once. Padding is not counted."""

    examples: int
    tokens: int
    """Tokens that are read. What several examples begin with may be read once for all of them: see `shared_tokens`."""
    squared_lengths: int
    """Sum over examples of tokens that are read times tokens that they look at: attention compares each with each."""
    rows: int
    """Response positions, for which logits are made."""
    longest: int
    """Tokens of the longest example, with what it begins with."""
    shared_tokens: int = 0
    """Tokens at the beginnings of examples that are not read again, for another example begins with them."""
    shared_squares: int = 0
    """What reading them again would add to `squared_lengths`."""

    def scaled(self, examples: int) -> Counts:
        """Return the counts of so many of the examples; which ones is not known, so they are as long as all on average."""
        share = examples / self.examples
        sizes = (self.tokens, self.squared_lengths, self.rows, self.shared_tokens, self.shared_squares)
        tokens, squares, rows, *shared = (round(share * each) for each in sizes)
        return Counts(examples, tokens, squares, rows, self.longest, *shared)

    def whole(self) -> Counts:
        """Return the counts of the same examples where each is read from its beginning, as in training."""
        squares = self.squared_lengths + self.shared_squares
        return Counts(self.examples, self.tokens + self.shared_tokens, squares, self.rows, self.longest)

    def __add__(self, other: Counts) -> Counts:
        """Return the counts of both data sets together."""
        return Counts(
            self.examples + other.examples,
            self.tokens + other.tokens,
            self.squared_lengths + other.squared_lengths,
            self.rows + other.rows,
            max(self.longest, other.longest),
            self.shared_tokens + other.shared_tokens,
            self.shared_squares + other.shared_squares,
        )


def forward_flops(model: Architecture, counts: Counts) -> float:
    """One pass with logits on the rows, and on one more position an example, which the model computes by itself."""
    return _layers(model, counts) + _attention(model, counts) + _head(model, counts.rows + counts.examples)


def training_flops(
    model: Architecture, counts: Counts, *, checkpointed: bool, recompute_logits: bool, backward_passes: int = 1
) -> float:
    """A forward and a backward pass, which costs twice that; attention's is 2.5 times, since fused kernels recompute scores.

    `checkpointed`: layers are computed once more, up to what their last matrix reads. `recompute_logits`: so are logits,
    because they did not exist all at once. `backward_passes`: how often gradients go back through the layers.
    """
    last = 2.0 * model.layers * model.intermediate_size * model.hidden_size * counts.tokens
    recomputed = _layers(model, counts) - last + _attention(model, counts) if checkpointed else 0.0
    layers = (
        (1 + 2 * backward_passes) * _layers(model, counts)
        + (1 + 2.5 * backward_passes) * _attention(model, counts)
        + backward_passes * recomputed
    )
    return layers + (3 + int(recompute_logits)) * _head(model, counts.rows) + _head(model, counts.examples)


def seconds(flops: int | float, *, gpus: int, peak: int | float, mfu: int | float) -> float:
    """Time of `flops` on `gpus` that reach the share `mfu` of their `peak`. Recomputed operations count too."""
    return flops / (gpus * peak * mfu)


def _layers(model: Architecture, counts: Counts) -> float:
    return 2.0 * model.active_parameters * counts.tokens


def _attention(model: Architecture, counts: Counts) -> float:
    """Queries with keys, and scores with values, both over the whole square, as dense kernels do."""
    return 4.0 * model.layers * model.query_size * counts.squared_lengths


def _head(model: Architecture, rows: int) -> float:
    return 2.0 * model.vocab_size * model.hidden_size * rows
