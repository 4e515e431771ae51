"""Settings of random sampling knowledge distillation: entries sampled from the whole distribution instead of the top k."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from fusion.core.settings import Settings
from fusion.data.encode import Encoded


class RandomSampling(Settings):
    """Random sampling knowledge distillation: ids drawn with replacement from the source's whole distribution, and counts.

    The largest entries are a biased target; counts / draws is an unbiased one, so that any term that is linear in the target
    has the gradient of the whole row on average. About a quarter of 50 draws are different ids.

    Source: Anshumann et al. 2025, arXiv:2503.16870.
    """

    draws: int = Field(default=50, gt=0, le=127)
    """How often an id is drawn at each position. Counts are kept in 7 bits."""
    tau: float = Field(default=1.0, gt=0)
    """Ids are drawn by p^tau, and each counts p / p^tau (normalised): below 1 rare tokens are drawn more often."""
    seed: int = 0
    """With the tokens of a text, all that the draws of its positions depend on."""

    def uniform(self, texts: Sequence[Encoded]) -> Float[Tensor, "N D"]:
        """Return one number in [0, 1) for each draw of each row of the texts; those of a text do not depend on the others."""
        parts = [self._stream(text).random((text.num_rows, self.draws)) for text in texts]
        return torch.from_numpy(np.concatenate([np.empty((0, self.draws)), *parts]))

    def _stream(self, text: Encoded) -> np.random.Generator:
        name = f"{self.seed} {text.start} {text.input_ids}".encode()
        key = int.from_bytes(hashlib.blake2b(name, digest_size=16).digest(), "little")
        return np.random.Generator(np.random.Philox(key=key))
