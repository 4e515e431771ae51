"""Cross-entropy against torch's own and a slow reference."""

import pytest
import torch
from torch.nn.functional import cross_entropy

from fusion.objectives import CrossEntropy
from tests.helpers import reference
from tests.helpers.rows import random_rows, rows_of


@pytest.mark.parametrize(("N", "V"), [(7, 13), (1, 1), (123, 257)])
def test_cross_entropy_is_torchs(N, V):
    logits = torch.randn(N, V, dtype=torch.float64)
    token = torch.arange(N) * 7 % V
    ours = CrossEntropy()(rows_of(logits, 0, token))
    torch.testing.assert_close(ours, cross_entropy(logits, token, reduction="none"))


def test_cross_entropy_matches_the_definition():
    pivot = random_rows(9, 2, 17, torch.float64)
    torch.testing.assert_close(CrossEntropy()(pivot), reference.cross_entropy(pivot))
