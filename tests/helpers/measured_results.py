"""Samples and results as evaluations write them."""

import numpy as np

from fusion_eval.results import Result, Sample


def sample(id: str, nll: float = 1.0, size: int = 4, exact_match: bool | None = None, domain: str = "sums") -> Sample:
    return Sample(
        id=id, domain=domain, bytes=size, nll=nll, exact_match=exact_match, prompt="1 + 1", target="2", answer=None
    )


def result(model: str, samples: list[Sample], suite: str = "heldout") -> Result:
    return Result(model=model, suite=suite, path=model, provenance={}, samples=samples)


def some_samples(seed: int, n: int = 30, domain: str = "sums", shift: float = 0.0) -> list[Sample]:
    rng, sizes = np.random.default_rng(seed), np.random.default_rng(99).integers(2, 40, n)
    return [
        sample(f"{domain}-{i}", (shift + rng.random()) * sizes[i], int(sizes[i]), bool(rng.random() < 0.4), domain)
        for i in range(n)
    ]
