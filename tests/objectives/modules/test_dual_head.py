"""The second head: closed forms, limits, the level of logits, the source's own state as its least, bases from files."""

import dataclasses
import math

import pytest
import torch
from safetensors.torch import save_file

from fusion.objectives import DualHead, ModuleSpec, OutputLayer
from fusion.objectives.modules.dual_head import SecondHead, log_cosh, read_basis, two_sigmoids
from tests.helpers.hidden_rows import random_states
from tests.helpers.rows import rows_of

V, D = 40, 6


def bernoulli_kl(p, q):
    return p * (p / q).log() + (1 - p) * ((1 - p) / (1 - q)).log()


def source(count=11, k=5, bias=False, level=0.0):
    """A source's states, rows and output layer: its logits are whatever its rows were made from, plus a level of each row."""
    hidden, weight = random_states(count, D), random_states(V, D, seed=1)
    layer = OutputLayer(weight, random_states(V, seed=2) if bias else None)
    logits = hidden @ weight.T + (layer.bias if bias else 0) + level * torch.arange(count)[:, None]
    return hidden, rows_of(logits, k), layer


def test_the_closed_form_is_the_divergence_from_an_even_bet():
    x = torch.linspace(-12, 12, 301, dtype=torch.float64)
    known = bernoulli_kl(torch.tensor(0.5, dtype=torch.float64), x.sigmoid())
    torch.testing.assert_close(log_cosh(x[:, None], torch.zeros_like(x)[:, None])[:, 0], known, atol=1e-9, rtol=1e-9)
    a, b = torch.randn(50, 1, dtype=torch.float64) * 3, torch.randn(50, 1, dtype=torch.float64) * 3
    torch.testing.assert_close(two_sigmoids(a, b), bernoulli_kl(b.sigmoid(), a.sigmoid()))


def test_small_differences_are_kept_to_full_precision():
    x = torch.tensor([[1e-9], [1e-4], [0.0199], [0.0201]], dtype=torch.float64)
    known = torch.tensor([[math.log(math.cosh(v / 2)) if v > 1e-3 else v * v / 8 for v in x[:, 0].tolist()]]).T
    torch.testing.assert_close(log_cosh(x, torch.zeros_like(x)), known.double(), rtol=1e-7, atol=1e-25)


@pytest.mark.parametrize("d", [1.3, -1.3])
def test_the_limits_in_the_temperature_are_a_square_and_an_absolute_value(d):
    def at(t):
        return (
            t**2 * log_cosh(torch.tensor([[d / t]], dtype=torch.float64), torch.zeros(1, 1, dtype=torch.float64)).item()
        )

    assert at(10.0) == pytest.approx(0.21113, abs=1e-4)  # 1.3^2 / 8 = 0.21125
    assert at(1e4) == pytest.approx(d**2 / 8, rel=1e-6)
    assert at(0.01) == pytest.approx(0.01 * abs(d) / 2, rel=0.02)


def test_the_gradient_is_bounded_by_half_the_temperature():
    z = torch.linspace(-100, 100, 41, dtype=torch.float64)[:, None].requires_grad_()
    (4 * log_cosh(z / 2, torch.zeros_like(z))).sum().backward()
    torch.testing.assert_close(z.grad, torch.tanh(z.detach() / 4))
    assert z.grad.abs().max() <= 1


@pytest.mark.parametrize("loss", ["binary_kl_norm", "binary_kl", "kl"])
@pytest.mark.parametrize("bias", [True, False])
def test_the_sources_own_state_gives_zero_whatever_the_level_of_its_logits(loss, bias):
    term = DualHead(loss=loss)
    for level in (0.0, 3.0):
        hidden, rows, layer = source(bias=bias, level=level)
        module = SecondHead(D, layer).double()  # widths agree, so the projector changes nothing
        pivot = dataclasses.replace(rows, hidden=hidden)
        assert term(pivot, rows, module).abs().max() < 1e-12
        elsewhere = dataclasses.replace(rows, hidden=hidden + 0.1 * random_states(11, D, seed=5))
        assert (term(elsewhere, rows, module) > 0).all()


@pytest.mark.parametrize(("loss", "t"), [("binary_kl_norm", 2.0), ("binary_kl", 3.0), ("kl", 1.0)])
def test_values_are_the_definition_over_the_whole_vocabulary(loss, t):
    _, rows, layer = source()
    module = SecondHead(8, layer).double()
    pivot = dataclasses.replace(rows, hidden=random_states(11, 8, seed=3))
    z = module.projector(pivot.hidden) @ layer.weight.T
    if loss == "kl":
        q = z.softmax(-1).gather(1, rows.ids)
        p = rows.logprobs.exp()
        known = (p * (p / q).log()).sum(-1) + (1 - p.sum(-1)) * ((1 - p.sum(-1)) / (1 - q.sum(-1))).log()
    else:
        mine = (z - z.mean(-1, keepdim=True)).gather(1, rows.ids)
        theirs = rows.logprobs - rows.mean[:, None]
        if loss == "binary_kl":
            known = t**2 * bernoulli_kl((theirs / t).sigmoid(), (mine / t).sigmoid()).sum(-1)
        else:
            known = t**2 * torch.cosh((mine - theirs) / t / 2).log().sum(-1)
    found = DualHead(loss=loss, temperature=None if t in (1.0, 2.0) else t)(pivot, rows, module)
    torch.testing.assert_close(found, known)


def test_divergence_at_a_temperature_is_that_of_the_whole_tempered_rows():
    _, rows, layer = source(k=V)
    assert DualHead(loss="kl", temperature=2.0).required_top_k is None
    module = SecondHead(8, layer).double()
    pivot = dataclasses.replace(rows, hidden=random_states(11, 8, seed=3))
    q = (module.projector(pivot.hidden) @ layer.weight.T / 2).log_softmax(-1).gather(1, rows.ids)
    p = (rows.logprobs / 2).log_softmax(-1)
    found = DualHead(loss="kl", temperature=2.0)(pivot, rows, module)
    torch.testing.assert_close(found, 4 * (p.exp() * (p - q)).sum(-1))


def test_the_number_of_rows_done_at_once_changes_nothing(monkeypatch):
    _, rows, layer = source()
    module = SecondHead(8, layer).double()
    found = []
    for at_once in (2**25, 100):
        monkeypatch.setattr("fusion.objectives.modules.dual_head.MAX_CHUNK_NUMBERS", at_once)
        hidden = random_states(11, 8, seed=3).requires_grad_()
        for loss in ("binary_kl_norm", "kl"):
            values = DualHead(loss=loss)(dataclasses.replace(rows, hidden=hidden), rows, module)
            found.append((values.detach(), torch.autograd.grad(values.sum(), hidden)[0]))
    for one, other in zip(found[:2], found[2:], strict=True):
        torch.testing.assert_close(one, other)


def test_the_frozen_layer_is_no_part_of_a_checkpoint_and_is_not_trained():
    _, _, layer = source()
    module = SecondHead(8, layer)
    assert set(module.state_dict()) == {"projector.weight", "projector.bias"}
    assert [name for name, _ in module.named_parameters()] == ["projector.weight", "projector.bias"]


def test_a_recovered_basis_teaches_as_well_as_the_true_head(tmp_path):
    """A basis is the head up to an invertible map, which the projector can undo."""
    hidden, rows, layer = source()
    turn = random_states(D, D, seed=7)
    save_file({"basis": (layer.weight @ turn).contiguous()}, tmp_path / "basis.safetensors")
    term = DualHead(head=str(tmp_path / "basis.safetensors"))
    assert term.requirements.output_layer is None

    def read(*_):
        pytest.fail("something of the source was read")

    module = term.build_module(ModuleSpec(D, None, V, read, read)).double()
    with torch.no_grad():
        module.projector.weight.copy_(torch.linalg.inv(turn))
    assert term(dataclasses.replace(rows, hidden=hidden), rows, module).abs().max() < 1e-12


def test_a_padded_basis_is_cut_and_one_that_does_not_fit_is_refused(tmp_path):
    file = tmp_path / "basis.safetensors"
    save_file({"basis": torch.randn(V + 3, D)}, file)
    assert read_basis(file, V).weight.shape == (V, D)
    with pytest.raises(
        ValueError, match=rf"has shape \[{V + 3}, {D}\]; it should have a row for each .* {V + 4} tokens"
    ):
        read_basis(file, V + 4)
    save_file({"basis": torch.randn(V)}, file)
    with pytest.raises(ValueError, match=rf"has shape \[{V}\]"):
        read_basis(file, V)
    save_file({"head": torch.randn(V, D), "other": torch.ones(1)}, file)
    with pytest.raises(ValueError, match=r"should hold one tensor, basis; it holds head, other"):
        read_basis(file, V)
    for text in ("no tensors at all", None):
        if text is None:
            file.unlink()
        else:
            file.write_text(text)
        with pytest.raises(ValueError, match=r"basis.safetensors is no safetensors file that can be read"):
            read_basis(file, V)


def test_a_call_without_a_module_or_hidden_states_is_refused():
    hidden, rows, layer = source()
    for pivot, module in ((dataclasses.replace(rows, hidden=hidden), None), (rows, SecondHead(D, layer))):
        with pytest.raises(
            ValueError, match="dual_head compares through a module, made by `build_module`, and the pivot's hidden"
        ):
            DualHead()(pivot, rows, module)
