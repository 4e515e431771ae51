"""What rounding explains, by the type of numbers or by how they are written, against rounded log-probabilities."""

import pytest
import torch

from fusion.sources.listed import dtype_errors, inferred_errors
from tests.helpers.listed_rows import ROUNDED


def logprobs():
    return (3 * torch.randn(40, 300, generator=torch.Generator().manual_seed(0), dtype=torch.float64)).log_softmax(-1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_no_value_is_further_off_than_its_type_allows(dtype):
    exact = logprobs()
    rounded = exact.to(dtype)
    errors = dtype_errors(rounded.float(), dtype)
    assert ((rounded.double() - exact).abs() <= errors).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_logsumexp_that_was_subtracted_in_16_bits_is_allowed_for(dtype):
    logits = torch.linspace(16, 32, 99, dtype=torch.float64)[:, None] - torch.tensor([0.0, 12.0])
    logsumexp = logits.logsumexp(-1, keepdim=True)
    computed = (logits - logsumexp.to(dtype).double()).to(dtype)
    errors, allowed = (computed.double() - (logits - logsumexp)).abs(), dtype_errors(computed.float(), dtype)
    assert (errors <= allowed).all()
    assert (errors > allowed / 2).any()


@pytest.mark.parametrize("precision", ROUNDED)
def test_the_precision_is_found_from_the_numbers_and_no_coarser_one_is_taken(precision):
    exact = logprobs()
    errors = inferred_errors(ROUNDED[precision](exact))
    assert ((ROUNDED[precision](exact) - exact).abs() <= errors).all()
    coarsest = {
        "float64": 1e-4,
        "float32": 1e-4,
        "float16": 0.02,
        "bfloat16": 0.2,
        "three digits": 5e-4,
        "one digit": 0.05,
    }
    assert errors.max() <= coarsest[precision] + 1e-6


def test_one_number_that_does_not_fit_makes_all_of_them_exact():
    values = ROUNDED["bfloat16"](logprobs())
    values[3, 4] += 1e-5
    assert inferred_errors(values).max() == pytest.approx(1e-4)
