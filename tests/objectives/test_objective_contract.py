"""What every objective promises, whatever it computes; one that is listed in `contract.EXAMPLES` is held to it."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from pydantic import TypeAdapter, ValidationError
from torch import Tensor

from fusion.core.rows import MappedRows
from fusion.objectives import (
    OBJECTIVES,
    AllSourcesObjective,
    AnyObjective,
    ExampleObjective,
    MappedObjective,
    Objective,
    PreferenceObjective,
    RelationObjective,
)
from tests.helpers.contract import EXAMPLES, HOLDS_CONSTANT, NOT_LEAST_AT_EQUALITY, E, V, case, equal, extremes


def those(*kinds: type[Objective]):
    chosen = [objective for objective in EXAMPLES if isinstance(objective, kinds)]
    return pytest.mark.parametrize("objective", chosen, ids=repr)


every_objective = those(Objective)
REFUSE_UNKNOWN = {"gld", "gromov_wasserstein", "zscore_kl", "policy_gradient"}


def is_by_example(objective: Objective) -> bool:
    """Whether its values are those of examples, not of rows."""
    return isinstance(objective, ExampleObjective | RelationObjective)


def gold_name(rows) -> str:
    """Field of a source's log-probability of the true token."""
    return "pivot_token_logprob" if isinstance(rows, MappedRows) else "gold"


def test_every_class_is_tried():
    assert len(OBJECTIVES) >= 5
    by_rows = {
        kind for kind in OBJECTIVES if not issubclass(kind, PreferenceObjective)
    }  # pairs: tests/objectives/preference
    assert {type(objective) for objective in EXAMPLES} == by_rows
    assert len({repr(objective) for objective in EXAMPLES}) == len(EXAMPLES) > 30


@every_objective
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_there_is_one_finite_value_for_each_unit_in_the_pivots_dtype(objective, dtype):
    values = case(objective, dtype=dtype).values()
    assert values.shape == (E if is_by_example(objective) else 11,)
    assert values.dtype == dtype
    assert values.isfinite().all()


@every_objective
def test_the_gradient_reaches_the_pivot_and_never_the_source(objective):
    tried = case(objective)
    floats = {f.name: getattr(tried.source, f.name) for f in dataclasses.fields(tried.source)}
    leaves = {n: v.clone().requires_grad_() for n, v in floats.items() if v is not None and v.is_floating_point()}
    tried.source = dataclasses.replace(tried.source, **leaves)
    tried.values().sum().backward()
    assert tried.logits.grad.isfinite().all()
    assert tried.logits.grad.abs().max() > 1e-6
    assert all(leaf.grad is None for leaf in leaves.values())


@every_objective
def test_the_gradient_agrees_with_finite_differences(objective):
    if HOLDS_CONSTANT.get(objective.kind, lambda _: False)(objective):
        pytest.skip("its own file checks the gradient with that constant")
    tried = case(objective, dtype=torch.float64)

    def loss(logits: Tensor) -> Tensor:
        return dataclasses.replace(tried, logits=logits).values()

    assert torch.autograd.gradcheck(loss, tried.logits, fast_mode=True)


@every_objective
def test_a_term_is_zero_where_pivot_and_source_agree_and_never_below_it(objective):
    if NOT_LEAST_AT_EQUALITY.get(objective.kind, lambda _: False)(objective):
        pytest.skip("says where it is least in its docstring")
    logits = torch.randn(9, V, dtype=torch.float64, generator=torch.Generator().manual_seed(4)) * 2
    at_equality = equal(objective, logits).values()
    torch.testing.assert_close(at_equality, torch.zeros_like(at_equality), atol=1e-12, rtol=0)
    if getattr(objective, "tail", None) != "none":  # without a tail the entries are no distribution
        assert (case(objective, dtype=torch.float64).values() >= 0).all()


@every_objective
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_extreme_rows_give_finite_values_and_gradients(objective, dtype):
    plain = torch.randn(5, V, generator=torch.Generator().manual_seed(6)).to(dtype)
    for name, strange in extremes(dtype).items():
        for mine, theirs in ((strange, plain), (plain, strange), (strange, strange)):
            tried = equal(objective, theirs)
            tried.logits = mine.clone().requires_grad_()
            values = tried.values()
            values.sum().backward()
            assert values.isfinite().all(), name
            assert tried.logits.grad.isfinite().all(), name


@those(MappedObjective, AllSourcesObjective)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_rows_without_any_entry_give_finite_values_and_gradients(objective, dtype):
    if objective.required_top_k is None:
        pytest.skip("refuses rows that are not whole")
    tried = case(objective, dtype=dtype)
    tried.source = dataclasses.replace(
        tried.source,
        ids=torch.full_like(tried.source.ids, -1),
        logprobs=torch.full_like(tried.source.logprobs, -torch.inf),
        pivot_token_logprob=torch.full_like(tried.source.pivot_token_logprob, torch.nan),
    )
    tried.values().sum().backward()
    assert tried.values().isfinite().all()
    assert tried.logits.grad.isfinite().all()


@every_objective
def test_rows_of_other_examples_change_neither_value_nor_gradient(objective):
    if objective.requirements.whole_batch:
        pytest.skip("says that it depends on the whole micro-batch")
    tried = case(objective)
    other = tried.positions.example != 1
    changed = dataclasses.replace(tried, logits=(tried.logits.detach() * torch.where(other, 3.0, 1.0)[:, None]))
    changed.logits.requires_grad_()
    there = tried.source.example != 1
    if objective.required_top_k is not None:  # a whole vocabulary that does not sum to one would be refused
        fainter = tried.source.logprobs - torch.where(there, 0.1, 0.0)[:, None]
        changed.source = dataclasses.replace(tried.source, logprobs=fainter)
    if tried.source.hidden is not None:
        longer = tried.source.hidden.flip(1).where(there[:, None], tried.source.hidden)
        changed.source = dataclasses.replace(changed.source, hidden=longer)
    mine = torch.tensor([False, True, False]) if is_by_example(objective) else ~other
    before, after = tried.values()[mine], changed.values()[mine]
    assert torch.equal(before, after)
    before.sum().backward()
    after.sum().backward()
    torch.testing.assert_close(tried.logits.grad, changed.logits.grad)
    assert (tried.logits.grad[other] == 0).all()


@every_objective
def test_the_order_of_the_rows_changes_nothing(objective):
    tried = case(objective, dtype=torch.float64)
    order = torch.cat([torch.randperm(4), 4 + torch.randperm(4), 8 + torch.randperm(3)])  # examples stay together
    assert torch.equal(tried.positions.example[order], tried.positions.example)
    moved = tried.reordered(order)
    values = tried.values() if is_by_example(objective) else tried.values()[order]
    torch.testing.assert_close(moved.values(), values)


@those(AllSourcesObjective)
def test_the_order_of_sources_changes_nothing(objective):
    tried = case(objective, dtype=torch.float64)
    swapped = dataclasses.replace(
        tried, source=tried.others[0], others=[tried.source], share=tried.share.flip(0), names=tried.names[::-1]
    )
    torch.testing.assert_close(swapped.values(), tried.values())


@every_objective
def test_a_constant_on_the_logits_changes_nothing(objective):
    if "hidden" in objective.required_pivot_fields:
        pytest.skip("the logits serve as hidden states, whose level means something")
    tried = case(objective, dtype=torch.float64)
    moved = dataclasses.replace(tried, logits=tried.logits + torch.arange(11.0)[:, None] * 7)
    torch.testing.assert_close(moved.values(), tried.values())


@those(MappedObjective)
def test_the_order_of_mapped_entries_and_what_the_pivot_says_at_empty_ones_change_nothing(objective):
    tried = case(objective, dtype=torch.float64)
    pivot, source, order = tried.pivot, tried.source, torch.randperm(tried.source.k)
    empty = (source.ids < 0) | source.logprobs.isneginf()
    assert empty.any() or objective.required_top_k is None
    blank = dataclasses.replace(
        pivot, logprobs=pivot.logprobs.masked_fill(empty, torch.nan)[:, order], ids=pivot.ids[:, order]
    )
    moved = dataclasses.replace(source, logprobs=source.logprobs[:, order], ids=source.ids[:, order])
    own = {} if tried.module is None else {"module": tried.module}
    torch.testing.assert_close(objective(blank, moved, **own), tried.values())


@every_objective
@pytest.mark.parametrize("field", ["gold", "mean", "std", "hidden"])
def test_a_field_of_the_source_is_read_exactly_if_it_is_declared(objective, field):
    tried = case(objective)
    unknown = torch.full_like(tried.logits if field == "hidden" else tried.source.mean, torch.nan)
    if field == "hidden" and tried.source.hidden is not None:
        unknown = torch.full_like(tried.source.hidden, torch.nan)
    name = gold_name(tried.source) if field == "gold" else field
    blind = dataclasses.replace(tried, source=dataclasses.replace(tried.source, **{name: unknown}))
    if field not in objective.required_source_fields:
        assert torch.equal(blind.values(), tried.values())
        return
    if objective.kind in REFUSE_UNKNOWN:
        with pytest.raises(ValueError, match=r"\(NaN\)"):
            blind.values()
    else:
        assert not torch.equal(blind.values(), tried.values())


@every_objective
def test_nothing_to_compare_gives_no_values_or_zeros(objective):
    values = case(objective, N=0).values()
    assert values.shape == (E if is_by_example(objective) else 0,)
    assert (values == 0).all()


@every_objective
def test_rows_are_left_as_they_were(objective):
    tried = case(objective)
    both = tried.pivot, tried.source
    fields = [(rows, name) for rows in both for name in ("logprobs", "ids", gold_name(rows), "mean", "std")]
    before = [getattr(rows, name).clone() for rows, name in fields]
    tried.values()
    after = [getattr(rows, name) for rows, name in fields]
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


@every_objective
def test_settings_survive_being_written_down_and_read(objective):
    assert TypeAdapter(AnyObjective).validate_python(objective.model_dump()) == objective


@pytest.mark.parametrize("kind", OBJECTIVES)
def test_a_negative_weight_and_an_unknown_key_are_refused(kind):
    with pytest.raises(ValidationError, match="greater than or equal to 0"):
        kind(weight=-0.1)
    with pytest.raises(ValidationError, match="Extra inputs"):
        kind(temprature=2.0)


@every_objective
def test_every_parameter_has_a_sentence(objective):
    described = {name: field.description for name, field in type(objective).model_fields.items() if name != "kind"}
    assert all(described.values()), described
