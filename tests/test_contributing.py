"""The example in CONTRIBUTING.md is a whole objective: it is run, and held to the contract like those that are listed."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest
import torch

from tests.objectives import test_objective_contract as contract

PAGE = (Path(__file__).parent.parent / "CONTRIBUTING.md").read_text()
IMPORTS = """
from typing import Literal
from jaxtyping import Float
from pydantic import Field
from torch import Tensor
from fusion.objectives import MappedObjective
from fusion.objectives.token.outcomes import compare
from fusion.core.rows import LogitRows, MappedRows
"""


@pytest.fixture(scope="module")
def objective(tmp_path_factory):
    (example,) = re.findall(r"```python\n(class .*?)```", PAGE, re.DOTALL)
    assert len(example.strip().splitlines()) <= 14
    file = tmp_path_factory.mktemp("objectives") / "brier.py"
    file.write_text(IMPORTS + "\n\n" + example)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(file.parent))
        return importlib.import_module("brier").Brier()


def test_the_example_keeps_the_contract(objective):
    assert objective.kind == "brier"
    contract.test_there_is_one_finite_value_for_each_unit_in_the_pivots_dtype(objective, torch.float32)
    for promise in (
        contract.test_the_gradient_reaches_the_pivot_and_never_the_source,
        contract.test_the_gradient_agrees_with_finite_differences,
        contract.test_a_term_is_zero_where_pivot_and_source_agree_and_never_below_it,
        contract.test_rows_of_other_examples_change_neither_value_nor_gradient,
        contract.test_the_order_of_the_rows_changes_nothing,
        contract.test_a_constant_on_the_logits_changes_nothing,
        contract.test_nothing_to_compare_gives_no_values_or_zeros,
        contract.test_every_parameter_has_a_sentence,
    ):
        promise(objective)
    contract.test_extreme_rows_give_finite_values_and_gradients(objective, torch.bfloat16)


def test_it_is_the_squared_distance_of_probabilities(objective):
    from tests.helpers.rows import as_mapped, query, rows_of

    source = as_mapped(rows_of(torch.tensor([[0.5, 0.3, 0.2]], dtype=torch.float64).log(), 1))
    pivot = query(torch.tensor([[0.25, 0.7, 0.05]], dtype=torch.float64).log(), source.ids, source)
    assert objective(pivot, source).item() == pytest.approx(0.25**2 + 0.25**2)
