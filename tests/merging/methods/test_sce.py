"""SCE on paper, and what it selects."""

import itertools

import pytest
import torch

from fusion.merging.methods.registry import SCE
from tests.helpers.merge_examples import base_and_models


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


def test_sce_leaves_unselected_entries_at_the_base_and_changes_the_selected():
    base, models = base_and_models((40, 25))
    variance = torch.stack(models).double().var(0, correction=0)
    merged = SCE(select_topk=0.1)(base, models)
    unselected = variance < variance.flatten().sort(descending=True).values[int(0.1 * (variance > 0).sum()) - 1]
    assert 850 < unselected.sum() < 950
    assert torch.equal(merged[unselected], base[unselected])
    assert (merged != base).sum() > 0.9 * (~unselected).sum()


def test_sce_refuses_to_select_from_a_single_model():
    with pytest.raises(ValueError, match=r"select_topk 0.1 the result would be the base"):
        SCE()(torch.zeros(3), [torch.ones(3)])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
def test_entries_of_equal_variance_are_selected_together_whatever_the_order_of_the_models(dtype):
    draw = torch.Generator().manual_seed(0)
    base, whole = torch.full((2000,), 100.0), torch.randint(-9, 10, (3, 2000), generator=draw)
    variance = 3 * whole.square().sum(0) - whole.sum(0).square()
    least = variance.sort(descending=True).values[int(0.3 * (variance > 0).sum()) - 1]
    selected = (variance >= least) & (whole.sum(0) != 0)  # what is elected by nobody stays at the base
    assert (variance == least).sum() > 1
    for order in itertools.permutations((base + whole).to(dtype)):
        assert torch.equal(SCE(select_topk=0.3)(base.to(dtype), order) != base, selected)
