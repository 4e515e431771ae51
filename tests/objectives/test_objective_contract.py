"""What every objective promises, whatever it computes: shape, finiteness, gradients, independence of other examples."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from pydantic import TypeAdapter, ValidationError
from torch import Tensor

from fusion.objectives import ALL, GLD, ULD, AnyObjective, CrossEntropy, ForwardKL, InfiFusion, Objective
from fusion.rows import LogitRows
from tests.rows import asked, random_rows, rows_of

E, V, W = 3, 23, 31  # examples, the pivot's vocabulary, a source's
OBJECTIVES = [
    CrossEntropy(),
    ULD(),
    ULD(pivot_temperature=2.0, source_temperature=0.5),
    InfiFusion(top_k=4),
    InfiFusion(top_k=4, post="softmax", unbiased=False),
    *(GLD(top_k=4, input=i, nodes=n) for i in ("standardised", "raw", "probabilities") for n in ("rank", "token")),
    *(ForwardKL(tail=t, top_k=k) for t in ("bucket", "residual_to_gold", "none") for k in (None, 2)),
]
every_objective = pytest.mark.parametrize("objective", OBJECTIVES, ids=repr)


@dataclasses.dataclass
class Case:
    """A pivot's logits, and the source's rows as the objective wants them."""

    objective: Objective
    logits: Tensor
    about: LogitRows
    source: LogitRows

    @property
    def pivot(self) -> LogitRows:
        if self.objective.unit == "mapped":
            return asked(self.logits, self.source.ids, self.about)
        entries = V if self.objective.entries is None else self.objective.entries
        return rows_of(self.logits, entries, self.about.token, self.about.example)

    def values(self) -> Tensor:
        arguments = {"row": (), "pair": (self.source,), "mapped": (self.source,), "example": (self.source, E)}
        return self.objective(self.pivot, *arguments[self.objective.unit])


def case(objective: Objective, N: int = 11, dtype: torch.dtype = torch.float32) -> Case:
    about = random_rows(N, 0, V, dtype, seed=1, examples=E)
    logits = torch.randn(N, V, generator=torch.Generator().manual_seed(2)).to(dtype).requires_grad_()
    # joined rows have one source row each; whole examples may differ in length
    count = N + 4 if objective.unit == "example" and N else N
    width = V if objective.unit == "mapped" else W
    other = torch.float64 if dtype == torch.float32 else torch.float32  # the source's precision must not leak out
    source = random_rows(count, W if objective.entries is None else 6, width, other, seed=3, examples=E)
    if objective.unit == "mapped" and N:
        empty = torch.rand(source.ids.shape, generator=torch.Generator().manual_seed(4)) < 0.3
        source = dataclasses.replace(source, logprobs=source.logprobs.masked_fill(empty, -torch.inf))
        source = dataclasses.replace(source, ids=source.ids.masked_fill(empty, -1))
    return Case(objective, logits, about, source)


def test_every_class_is_tried():
    assert len(ALL) == 5
    assert {type(objective) for objective in OBJECTIVES} == set(ALL)
    assert len(OBJECTIVES) == 17


@every_objective
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_there_is_one_finite_value_for_each_unit_in_the_pivots_dtype(objective, dtype):
    values = case(objective, dtype=dtype).values()
    assert values.shape == ((E,) if objective.unit == "example" else (11,))
    assert values.dtype == dtype
    assert values.isfinite().all()


@every_objective
def test_the_gradient_reaches_the_pivot_and_never_the_source(objective):
    tried = case(objective)
    floats = {f.name: getattr(tried.source, f.name) for f in dataclasses.fields(LogitRows)}
    leaves = {n: v.clone().requires_grad_() for n, v in floats.items() if v is not None and v.is_floating_point()}
    tried.source = dataclasses.replace(tried.source, **leaves)
    tried.values().sum().backward()
    assert tried.logits.grad.isfinite().all()
    assert tried.logits.grad.abs().max() > 1e-6
    assert all(leaf.grad is None for leaf in leaves.values())


@every_objective
def test_the_gradient_agrees_with_finite_differences(objective):
    tried = case(objective, dtype=torch.float64)

    def loss(logits: Tensor) -> Tensor:
        return dataclasses.replace(tried, logits=logits).values()

    assert torch.autograd.gradcheck(loss, tried.logits)


@every_objective
def test_rows_of_other_examples_change_neither_value_nor_gradient(objective):
    tried = case(objective)
    other = tried.about.example != 1
    changed = dataclasses.replace(tried, logits=(tried.logits.detach() * torch.where(other, 3.0, 1.0)[:, None]))
    changed.logits.requires_grad_()
    there = tried.source.example != 1
    if objective.entries is not None:  # a whole vocabulary that does not sum to one would be refused
        fainter = tried.source.logprobs - torch.where(there, 0.1, 0.0)[:, None]
        changed.source = dataclasses.replace(tried.source, logprobs=fainter)
    mine = torch.tensor([False, True, False]) if objective.unit == "example" else ~other
    before, after = tried.values()[mine], changed.values()[mine]
    assert torch.equal(before, after)
    before.sum().backward()
    after.sum().backward()
    torch.testing.assert_close(tried.logits.grad, changed.logits.grad)
    assert (tried.logits.grad[other] == 0).all()


@every_objective
def test_nothing_to_compare_gives_no_values_or_zeros(objective):
    values = case(objective, N=0).values()
    assert values.shape == ((E,) if objective.unit == "example" else (0,))
    assert (values == 0).all()


@every_objective
def test_rows_are_left_as_they_were(objective):
    tried = case(objective)
    fields = ("logprobs", "ids", "gold", "mean", "std")
    before = [getattr(rows, name).clone() for rows in (tried.pivot, tried.source) for name in fields]
    tried.values()
    after = [getattr(rows, name) for rows in (tried.pivot, tried.source) for name in fields]
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


@every_objective
def test_settings_survive_being_written_down_and_read(objective):
    assert TypeAdapter(AnyObjective).validate_python(objective.model_dump()) == objective


@pytest.mark.parametrize("kind", ALL)
def test_a_negative_weight_and_an_unknown_key_are_refused(kind):
    with pytest.raises(ValidationError, match="greater than or equal to 0"):
        kind(weight=-0.1)
    with pytest.raises(ValidationError, match="Extra inputs"):
        kind(temprature=2.0)


@every_objective
def test_every_parameter_has_a_sentence(objective):
    described = {name: field.description for name, field in type(objective).model_fields.items() if name != "kind"}
    assert all(described.values()), described
