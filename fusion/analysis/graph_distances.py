"""How far the closed forms for graphs on logits lie from what POT's solvers find, on the rows of a run's own examples."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from fusion.analysis.source_rows import source_cache
from fusion.core.rows import LogitRows
from fusion.models.loading import vocabulary_size
from fusion.objectives import GromovWasserstein
from fusion.objectives.graph.gld import GraphObjective
from fusion.objectives.graph.gromov import bounds
from fusion.objectives.graph.pot_solver import MAX_NODES, best_plan, gram, import_pot, plan_cost
from fusion.runtime.console import bar
from fusion.runtime.distributed import device
from fusion.sources import SourceRequest
from fusion.stages.context import RunContext

SAMPLE, STARTS, EPSILON = 32, 8, 0.1
LOWER, UPPER = "lower bound: sorted row sums", "upper bound: sorted matching"
ONE_START, EXACT = "POT from the sorted matching", f"POT, best of {STARTS} starts"
ENTROPIC = f"POT, entropic (epsilon {EPSILON:g})"
SHARED = ("top_k", "input", "nodes", "top_nodes")


@dataclass(frozen=True)
class GraphDistances:
    """GW_2 of the graphs of two models (not squared), one value for each example and way to come by it."""

    nodes: int
    values: dict[str, Float[Tensor, " E"]]
    """By the names above, in ascending order as far as that is certain."""
    seconds: dict[str, float]
    """Of the computation, for all examples together."""


def graph_distances_by_source(context: RunContext, sample: int = SAMPLE) -> dict[str, GraphDistances]:
    """Compare the pivot's graphs with each source's on the first `sample` training examples.

    The source's rows are those of its cache; the pivot, whose cache keeps too few entries, reads these examples. Settings of
    the graph are those of the run's first objective on graphs, or the defaults. Raises ValueError where POT or a cache is
    absent, or its rows hold too little.
    """
    import_pot()
    term = graph_settings(context)
    count = min(sample, len(context.train_examples))
    ids = context.ids[:count]
    rows = {s.name: _cached_rows(context, s.name, ids, term) for s in context.config.sources}
    pivot = _pivot_rows(context, count, term.top_k)
    return {name: compare_graphs(term, pivot, source, count) for name, source in rows.items()}


def graph_settings(context: RunContext) -> GromovWasserstein:
    """The graph that the run's first objective on graphs builds, as large as a solver takes; the default if none does."""
    first = next((each for each in context.config.objectives if isinstance(each, GraphObjective)), GromovWasserstein())
    settings = {name: getattr(first, name) for name in SHARED}
    name = "top_k" if first.nodes == "rank" else "top_nodes"
    return GromovWasserstein(**settings | {name: min(settings[name], MAX_NODES)})


def compare_graphs(term: GromovWasserstein, pivot: LogitRows, source: LogitRows, examples: int) -> GraphDistances:
    """Bounds and POT's values for each example that has rows on both sides; the graphs are built as `term` builds them."""
    pairs = [(z.double(), y.double()) for z, y in term.paired_graphs(pivot, source, examples) if len(z) and len(y)]
    ways: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
        LOWER: lambda z, y: bounds(z, y)[0],
        EXACT: lambda z, y: _solved(z, y, STARTS, None),
        ONE_START: lambda z, y: _solved(z, y, 1, None),
        UPPER: lambda z, y: bounds(z, y)[1],
        ENTROPIC: lambda z, y: _solved(z, y, 2, EPSILON),
    }
    found = {name: _timed(way, pairs) for name, way in ways.items()}
    nodes = pairs[0][0].shape[1] if pairs else 0
    return GraphDistances(nodes, {n: v for n, (v, _) in found.items()}, {n: s for n, (_, s) in found.items()})


def _solved(z: Tensor, y: Tensor, starts: int, epsilon: float | None) -> Tensor:
    """Cost of the best plan, without its entropy."""
    C, D = gram(z), gram(y)
    scale = float(D.abs().max()) or 1.0
    plan = best_plan(C / scale, D / scale, starts=starts, seed=0, epsilon=epsilon)
    return plan_cost(C, D, torch.from_numpy(plan))


def _timed(
    way: Callable[[Tensor, Tensor], Tensor], pairs: Sequence[tuple[Tensor, Tensor]]
) -> tuple[Float[Tensor, " E"], float]:
    start = time.perf_counter()
    values = [way(z, y) for z, y in pairs]
    seconds = time.perf_counter() - start
    return torch.tensor([float(value) for value in values], dtype=torch.float64).clamp(min=0).sqrt(), seconds


def _cached_rows(context: RunContext, name: str, ids: Sequence[str], term: GromovWasserstein) -> LogitRows:
    cache = source_cache(context, name)
    if cache.is_sampled or cache.entries < term.top_k:
        holds = "entries drawn at random" if cache.is_sampled else f"{cache.entries} entries"
        raise ValueError(
            f"{cache.folder} keeps {holds} of each row, and the graphs are of the {term.top_k} largest. Extract with top_k of "
            f"{term.top_k} or more and without sampling, or lower top_k of the objective on graphs."
        )
    return cache.rows(ids)


def _pivot_rows(context: RunContext, count: int, top_k: int) -> LogitRows:
    """What the pivot says of the first examples before training: read now."""
    extract, tokenizer = context.config.extract, context.tokenizers["pivot"]
    request = SourceRequest(
        context.config.pivot.ref, tokenizer, min(top_k, vocabulary_size(tokenizer)), extract.resolved_dtype, device(),
        extract.batch_tokens,
    )  # fmt: skip
    texts = [context.encoded("pivot")[number] for number in range(count)]
    with bar("rows of pivot", int(context.encoded("pivot").lengths[:count].sum()), "tokens") as advance:
        rows = context.backend("pivot").open(request).rows(texts, advance)
    return replace(rows, hidden=None)
