"""What an objective is tried on: random, equal and extreme rows of every unit."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import torch
from torch import Tensor

from fusion.core.rows import LogitRows, MappedRows, Positions
from fusion.objectives import (
    GLD,
    L1,
    LLP,
    MSE,
    NKD,
    OPSA,
    ULD,
    USKD,
    Affinity,
    AlignDistil,
    AllSourcesObjective,
    CrossEntropy,
    DualHead,
    ExampleObjective,
    ForwardKL,
    GromovWasserstein,
    GroupReward,
    HiddenProjector,
    Hungarian,
    InfiFusion,
    JensenShannon,
    LeastLikely,
    LumiNet,
    MappedObjective,
    Matcher,
    Mixture,
    ModuleObjective,
    ModuleSpec,
    Objective,
    OneVsRest,
    OptimalTransport,
    OutputLayer,
    PlackettLuce,
    PolicyGradient,
    PolicyObjective,
    RelationObjective,
    ReverseKL,
    RowObjective,
    SkewedKL,
    SpanLikelihood,
    SpanObjective,
    SpanRelations,
    TopKContrastive,
    TopKDecoupled,
    ZScoreKL,
)
from fusion.objectives.policy.rollouts import rollout_rows
from tests.helpers.rollouts import inputs_of
from tests.helpers.rows import as_mapped, query, random_rows, rows_of

E, V, W, K = 3, 23, 31, 6  # examples, the pivot's vocabulary, a source's, kept entries
EXAMPLES: list[Objective] = [
    CrossEntropy(),
    ULD(),
    ULD(pivot_temperature=2.0, source_temperature=0.5),
    InfiFusion(top_k=4),
    InfiFusion(top_k=4, post="softmax", unbiased=False),
    *(GLD(top_k=4, input=i, nodes=n) for i in ("standardised", "raw", "probabilities") for n in ("rank", "token")),
    *(
        GromovWasserstein(top_k=4, input=i, nodes=n, top_nodes=9)
        for i in ("standardised", "probabilities")
        for n in ("rank", "token")
    ),
    GromovWasserstein(top_k=4, bound="lower"),
    *(GromovWasserstein(top_k=4, solver="pot", nodes=n, top_nodes=9) for n in ("rank", "token")),
    GromovWasserstein(top_k=4, solver="pot", epsilon=0.2, starts=2, seed=1),
    *(ForwardKL(tail=t, top_k=k) for t in ("bucket", "residual_to_gold", "none") for k in (None, 2)),
    *(kind(top_k=k) for kind in (ReverseKL, JensenShannon, SkewedKL, L1) for k in (None, 2)),
    JensenShannon(source_share=0.9),
    SkewedKL(direction="reverse"),
    SkewedKL(skew=0.0),
    SpanLikelihood(),
    SpanLikelihood(temperature=20.0),
    *(
        Mixture(objective=inner)
        for inner in (ForwardKL(), ForwardKL(top_k=2), ReverseKL(), L1(), PlackettLuce(), NKD())
    ),
    *(PlackettLuce(top_k=k) for k in (None, 2)),
    *(NKD(top_k=k) for k in (None, 2)),
    NKD(gamma=0.0),
    USKD(top_k=4),
    *(OneVsRest(beta=beta, top_k=k) for beta in (0.0, 1.0) for k in (None, 2)),
    *(ZScoreKL(over=over, top_k=k) for over in ("vocabulary", "support") for k in (None, 3)),
    LLP(),
    LLP(delta=0.1, top_k=4, temperature=2.0),
    TopKDecoupled(top_k=3),
    TopKDecoupled(top_k=3, negative=0.5),
    TopKContrastive(),
    *(MSE(top_k=k) for k in (None, 3)),
    Hungarian(top_k=4, candidates=6),
    Hungarian(top_k=6, candidates=3, spelling=0.5, difference="probabilities", loss="l1"),
    Hungarian(top_k=3, candidates=3, probability=0.0),
    LumiNet(rows=2),
    LumiNet(rows=3, columns=5),
    AlignDistil(expert="source0", opposite="source1"),
    *(Affinity(order=order, sketch=sketch) for order in (1, 2) for sketch in (None, 4)),
    SpanRelations(),
    SpanRelations(window=0, random=3, delta=0.02, temperature=0.5),
    SpanRelations(window=3, random=0),
    *(OptimalTransport(cost=cost) for cost in ("cosine", "attention", "euclidean")),
    OptimalTransport(cost="attention", alpha=0.1),
    OptimalTransport(other_answers=True),
    HiddenProjector(),
    HiddenProjector(disparity=0.9),
    *(DualHead(loss=loss) for loss in ("binary_kl_norm", "binary_kl", "kl")),
    DualHead(loss="kl", temperature=2.0),
    *(Matcher(objective=inner) for inner in (ForwardKL(top_k=2), PlackettLuce())),
    *(PolicyGradient(beta=beta, clip=clip) for beta in (0.5, 0.0) for clip in (0.5, 5.0)),
    GroupReward(),
    GroupReward(epsilon=0.2, epsilon_high=0.28, beta=0.1),
    LeastLikely(),
    LeastLikely(fraction=0.5, advantage=-0.1),
    OPSA(),
]

SPELLING = torch.rand(W, V, generator=torch.Generator().manual_seed(9), dtype=torch.float64)
"""How unlike the tokens of a source and of the pivot are spelled: 0 for those with the same id alone."""
SPELLING[torch.arange(V), torch.arange(V)] = 0

NOT_LEAST_AT_EQUALITY: dict[str, Callable[[Objective], bool]] = {
    "cross_entropy": lambda _: True,  # least where the following token is certain, and so are the next two
    "plackett_luce": lambda _: True,
    "nkd": lambda _: True,
    "mixture": lambda o: o.objective.kind in ("plackett_luce", "nkd"),  # type: ignore[attr-defined]
    "uskd": lambda _: True,  # looks at no source
    "topkd_contrastive": lambda _: True,  # least where positions are told apart
    "optimal_transport": lambda _: True,  # its plan is blurred
    "matcher": lambda _: True,  # has a matcher's cross-entropy in it
    "policy_gradient": lambda _: True,  # no loss to be least: its gradient alone means something
    "group_reward": lambda _: True,
    "least_likely": lambda _: True,
    "opsa": lambda _: True,
    "gromov_wasserstein": lambda o: o.epsilon is not None,  # type: ignore[attr-defined]  # its plan is blurred
    "uld": lambda o: o.pivot_temperature != o.source_temperature,  # type: ignore[attr-defined]
    "forward_kl": lambda o: o.tail == "residual_to_gold",  # type: ignore[attr-defined]  # least at another distribution
}
"""Terms that are not least where pivot and source agree; each says so in its docstring, and its own file tests where it is."""

HOLDS_CONSTANT = {
    "one_vs_rest": lambda o: o.beta > 0,  # its weights
    "uskd": lambda o: o.alpha > 0,  # its target
    "hidden_projector": lambda o: o.disparity is not None,  # its weights
    "matcher": lambda _: True,  # its scores
    "policy_gradient": lambda _: True,  # ratios and advantages
    "group_reward": lambda _: True,
    "least_likely": lambda _: True,
    "opsa": lambda _: True,
}
"""Terms that take a function of the pivot as a constant, so that finite differences do not know their gradient."""


@dataclasses.dataclass
class Case:
    """A pivot's logits, and the rows of sources as the objective wants them: one, or several for all at once."""

    objective: Objective
    logits: Tensor
    positions: Positions
    source: LogitRows | MappedRows
    others: list[MappedRows] = dataclasses.field(default_factory=list)
    share: Tensor | None = None
    names: tuple[str, ...] = ("source0", "source1")
    module: torch.nn.Module | None = None

    @property
    def pivot(self) -> LogitRows:
        """Its rows; the logits themselves serve as hidden states, for an objective that looks at such."""
        rows = self._numbers()
        hidden = self.logits if "hidden" in self.objective.required_pivot_fields else None
        return dataclasses.replace(rows, hidden=hidden, prefix=self.positions.prefix)

    def _numbers(self) -> LogitRows:
        if isinstance(self.objective, MappedObjective):
            return query(self.logits, self.source.ids, self.positions)
        if isinstance(self.objective, AllSourcesObjective):
            return query(self.logits, torch.cat([s.ids for s in (self.source, *self.others)], dim=1), self.positions)
        entries = self.objective.requirements.pivot_top_k
        return rows_of(self.logits, V if entries is None else entries, self.positions.token, self.positions.example)

    def values(self) -> Tensor:
        pivot, source = self.pivot, self.source
        own = {} if self.module is None else {"module": self.module}
        match self.objective:
            case RowObjective():
                return self.objective(pivot)
            case SpanObjective():
                return self.objective(pivot.gold, source.gold)
            case ExampleObjective() | RelationObjective():
                return self.objective(pivot, source, E, **own)
            case PolicyObjective():
                inputs = inputs_of(pivot, {"source0": source}, E)
                rollouts = rollout_rows(inputs)
                return torch.stack([*self.objective(rollouts, self.objective.advantages(inputs, rollouts)).values()])[0]
            case AllSourcesObjective():
                named = dict(zip(self.names, (source, *self.others), strict=True))
                return self.objective(pivot, named, self.share)
            case _:
                return self.objective(pivot, source, **own)

    def reordered(self, order: Tensor) -> Case:
        """The same rows in another order; those of a whole example on its source's side stay."""
        joined = not isinstance(self.objective, ExampleObjective)
        return dataclasses.replace(
            self,
            logits=self.logits.detach()[order].requires_grad_(),
            positions=self.positions.select(order),
            source=self.source.select(order) if joined else self.source,
            others=[other.select(order) for other in self.others],
            share=None if self.share is None else self.share[:, order],
        )


class Spelling(torch.nn.Module):
    """Distances between the tokens of both sides: [M, K, L]."""

    def forward(self, pivot: Tensor, source: Tensor) -> Tensor:
        return SPELLING[source[:, :, None], pivot[:, None, :]]


def case(objective: Objective, N: int = 11, dtype: torch.dtype = torch.float32) -> Case:
    """Random rows. The source's differ in precision, and in length and vocabulary where the kind allows it."""
    positions = random_rows(N, 0, V, dtype, seed=1, examples=E)
    logits = torch.randn(N, V, generator=torch.Generator().manual_seed(2)).to(dtype).requires_grad_()
    other = torch.float64 if dtype == torch.float32 else torch.float32  # the source's precision must not leak out
    if objective.requirements.mapped_rows:
        sources = [_mapped(positions, other, objective, seed) for seed in (3, 5)]
        several = isinstance(objective, AllSourcesObjective)
        share = torch.rand(2, N, generator=torch.Generator().manual_seed(7)).to(dtype)
        return Case(
            objective,
            logits,
            positions,
            sources[0],
            sources[1:] if several else [],
            share / share.sum(0) if several else None,
            module=module(objective, W, dtype),
        )
    count = N + 4 if isinstance(objective, ExampleObjective) and N else N  # whole examples may differ in length
    source = random_rows(count, W if objective.required_top_k is None else K, W, other, 3, examples=E)
    hidden = torch.randn(count, W, generator=torch.Generator().manual_seed(8)).to(other)
    found = Case(objective, logits, positions, dataclasses.replace(source, hidden=hidden))
    return dataclasses.replace(found, module=module(objective, W, dtype))


def module(objective: Objective, width: int, dtype: torch.dtype) -> torch.nn.Module | None:
    """What the objective owns, for the pivot and a source of that width and vocabulary whose head is the identity."""
    if not isinstance(objective, ModuleObjective):
        return None
    spec = ModuleSpec(V, width, width, lambda _: OutputLayer(torch.eye(width, dtype=torch.float64)), Spelling)
    with torch.random.fork_rng():
        torch.manual_seed(9)
        built = objective.build_module(spec)
    return built.double() if dtype == torch.float64 else built.float()


def _mapped(positions: LogitRows, dtype: torch.dtype, objective: Objective, seed: int) -> MappedRows:
    """Rows about the same text as `positions`, a share of their entries empty."""
    generator, N = torch.Generator().manual_seed(seed), len(positions)
    logits = torch.randn(N, V, generator=generator, dtype=torch.float64) * 3
    entries = V if objective.required_top_k is None else K
    rows = as_mapped(rows_of(logits.to(dtype), entries, positions.token, positions.example))
    if "hidden" in objective.required_source_fields:
        rows = dataclasses.replace(rows, hidden=torch.randn(N, W, generator=generator).to(dtype))
    if not N or objective.required_top_k is None:
        return rows
    empty = torch.rand(rows.ids.shape, generator=generator) < 0.3
    return dataclasses.replace(
        rows,
        logprobs=rows.logprobs.masked_fill(empty, -torch.inf),
        ids=rows.ids.masked_fill(empty & (torch.arange(rows.k) % 2 == 1), -1),  # either sign of emptiness is enough
    )


def equal(objective: Objective, logits: Tensor) -> Case:
    """A source that says what the pivot says."""
    N = len(logits)
    token = torch.arange(N) % V
    positions = rows_of(logits.detach(), 0, token, torch.arange(N) * E // N)
    rows = rows_of(logits.detach(), V if objective.required_top_k is None else K, token, positions.example)
    rows = dataclasses.replace(rows, hidden=logits.detach())
    rows = as_mapped(rows) if objective.requirements.mapped_rows else rows
    several = isinstance(objective, AllSourcesObjective)
    share = torch.full((2, N), 0.5, dtype=logits.dtype) if several else None
    found = Case(objective, logits, positions, rows, [rows] if several else [], share)
    return dataclasses.replace(found, module=module(objective, V, logits.dtype))


def extremes(dtype: torch.dtype) -> dict[str, Tensor]:
    """Rows of logits that break careless formulas."""
    sharp = torch.zeros(5, V)
    sharp[:, 2] = 500.0
    tied = (torch.arange(V) % 3).float().expand(5, V)
    wide = torch.linspace(-1e4, 1e4, V).expand(5, V)
    found = {"constant": torch.zeros(5, V), "tied": tied, "sharp": sharp, "wide": wide, "level": wide * 1e-6 + 300.0}
    return {name: logits.to(dtype).contiguous() for name, logits in found.items()}
