"""The cause that is named is the reading under which the numbers are a model's, and no other where it is unsure."""

import torch

from fusion.sources.listed.bounds import Entries
from fusion.sources.listed.causes import LOGITS, likely_cause


def cause(values, head_size=None):
    values = torch.tensor(values, dtype=torch.float64)
    return likely_cause(Entries(values, torch.full_like(values, 1e-4)), head_size)


def test_logits_less_the_highest_are_not_taken_for_another_base():
    assert cause([[0.0, -4.5, -5.0], [0.0, -5.5, -6.0]]) == LOGITS
    assert "base 10" in cause([[-0.01, -2.0, -2.3], [-0.02, -1.8, -2.5]])


def test_where_masses_say_little_every_reading_that_fits_is_named():
    named = cause([[6.0, 6.1], [5.9, 6.0]], head_size=500)
    assert "look like -log p" in named
    assert "Or: They look like -log2 p" in named


def test_entries_that_would_ascend_are_no_reading():
    assert cause([[3.0, 2.0, 1.5]]) == LOGITS
    assert "look like -log p" in cause([[0.1, 2.8, 3.5]])
