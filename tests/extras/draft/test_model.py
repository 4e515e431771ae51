"""The draft layer: who sees whom, whose gradient goes where, and the parts it is made of."""

import pytest
import torch

from fusion.extras.draft import Draft, DraftShape, load, save
from fusion.extras.draft.model import rotated
from fusion.extras.draft.train import losses
from fusion.models.head import Head
from tests.helpers import tiny

SHAPE = DraftShape(width=16, heads=2, inner=24)


@pytest.fixture
def draft():
    return Draft(SHAPE)


def inputs(T=7, B=1):
    return torch.randn(B, T, 16), torch.randn(B, T, 16)


def head():
    return Head(torch.nn.Linear(16, 40, bias=False).requires_grad_(False), 37)


def halves(draft):
    return draft.down.weight.grad.chunk(2, dim=0)


def test_the_gradient_of_each_loss_stays_in_its_half_of_the_last_projection(draft):
    features = torch.randn(7, 16)
    predict, regress = (part[0] for part in draft(*inputs()))
    found = losses(predict, regress, features, head())
    found.prediction.sum().backward(retain_graph=True)
    mine, other = halves(draft)
    assert mine.abs().max() > 0
    assert torch.equal(other, torch.zeros_like(other))
    draft.zero_grad()
    found.regression.sum().backward()
    other, mine = halves(draft)
    assert mine.abs().max() > 0
    assert torch.equal(other, torch.zeros_like(other))


def test_the_frozen_head_has_no_gradient(draft):
    frozen = head()
    predict, regress = (part[0] for part in draft(*inputs()))
    losses(predict, regress, torch.randn(7, 16), frozen).prediction.sum().backward()
    assert frozen.module.weight.grad is None
    assert draft.mix.weight.grad.abs().max() > 0


def test_tied_halves_are_eagle_one_state_for_both(draft):
    with torch.no_grad():
        draft.down.weight[16:] = draft.down.weight[:16]
    predict, regress = draft(*inputs())
    assert torch.equal(predict, regress)


def test_the_losses_are_their_definitions():
    predict, regress, features = (torch.randn(5, 16, dtype=torch.float64) for _ in range(3))
    layer = torch.nn.Linear(16, 40, bias=False).double()
    found = losses(predict, regress, features, Head(layer, 37))
    p, q = ((x @ layer.weight[:37].T).softmax(-1) for x in (features, predict))
    torch.testing.assert_close(found.prediction, -(p * q.log()).sum(-1))
    apart = (regress - features).abs()
    smooth = torch.where(apart < 1, apart**2 / 2, apart - 0.5).mean(-1)
    torch.testing.assert_close(found.regression.double(), smooth, atol=1e-6, rtol=1e-6)


def test_at_the_true_state_the_losses_are_zero_and_the_targets_entropy():
    features, frozen = torch.randn(5, 16), head()
    found = losses(features, features, features, frozen)
    p = frozen.logits(features).softmax(-1)
    assert torch.equal(found.regression, torch.zeros(5))
    torch.testing.assert_close(found.prediction, -(p * p.log()).sum(-1))


def test_no_place_sees_a_later_one(draft):
    embedded, features = inputs()
    before = draft(embedded, features)
    embedded, features = embedded.clone(), features.clone()
    embedded[:, 4:], features[:, 4:] = 9.0, -9.0
    for one, other in zip(before, draft(embedded, features), strict=True):
        torch.testing.assert_close(one[:, :4], other[:, :4])
        assert not torch.allclose(one[:, 4:], other[:, 4:])


def test_the_chosen_token_gates_the_feature(draft):
    """Feature sampling: what the gated branch adds is 0 where the embedding is."""
    added = []
    draft.sample_down.register_forward_hook(lambda _module, _args, out: added.append(out))
    draft(torch.zeros(1, 3, 16), torch.randn(1, 3, 16))
    draft(torch.randn(1, 3, 16), torch.randn(1, 3, 16))
    assert torch.equal(added[0], torch.zeros_like(added[0]))
    assert added[1].abs().min() > 0


def test_rotated_products_depend_on_the_distance_alone():
    q, k = torch.randn(1, 1, 1, 8), torch.randn(1, 1, 1, 8)
    turned = [rotated(x.expand(1, 1, 9, 8), 10000.0)[0, 0] for x in (q, k)]
    products = turned[0] @ turned[1].T
    for distance in range(-8, 9):
        diagonal = products.diagonal(distance)
        torch.testing.assert_close(diagonal, diagonal[:1].expand_as(diagonal), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(turned[0].norm(dim=-1), q.norm().expand(9))


@pytest.mark.parametrize("kind", ["llama", "gpt_neox", "gemma2", "qwen2"])
def test_a_draft_has_the_sizes_of_its_target(kind):
    shape = DraftShape.from_target(tiny.model(kind))
    assert (shape.width, shape.heads, shape.inner) == (32, 2, 48)


def test_a_draft_reads_back_what_it_writes(draft, tmp_path):
    save(draft, tmp_path)
    again, given = load(tmp_path), inputs()
    for one, other in zip(draft(*given), again(*given), strict=True):
        assert torch.equal(one, other)


def test_a_folder_without_a_draft_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="holds no draft model .*fusion draft MODEL --out"):
        load(tmp_path)
