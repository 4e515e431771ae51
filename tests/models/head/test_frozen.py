"""Moments from the hidden state against moments of the logits themselves, for every kind of head."""

import pytest
import torch

from fusion.core.rows import Positions
from fusion.models.head import Head
from tests.helpers import tiny

KINDS = list(tiny.SHAPES)


def both(model, vocabulary, dtype=torch.float32):
    torch.manual_seed(3)
    head, hidden = Head.from_model(model, vocabulary), torch.randn(29, 32).to(dtype) * 4
    zeros = torch.zeros(29, dtype=torch.long)
    about = Positions(token=torch.randint(vocabulary, (29,)), prefix=zeros, example=zeros)
    with torch.no_grad():
        return (
            head.for_frozen_model(),
            head.rows(hidden, about, 10)[0],
            head.for_frozen_model().rows(hidden, about, 10)[0],
        )


@pytest.mark.parametrize("kind", KINDS)
def test_a_frozen_head_gives_the_same_rows(kind):
    frozen, plain, quick = both(tiny.model(kind, 307), 300)
    assert (frozen.logit_moments is None) == (kind == "gemma2")  # soft-capping bends the logits
    for name in ("logprobs", "ids", "gold", "mean", "std"):
        torch.testing.assert_close(getattr(quick, name), getattr(plain, name), atol=2e-5, rtol=2e-5)


def test_a_bias_counts_in_the_moments():
    model = tiny.model("gpt_neox")
    biased = torch.nn.Linear(32, 300)
    torch.nn.init.normal_(biased.bias, 2.0, 3.0)
    model.set_output_embeddings(biased)
    frozen, plain, quick = both(model, 290)
    assert frozen.logit_moments is not None
    torch.testing.assert_close(quick.mean, plain.mean, atol=2e-5, rtol=2e-5)
    torch.testing.assert_close(quick.std, plain.std, atol=2e-5, rtol=2e-5)


def test_weights_in_bfloat16_give_moments_as_good_as_their_logits():
    frozen, plain, quick = both(tiny.model("llama").bfloat16(), 300, torch.bfloat16)
    assert frozen.logit_moments.gram.dtype == torch.float32
    torch.testing.assert_close(quick.mean, plain.mean, atol=0.03, rtol=0.01)
    torch.testing.assert_close(quick.std, plain.std, atol=0.03, rtol=0.01)


def test_an_output_layer_of_another_kind_is_left_to_the_logits():
    class Adapted(torch.nn.Linear):
        def forward(self, x):
            return super().forward(x) + 1

    model = tiny.model("gpt_neox")
    model.set_output_embeddings(Adapted(32, 300))
    assert Head.from_model(model, 300).for_frozen_model().logit_moments is None
