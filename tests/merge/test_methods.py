"""The merge methods against float64 loops, against examples worked on paper, and by what must not change."""

import itertools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from fusion.merge import methods
from fusion.merge.methods import ALL, SCE, TIES, AnyMethod, Linear, TaskArithmetic
from fusion.merge.threshold import threshold
from tests import reference_merge as reference

CASES = {
    "linear": (Linear(), lambda b, m: reference.linear(b, m, [1.0] * len(m))),
    "linear, weights": (Linear(weights=[2, -0.5, 1]), lambda b, m: reference.linear(b, m, [2, -0.5, 1])),
    "linear, sum": (
        Linear(weights=[2, -0.5, 1], normalise=False),
        lambda b, m: reference.linear(b, m, [2, -0.5, 1], normalise=False),
    ),
    "task arithmetic": (TaskArithmetic(), lambda b, m: reference.task_arithmetic(b, m, [0.3] * len(m))),
    "task arithmetic, weights": (
        TaskArithmetic(weights=[1.5, -1, 0]),
        lambda b, m: reference.task_arithmetic(b, m, [1.5, -1, 0]),
    ),
    "ties": (TIES(), lambda b, m: reference.ties(b, m, [1 / len(m)] * len(m), 0.6)),
    "ties, weights": (
        TIES(weights=[3, 0, 1], density=0.29),
        lambda b, m: reference.ties(b, m, [3, 0, 1], 0.29),
    ),
    "sce": (SCE(), lambda b, m: reference.sce(b, m, 0.1)),
    "sce, all": (SCE(select_topk=1), lambda b, m: reference.sce(b, m, 1)),
}
SHAPES = [(), (1,), (7,), (5, 3), (2, 3, 41), (0,), (3, 0)]


def grown(shape, models=3, seed=0, dtype=torch.float32):
    """A base and models that differ from it a little, some entries not at all."""
    draw = torch.Generator().manual_seed(seed)
    base = torch.randn(shape, generator=draw)
    changes = [
        0.1 * torch.randn(shape, generator=draw) * (torch.rand(shape, generator=draw) > 0.2) for _ in range(models)
    ]
    return base.to(dtype), [(base + change).to(dtype) for change in changes]


def every(models):
    """Each method with settings under which it can merge that many models."""
    return [method(select_topk=1) if method is SCE and models == 1 else method() for method in ALL]


def test_the_union_and_the_list_name_the_same_four_methods():
    kinds = {option["properties"]["kind"]["const"] for option in TypeAdapter(AnyMethod).json_schema()["$defs"].values()}
    assert kinds == {method().kind for method in ALL} == {"linear", "task_arithmetic", "ties", "sce"}
    for method in ALL:
        assert TypeAdapter(AnyMethod).validate_python({"kind": method().kind}) == method()


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
def test_every_method_matches_its_definition(case, shape, dtype):
    method, expected = CASES[case]
    base, models = grown(shape, dtype=dtype, seed=math.prod(shape))
    merged = method(base, models)
    assert merged.dtype == torch.float32
    assert merged.shape == base.shape
    torch.testing.assert_close(merged.double(), expected(base, models), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("case", CASES)
def test_the_size_of_the_blocks_changes_nothing(case, monkeypatch):
    method, _ = CASES[case]
    base, models = grown((11, 13))
    whole = method(base, models)
    monkeypatch.setattr(methods, "BLOCK", 7)
    torch.testing.assert_close(method(base, models), whole, rtol=1e-6, atol=0)  # not equal: ω sums in another order


@given(
    shape=st.lists(st.integers(0, 4), max_size=3).map(tuple),
    models=st.integers(1, 5),
    seed=st.integers(0, 999),
    density=st.floats(0.001, 1),
)
def test_any_shape_and_number_of_models_gives_finite_numbers_near_the_definition(shape, models, seed, density):
    base, others = grown(shape, models, seed)
    equal = [1 / models] * models
    pairs = [
        (Linear(), reference.linear(base, others, equal)),
        (TaskArithmetic(), reference.task_arithmetic(base, others, [0.3] * models)),
        (TIES(density=density), reference.ties(base, others, equal, density)),
    ]
    topk = 1.0 if models == 1 else density
    for method, expected in [*pairs, (SCE(select_topk=topk), reference.sce(base, others, topk))]:
        merged = method(base, others)
        assert torch.isfinite(merged).all()
        torch.testing.assert_close(merged.double(), expected, rtol=1e-6, atol=1e-7)


# Problems whose answer is known


def test_ties_gives_the_numbers_worked_on_paper():
    # Five entries, density 0.6: three of each model are kept, (those) are not.
    #   a         4    -3     2   (-1)  (0.5)
    #   b         2    (1)  (-1)    3    -6
    #   c        (0)  (0.5)   1    -3     2
    #   elected   +     -     +   none    -      the sums are 6, -3, 3, 0, -4
    #   mean      3    -3    1.5    0    -6      of a and b, a, a and c, nobody, b
    base = torch.tensor([10.0, 20.0, 30.0, 40.0, 50.0])
    a = torch.tensor([4.0, -3.0, 2.0, -1.0, 0.5])
    b = torch.tensor([2.0, 1.0, -1.0, 3.0, -6.0])
    c = torch.tensor([0.0, 0.5, 1.0, -3.0, 2.0])
    merged = TIES(density=0.6)(base, [base + a, base + b, base + c])
    assert merged.tolist() == [13.0, 17.0, 31.5, 40.0, 44.0]


def test_ties_weights_both_the_election_and_the_mean():
    # 1·3 - 2·2 = -1 elects minus in the first entry; (1·2 + 2·8) / 3 = 6 in the second
    merged = TIES(density=1, weights=[1, 2])(torch.zeros(2), [torch.tensor([3.0, 2.0]), torch.tensor([-2.0, 8.0])])
    torch.testing.assert_close(merged, torch.tensor([-2.0, 6.0]))


def test_sce_gives_the_numbers_worked_on_paper():
    # Variances 9, 1, 0, 25/4 of four entries; two thirds of the three that vary keep the first and the last.
    # Selected changes: a (3, 4), b (-3, -1): squares 25 and 10, so ω = 5/7, 2/7.
    # Signs: 3 - 3 is a tie and stays at the base; 4 - 1 elects plus, where a alone agrees.
    a, b = torch.tensor([3.0, 1.0, 2.0, 4.0]), torch.tensor([-3.0, -1.0, 2.0, -1.0])
    assert SCE(select_topk=0.67)(torch.zeros(4), [a, b]).tolist() == [0.0, 0.0, 0.0, 4.0]
    # With b = (5, 0, 2, 1): variances 1, 1/4, 0, 9/4; squares of a 9 + 16 = 25, of b 25 + 1 = 26; so
    # (25·3 + 26·5) / 51 and (25·4 + 26·1) / 51.
    b = torch.tensor([5.0, 0.0, 2.0, 1.0])
    merged = SCE(select_topk=0.67)(torch.zeros(4), [a, b])
    torch.testing.assert_close(merged, torch.tensor([205 / 51, 0.0, 0.0, 126 / 51]))


def test_identical_changes_come_back_as_they_are():
    base, (model, *_) = grown((6, 5))
    same, change = [model] * 7, model - base
    torch.testing.assert_close(TaskArithmetic(weights=[0.5] * 7)(base, same), base + 3.5 * change)
    for method in (Linear(), TIES(density=1), SCE(select_topk=1)):
        torch.testing.assert_close(method(base, same), model, rtol=1e-7, atol=0)


def test_identical_changes_are_trimmed_by_ties_and_not_selected_by_sce():
    base, model = torch.zeros(5), torch.tensor([5.0, 4.0, 3.0, 2.0, 1.0])
    assert TIES(density=0.6)(base, [model] * 3).tolist() == [5.0, 4.0, 3.0, 0.0, 0.0]
    assert torch.equal(SCE(select_topk=0.9)(base, [model] * 7), base)


def test_sce_leaves_unselected_entries_at_the_base_and_changes_the_selected():
    base, models = grown((40, 25))
    variance = torch.stack(models).double().var(0, correction=0)
    merged = SCE(select_topk=0.1)(base, models)
    unselected = variance < variance.flatten().sort(descending=True).values[int(0.1 * (variance > 0).sum()) - 1]
    assert 850 < unselected.sum() < 950
    assert torch.equal(merged[unselected], base[unselected])
    assert (merged != base).sum() > 0.9 * (~unselected).sum()


@pytest.mark.parametrize("method", every(1), ids=lambda method: method.kind)
def test_a_single_model_is_returned_up_to_trimming_and_scale(method):
    base, (model,) = grown((50,), models=1)
    merged, change = method(base, [model]), model - base
    if method.kind == "task_arithmetic":
        change = 0.3 * change
    if method.kind == "ties":
        change = change.where(change.abs() >= change.abs().sort(descending=True).values[29], 0)
    torch.testing.assert_close(merged, base + change)


def test_sce_refuses_to_select_from_a_single_model():
    with pytest.raises(ValueError, match=r"select_topk 0.1 the result would be the base"):
        SCE()(torch.zeros(3), [torch.ones(3)])


@pytest.mark.parametrize("method", every(3), ids=lambda method: method.kind)
def test_models_equal_to_the_base_give_the_base(method):
    base, _ = grown((9, 4))
    assert torch.equal(method(base, [base] * 3), base)


@pytest.mark.parametrize("method", every(4), ids=lambda method: method.kind)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
def test_the_order_of_the_models_changes_nothing(method, dtype):
    base, models = grown((8, 16), models=4, dtype=dtype)
    first = method(base, models)
    for order in itertools.permutations(models):
        torch.testing.assert_close(method(base, order), first, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("method", [TIES(density=1), SCE(select_topk=1)], ids=lambda method: method.kind)
def test_changes_that_cancel_exactly_elect_nobody_in_any_order(method):
    changes = [torch.tensor([x]) for x in (0.1, 0.7, -0.8125, 0.0125)]
    changes[3] = -(
        changes[0].double() + changes[1].double() + changes[2].double()
    ).float()  # Σ is 0, though not in float32
    assert sum(change.double() for change in changes).item() == 0
    for order in itertools.permutations(changes):
        assert method(torch.zeros(1), order).item() == 0


@pytest.mark.parametrize("method", every(3), ids=lambda method: method.kind)
def test_merging_mirrored_models_gives_the_mirror_image(method):
    base, models = grown((10, 10))
    torch.testing.assert_close(method(-base, [-model for model in models]), -method(base, models), rtol=0, atol=0)


@pytest.mark.parametrize("method", every(3), ids=lambda method: method.kind)
def test_a_transposed_tensor_merges_to_the_transpose(method):
    base, models = grown((6, 9))
    torch.testing.assert_close(method(base.T, [model.T for model in models]), method(base, models).T)


# Thresholds


@given(values=st.lists(st.floats(0, 2.0**127, width=32), min_size=1, max_size=60), fraction=st.floats(0.01, 1))
def test_the_threshold_is_the_one_a_sort_finds(values, fraction):
    numbers = torch.tensor(values, dtype=torch.float32)
    count = reference.kept(fraction, len(values))
    assert threshold(lambda: numbers.split(7), fraction) == sorted(numbers.tolist(), reverse=True)[count - 1]


def test_the_threshold_reads_its_fraction_as_the_decimal_that_was_written():
    numbers = torch.arange(1, 101, dtype=torch.float32)
    assert 0.29 * 100 < 29
    assert threshold(lambda: [numbers], 0.29) == 72.0


def test_the_threshold_among_nonzero_numbers_ignores_zeros():
    numbers = torch.tensor([0.0] * 90 + [float(x) for x in range(1, 11)])
    assert threshold(lambda: [numbers], 0.2, nonzero=True) == 9.0
    assert threshold(lambda: [numbers], 0.2) == 0.0
    assert threshold(lambda: [torch.zeros(5)], 0.2, nonzero=True) == math.inf


def test_entries_that_tie_with_the_last_kept_are_kept_too():
    merged = TIES(density=0.5)(torch.zeros(4), [torch.tensor([1.0, -1.0, 1.0, 0.5])])
    assert merged.tolist() == [1.0, -1.0, 1.0, 0.0]


# Errors


def test_no_models_other_counts_and_other_shapes_are_refused():
    with pytest.raises(ValueError, match="ties needs at least one model"):
        TIES()(torch.zeros(2), [])
    with pytest.raises(ValueError, match="linear has 3 weights for 2 models"):
        Linear(weights=[1, 1, 1])(torch.zeros(2), [torch.zeros(2)] * 2)
    with pytest.raises(ValueError, match=r"shape \(3,\), the base's \(2,\)"):
        TaskArithmetic()(torch.zeros(2), [torch.zeros(2), torch.zeros(3)])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"kind": "linear", "weights": [0.1, 0.2, -0.3]}, "sum to 0"),
        ({"kind": "linear", "weights": [math.nan]}, "finite number"),
        ({"kind": "ties", "weights": [-1.0, 2.0]}, "greater than or equal to 0"),
        ({"kind": "ties", "weights": [0.0, 0.0]}, "at least one must be positive"),
        ({"kind": "ties", "density": 0}, "greater than 0"),
        ({"kind": "sce", "select_topk": 1.1}, "less than or equal to 1"),
        ({"kind": "sce", "weights": [1.0]}, "Extra inputs"),
        ({"kind": "dare"}, "does not match any of the expected tags"),
    ],
)
def test_settings_out_of_range_are_refused(settings, message):
    with pytest.raises(ValidationError, match=message):
        TypeAdapter(AnyMethod).validate_python(settings)
