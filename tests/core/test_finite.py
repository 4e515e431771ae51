"""Where rows and weights hold no numbers, and what is a number though it is not finite."""

import dataclasses

import pytest
import torch
from safetensors.torch import save_file

from fusion.core.finite import broken_weights, impossible_ids_left_out, refuse_broken_files, row_fault
from tests.helpers.rows import random_rows

NAN, INF = float("nan"), float("inf")


def rows(**changes):
    """Five rows of two examples, with numbers of some fields changed: field to (index, value)."""
    made = random_rows(5, 4, 11)
    made = dataclasses.replace(made, example=torch.tensor([0, 0, 1, 1, 1]), prefix=torch.tensor([0, 3, 0, 2, 7]))
    numbers = {name: getattr(made, name).clone() for name in changes}
    for name, (index, value) in changes.items():
        numbers[name][index] = value
    return dataclasses.replace(made, **numbers)


@pytest.mark.parametrize(("field", "index", "value"), [
    ("logprobs", (3, 1), NAN), ("logprobs", (3, 0), INF), ("gold", (3,), NAN), ("gold", (3,), INF),
])  # fmt: skip
def test_a_row_that_holds_no_numbers_is_found_with_its_example_and_place(field, index, value):
    fault = row_fault(rows(**{field: (index, value)}), gold_is_known=True)
    assert (fault.example, fault.prefix, fault.count) == (1, 2, 1)
    assert "behind 2 bytes of the response its log-prob" in str(fault) or "the log-probability of" in str(fault)


def test_how_many_rows_are_like_the_first_is_said():
    assert str(row_fault(rows(logprobs=((slice(1, 4), 0), NAN)))).endswith(", and so are those of 2 more rows")


def test_hidden_states_are_looked_at():
    hidden = torch.zeros(5, 3)
    hidden[4, 1] = NAN
    assert "hidden state" in row_fault(dataclasses.replace(rows(), hidden=hidden)).what
    assert (
        row_fault(dataclasses.replace(rows(), hidden=hidden.nan_to_num(INF))) is None
    )  # which the cache refuses by itself


@pytest.mark.parametrize("changes", [
    {}, {"mean": (0, NAN)}, {"std": (0, NAN)}, {"mean": (0, -INF)}, {"gold": (0, NAN)}, {"gold": (0, -INF)},
    {"logprobs": ((0, 3), -INF)},
], ids=range(7))  # fmt: skip
def test_what_is_unknown_or_masked_is_no_fault(changes):
    assert row_fault(rows(**changes)) is None


def test_an_empty_entry_may_hold_anything():
    made = rows(logprobs=((0, 3), NAN), ids=((0, 3), -1))
    assert row_fault(made) is None


def test_entries_of_masked_ids_become_empty_ones():
    left = impossible_ids_left_out(rows(logprobs=((0, 3), -INF)))
    assert left.ids[0].tolist()[3] == -1
    assert (left.ids >= 0).sum() == 5 * 4 - 1


def test_weights_that_hold_no_numbers_are_named():
    weights = {name: torch.ones(3, 2) for name in "abcd"} | {"number": torch.ones(2).long(), "empty": torch.empty(0)}
    weights["b"][1, 1], weights["c"][0, 0], weights["d"][0, 1] = NAN, INF, -INF
    assert broken_weights(weights.items()) == ["b", "c", "d"]


def test_a_bias_may_mask_ids_and_hold_nothing_else_that_is_not_finite():
    assert broken_weights([("head.bias", torch.tensor([0.0, -INF]))]) == []
    assert broken_weights([("head.bias", torch.tensor([0.0, NAN])), ("b.bias", torch.tensor([INF]))]) == [
        "head.bias",
        "b.bias",
    ]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float8_e4m3fn])
def test_files_of_a_model_without_numbers_are_refused_by_name(tmp_path, dtype):
    good = {"a": torch.ones(2, 2).to(dtype), "b.bias": torch.tensor([1.0, 2.0]).to(dtype)}
    save_file(good, tmp_path / "model.safetensors")
    refuse_broken_files(tmp_path, "")
    save_file(good | {"a": torch.tensor([[1.0, NAN]]).to(dtype)}, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match=r"model\.safetensors: the weights a are NaN or infinite.*\. Train again\."):
        refuse_broken_files(tmp_path, "Train again.")
