"""Items and results as evaluations leave them."""

import numpy as np

from fusion_eval.results import Item, Result


def item(id: str, nats: float = 1.0, size: int = 4, exact: bool | None = None, domain: str = "sums") -> Item:
    return Item(id=id, domain=domain, bytes=size, nats=nats, exact=exact, prompt="1 + 1", expected="2", answer=None)


def result(model: str, items: list[Item], suite: str = "heldout") -> Result:
    return Result(model=model, suite=suite, path=model, made={}, items=items)


def some_items(seed: int, n: int = 30, domain: str = "sums", shift: float = 0.0) -> list[Item]:
    rng, sizes = np.random.default_rng(seed), np.random.default_rng(99).integers(2, 40, n)
    return [
        item(f"{domain}-{i}", (shift + rng.random()) * sizes[i], int(sizes[i]), bool(rng.random() < 0.4), domain)
        for i in range(n)
    ]
