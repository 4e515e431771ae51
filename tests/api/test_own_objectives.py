"""Objectives of a user's own: a formula of the wrong shape or without numbers is told, and never summed in silence."""

from typing import Literal

import pytest
import torch
from transformers import AutoTokenizer

import fusion
from fusion.objectives import MappedObjective, RowObjective
from fusion.quickstart import MODELS


class Wrong(MappedObjective):
    """Values of a shape that is chosen."""

    kind: Literal["wrong"] = "wrong"
    how: str = "right"

    def __call__(self, pivot, source):
        there = source.ids >= 0
        values = (pivot.logprobs - source.logprobs).masked_fill(~there, 0)
        return {
            "right": values.sum(-1),
            "column": values.sum(-1, keepdim=True),
            "entries": values,
            "one": values.sum(),
            "unmasked": (pivot.logprobs - source.logprobs).sum(-1) - torch.inf,
        }[self.how]


class WrongRows(RowObjective):
    """One number for all rows."""

    kind: Literal["wrong_rows"] = "wrong_rows"

    @property
    def required_top_k(self):
        return 0

    def __call__(self, pivot):
        return pivot.gold.sum()


@pytest.fixture(scope="module")
def batch():
    """Targets of three examples and logits that fit them."""
    examples = fusion.read_examples([{"prompt": f"{n} + 1 =", "response": " five"} for n in range(3)], domain="sums")
    cache = fusion.extract(str(MODELS["sums"]), examples, top_k=4)
    tokenizers = [AutoTokenizer.from_pretrained(MODELS[name]) for name in ("pivot", "sums")]
    collator = fusion.FusionCollator(tokenizers[0], examples, {"sums": cache}, {"sums": tokenizers[1]})
    found = collator([0, 1, 2])
    lines, length = found["input_ids"].shape
    torch.manual_seed(0)
    return torch.randn(lines, length, len(tokenizers[0])), found["targets"], len(tokenizers[0])


def loss_of(batch, objective, **options):
    logits, targets, vocabulary = batch
    return fusion.FusionLoss([objective], vocabulary=vocabulary, **options)(logits, targets).loss


@pytest.mark.parametrize(("how", "shape"), [("column", r"\[\d+, 1\]"), ("entries", r"\[\d+, 4\]"), ("one", r"\[\]")])
def test_a_formula_of_another_shape_is_refused(batch, how, shape):
    with pytest.raises(
        ValueError, match=rf"objective wrong returned a value of shape {shape}; it must return one number"
    ):
        loss_of(batch, Wrong(how=how))


def test_so_is_one_number_for_all_rows(batch):
    with pytest.raises(ValueError, match=r"objective wrong_rows returned a value of shape \[\]"):
        loss_of(batch, WrongRows())


def test_a_loss_that_is_no_number_names_its_term(batch):
    assert loss_of(batch, Wrong()).isfinite()
    with pytest.raises(ValueError, match=r"no finite number: wrong/sums is -?(inf|nan)\. Is an empty entry"):
        loss_of(batch, Wrong(how="unmasked"))
    assert not loss_of(batch, Wrong(how="unmasked"), check_finite=False).isfinite()
