"""The two sides of the Gromov-Wasserstein distance that need no search, against POT's solver, on logits of real models."""

from __future__ import annotations

import os
from collections.abc import Iterable
from itertools import combinations
from pathlib import Path

import numpy as np
import ot
import torch

from fusion.core.rows import LogitRows
from fusion.data.encode import encode
from fusion.data.prompt_format import PromptFormat
from fusion.models.head import Head
from fusion.models.loading import ModelRef, load_model, load_tokenizer, vocabulary_size
from fusion.objectives import GromovWasserstein
from fusion.objectives.graph.gromov import bounds
from fusion.sources import TransformersSource
from tests.benchmarks.measure import Figure

DOCS = Path(__file__).parents[2] / "docs"
TEXTS, LENGTH = 16, 600


def measure() -> Iterable[Figure]:
    """GW_2 of pairs of models on paragraphs of this project's documents; medians over texts."""
    if not (folder := os.environ.get("FUSION_REAL_MODELS")):
        yield Figure("bracket on real models", "not measured", "", "FUSION_REAL_MODELS names no folder")
        return
    rows = {place.name: _rows(place) for place in sorted(Path(folder).iterdir()) if (place / "config.json").exists()}
    for nodes in ("rank", "token"):
        term = GromovWasserstein(nodes=nodes, top_nodes=50)
        for one, other in combinations(rows, 2):
            yield _bracket(term, f"{one} against {other}", rows[one], rows[other])


def _bracket(term: GromovWasserstein, names: str, one: LogitRows, other: LogitRows) -> Figure:
    found = np.array([_three(z.double(), y.double()) for z, y in zip(
        term.graphs(one, TEXTS, "pivot"), term.graphs(other, TEXTS, "source"), strict=True)])  # fmt: skip
    lower, solver, upper = np.median(found, axis=0)
    inside = np.mean((found[:, 0] <= found[:, 1] * (1 + 1e-6)) & (found[:, 1] <= found[:, 2] * (1 + 1e-6)))
    share = (
        f"the solver's value lies between in {inside:.0%} of {TEXTS} texts, and is {solver / upper:.0%} of the upper"
    )
    how = f"{names}; {share}"
    size = "10 ranks" if term.nodes == "rank" else f"{term.top_nodes} tokens"
    return Figure(f"lower, solver, upper; {size}", f"{lower:.3g}, {solver:.3g}, {upper:.3g}", "", how)


def _three(z: torch.Tensor, y: torch.Tensor) -> tuple[float, float, float]:
    lower, upper = bounds(z, y).sqrt().tolist()
    c, d = ((each.T @ each / len(each)).numpy() for each in (z, y))
    even = np.full(len(c), 1 / len(c))
    starts = (np.outer(even, even), np.diag(even))  # nothing known, and the matching that sorts
    costs = [ot.gromov.gromov_wasserstein2(c, d, even, even, G0=start, symmetric=True) for start in starts]
    return lower, float(min(costs)) ** 0.5, upper


def _rows(place: Path) -> LogitRows:
    ref = ModelRef(str(place))
    model, tokenizer = load_model(ref), load_tokenizer(ref)
    texts = [
        text[:LENGTH]
        for page in sorted(DOCS.glob("*.md"))
        for text in page.read_text().split("\n\n")
        if len(text) > 300
    ]
    encoded = [encode(tokenizer, (), text, prompt_format=PromptFormat("plain")) for text in texts[:TEXTS]]
    return TransformersSource(model, Head.from_model(model, vocabulary_size(tokenizer)), k=10).rows(encoded)
