"""How far the pivot has moved since it wrote a token, and from where on a step counts no more.

Everywhere `log_ratio` is log pi(y_t) - log mu(y_t), in nats: pi the pivot that is trained, mu the one that wrote the text.
"""

from __future__ import annotations

from jaxtyping import Bool, Float
from torch import Tensor

MAX_LOG_RATIO = 20.0
"""Beyond exp(20) a ratio is logged as that: in float32 its exponential would be infinite from 88 on."""


def importance_ratio(log_ratio: Float[Tensor, " M"]) -> Float[Tensor, " M"]:
    """pi / mu of each token, finite."""
    return log_ratio.clamp(max=MAX_LOG_RATIO).exp()


def is_clipped(
    ratio: Float[Tensor, " M"], advantage: Float[Tensor, " M"], epsilon: float, epsilon_high: float
) -> Bool[Tensor, " M"]:
    """Whether a step along `advantage` would lead a token further out of [1 - epsilon, 1 + epsilon_high].

    These are the tokens that the clipped surrogate of PPO has no gradient at: likelier than the upper bound and to be made
    likelier still, or less likely than the lower one and to be made less likely. Tokens that lie outside and are on their
    way back count.

    Source: Schulman et al. 2017, arXiv:1707.06347, equation 7, with two bounds as in Yu et al. 2025, arXiv:2503.14476.
    """
    return ((advantage > 0) & (ratio > 1 + epsilon_high)) | ((advantage < 0) & (ratio < 1 - epsilon))


def kl_from_old(log_ratio: Float[Tensor, " M"]) -> Float[Tensor, " M"]:
    """Estimate KL(pi ‖ mu) from tokens that mu drew, in nats: rho log rho - (rho - 1).

    Never negative, 0 where nothing moved, and its mean over mu is the KL: rho log rho has that mean, and rho - 1 the mean 0.
    """
    log_ratio = log_ratio.clamp(max=MAX_LOG_RATIO)
    return log_ratio.exp() * log_ratio - log_ratio.expm1()


def kl_from_reference(
    log_ratio: Float[Tensor, " M"], logprobs: Float[Tensor, " M"], reference: Float[Tensor, " M"]
) -> Float[Tensor, " M"]:
    """Estimate KL(pi ‖ reference) from tokens that mu drew, in nats: rho (r - 1 - log r), r = reference / pi.

    Never negative. Source: the estimator k3 of TRL's GRPO with `use_bias_correction_kl`.
    """
    log_r = (reference - logprobs).clamp(max=MAX_LOG_RATIO)
    return importance_ratio(log_ratio) * (log_r.expm1() - log_r)
