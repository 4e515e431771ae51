"""Recover the hidden size of a model and the span of its output layer from a cache of whole rows of logits.

Logits are H W' with hidden states H [N, d] and the output layer W [V, d], so whole rows lie in d dimensions however large the
vocabulary. Their singular vectors span what the columns of W span: W is known up to an invertible matrix [d, d]. Uses:
what a shared cache would disclose, whether a cache comes from the model it is said to come from, and a head to train against.

Source: Carlini et al. 2024, arXiv:2403.06634; its use before distillation: arXiv:2509.00973.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from fusion.cache import Cache

MIN_GAP = 10.0
"""Ratio of neighbouring singular values that marks the end of the signal. A guess; for a trained model 16-bit values may leave
less, because its weakest dimensions are small."""
DEFAULT_ROWS = 2048
"""Rows read by default: enough for a hidden size of up to half of that."""
MAX_STEPS = 100
"""Most Gauss-Newton steps in the search for the levels of soft-capped rows; a dozen or two are usual."""


@dataclass(frozen=True)
class HeadRecovery:
    """The recovered span of an output layer."""

    basis: Float[Tensor, "V d"]
    """Its columns span the columns of the output layer, centred over the vocabulary; scaled as the logits of a mean row are."""
    singular_values: Float[Tensor, " S"]
    """All singular values of the centred rows, the largest first."""
    rows: int
    """How many rows it was computed from."""

    @property
    def hidden_size(self) -> int:
        """The number of dimensions of the span, which is the model's hidden size; see `recover_span` for exceptions."""
        return self.basis.shape[1]

    @property
    def gap(self) -> float:
        """The last singular value of the signal divided by the first behind it."""
        return float(self.singular_values[self.hidden_size - 1] / self.singular_values[self.hidden_size])


def recover_span_from_cache(
    cache: Cache, rows: int = DEFAULT_ROWS, softcap: float | None = None, width: int | None = None
) -> HeadRecovery:
    """Apply `recover_span` to about `rows` rows of a cache, of examples spread over it.

    Rows of a model with soft-capped logits need `softcap` and its claimed hidden size, `width`. Raises ValueError for a cache
    that does not hold whole rows, and where nothing is found.
    """
    refuse_partial_rows(cache)
    if (softcap is None) != (width is None):
        raise ValueError(
            "--softcap and --width go together: the level of each capped row is found as the one at which rows fit into "
            "that width (final_logit_softcapping and hidden_size in the model's config.json)."
        )
    step = max(1, len(cache) // max(1, rows))
    read = cache.rows(cache.ids[::step] or cache.ids)
    read = read.select(slice(0, rows))
    logprobs = torch.zeros(len(read), cache.entries, dtype=torch.float64).scatter(1, read.ids, read.logprobs.double())
    if softcap is not None and width is not None:
        logprobs = undo_softcap(logprobs, softcap, width)
    return recover_span(logprobs)


def refuse_partial_rows(cache: Cache) -> None:
    """Raise ValueError for a cache that does not hold whole rows."""
    if cache.key.get("top_k") == "all" and cache.known_fields.min_entries == cache.entries:
        return
    what = "drawn at random" if cache.is_sampled else "the largest"
    raise ValueError(
        f"{cache.folder} keeps {cache.entries} entries of each row, {what}. Which ids those are differs from row to row, so "
        "they span no common space, and filling in the others would be a guess. Extract the model with top_k: all."
    )


def centred(logits: Float[Tensor, "N V"]) -> Float[Tensor, "N V"]:
    """Return each row minus its mean: equal for logits and log-probabilities, which differ by a constant of the row."""
    return logits - logits.mean(-1, keepdim=True)


def recover_span(logits: Float[Tensor, "N V"]) -> HeadRecovery:
    """Recover the span of the output layer from whole rows, of logits or log-probabilities.

    The hidden size is where singular values fall most, if by a factor of `MIN_GAP` or more. It is searched among the first
    half, so that there are at least two rows, and two tokens, for each dimension: with fewer rows the rank is their number.
    A bias of the output layer adds one dimension; a LayerNorm before it without a shift takes one away. The largest entry of
    each column of the basis is positive, so that what was trained against it can go on elsewhere.

    Raises ValueError where no gap is found.
    """
    rows, vocabulary = logits.shape
    _, singular, right = torch.linalg.svd(centred(logits.double()), full_matrices=False)
    half = min(rows, vocabulary - 1) // 2
    # below rounding all values are as good as 0, and their ratios mean nothing
    floor = singular[:1] * torch.finfo(singular.dtype).eps * max(rows, vocabulary)
    ratio = singular[:half] / torch.maximum(singular[1 : half + 1], floor)
    if not half or ratio.max() < MIN_GAP:
        best = f"the largest is {ratio.max():.3g}" if half else "there are none"
        raise ValueError(
            f"No gap among the first {half} singular values of {rows} rows over {vocabulary} tokens: {MIN_GAP:g} is asked for, "
            f"{best}. Either the width is more than half the rows (read more: --rows) or half the vocabulary, or the rows are "
            "no products with one matrix: soft-capped (--softcap), transformed, from several models, or rounded more than the "
            "weakest dimensions say (extract.value_format: float32)."
        )
    width = int(ratio.argmax()) + 1
    right = right[:width] * right[:width].gather(1, right[:width].abs().argmax(1, keepdim=True)).sign()
    return HeadRecovery((right * singular[:width, None] / rows**0.5).T.contiguous(), singular, rows)


def undo_softcap(
    logprobs: Float[Tensor, "N V"], softcap: float, width: int, tolerance: float = 1e-10
) -> Float[Tensor, "N V"]:
    """Return the logits z, up to a constant a row, from log-probabilities of softcap * tanh(z / softcap).

    Log-probabilities lack the level (logsumexp) of the capped logits, without which the cap cannot be inverted. But only at
    the right level do rows lie in `width` (hidden size) dimensions: Gauss-Newton steps on the levels, with the span computed
    again before each. Float64.

    Raises ValueError for rows wider than the cap allows, and where there are not two rows for each dimension.
    """
    logprobs = logprobs.double()
    low, high = -softcap - logprobs.amin(-1, keepdim=True), softcap - logprobs.amax(-1, keepdim=True)
    if bool((low >= high).any()):
        spread = float((logprobs.amax(-1) - logprobs.amin(-1)).max())
        raise ValueError(f"Logits of a row differ by {spread:.3g}, which a cap of {softcap:g} does not allow.")
    if min(logprobs.shape) < 2 * width:
        raise ValueError(
            f"{len(logprobs)} rows over {logprobs.shape[1]} tokens are too few for a width of {width}: two of each a dimension "
            "are needed. Read more with --rows."
        )
    margin = 1e-6 * (high - low)
    level = (-logprobs.mean(-1, keepdim=True)).maximum(low + margin).minimum(high - margin)
    for _ in range(MAX_STEPS):
        tanh = (logprobs + level) / softcap
        outside = _outside_span(softcap * torch.atanh(tanh), 1 / (1 - tanh.square()), width)
        step = (outside[0] * outside[1]).sum(-1, keepdim=True) / outside[1].square().sum(-1, keepdim=True)
        moved = (level - step.nan_to_num()).maximum(low + margin).minimum(high - margin)
        done = float((moved - level).abs().max()) < tolerance * softcap
        level = moved
        if done:
            break
    return softcap * torch.atanh((logprobs + level) / softcap)


def _outside_span(logits: Tensor, slope: Tensor, width: int) -> list[Tensor]:
    """Return the parts of centred logits, and of their slopes, outside the `width` dimensions that hold most of the logits."""
    span = torch.linalg.svd(centred(logits), full_matrices=False).Vh[:width]
    return [values - values @ span.T @ span for values in (centred(logits), centred(slope))]


def principal_angles(basis: Float[Tensor, "V d"], head: Float[Tensor, "V e"]) -> Float[Tensor, " a"]:
    """Return the angles in degrees between the span of `basis` and that of a centred output layer, largest first.

    All are 0 where the one is the other's; min(d, e) of them.
    """
    from scipy import linalg  # slow to import, and every configuration reads this file

    weight = head.double() - head.double().mean(0)
    return torch.from_numpy(linalg.subspace_angles(basis.double().numpy(), weight.numpy())).rad2deg()


def geometry_score(source: Float[Tensor, "N d"], pivot: Float[Tensor, "N e"]) -> float:
    """Return 1 - min over rotations R of |T - S R|^2 / |T|^2: 1 where the pivot's hidden states S are the source's T, rotated.

    The narrower of two widths is padded with zeros. Neither centred nor scaled; 0 where S is 0, below 0 where it is
    far too large.

    Source: the geometry score of arXiv:2509.00973; the least is orthogonal Procrustes, Schönemann 1966.
    """
    T, S = source.double(), pivot.double()
    alike = torch.linalg.matrix_norm(S.T @ T, "nuc")  # padding with zeros adds none
    return float((2 * alike - S.square().sum()) / T.square().sum())
