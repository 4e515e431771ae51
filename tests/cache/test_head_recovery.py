"""The width and the span of an output layer, from rows of logits made with a known one, in float64 and as caches keep them."""

import pytest
import scipy.linalg
import torch
from safetensors.torch import load_file
from typer.testing import CliRunner

from fusion import pipeline
from fusion.analysis.cache_contents import recover_head
from fusion.cache import Cache
from fusion.cache.head_recovery import (
    MIN_GAP,
    centred,
    geometry_score,
    principal_angles,
    recover_span,
    recover_span_from_cache,
    undo_softcap,
)
from fusion.cli import app, run
from fusion.models.loading import ModelRef, load_model
from tests.helpers import runs

N, V, D = 90, 140, 20


@pytest.fixture
def head():
    return torch.randn(V, D, dtype=torch.float64)


@pytest.fixture
def logits(head):
    return torch.randn(N, D, dtype=torch.float64) @ head.T


def test_rows_of_logits_have_the_width_for_a_rank(logits, head):
    found = recover_span(logits)
    assert found.hidden_size == D
    assert found.singular_values[D] / found.singular_values[0] < 1e-12
    assert found.gap > 1e10
    assert principal_angles(found.basis, head).max() < 1e-5


def test_the_output_layer_is_known_up_to_an_invertible_matrix(logits, head):
    basis, weight = recover_span(logits).basis, head - head.mean(0)
    mixing = torch.linalg.lstsq(basis, weight).solution
    torch.testing.assert_close(basis @ mixing, weight)
    assert torch.linalg.matrix_rank(mixing) == D


def test_log_probabilities_give_the_same_as_logits_for_centring_removes_the_level(logits):
    logprobs = logits.log_softmax(-1)
    assert torch.linalg.matrix_rank(logprobs) == D + 1
    torch.testing.assert_close(centred(logprobs), centred(logits))
    torch.testing.assert_close(recover_span(logprobs).singular_values, recover_span(logits).singular_values)


def test_centred_rows_made_again_from_the_span_have_the_same_softmax(logits):
    span = torch.linalg.qr(recover_span(logits).basis).Q
    again = centred(logits) @ span @ span.T
    torch.testing.assert_close(again.softmax(-1), logits.softmax(-1))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_values_of_16_bits_leave_a_gap(logits, head, dtype):
    found = recover_span(logits.log_softmax(-1).to(dtype).double())
    assert found.hidden_size == D
    assert MIN_GAP < found.gap < 1e5
    assert principal_angles(found.basis, head).max() < 5


def test_the_basis_does_not_depend_on_how_its_vectors_happened_to_point(logits):
    """The order of the rows changes every sign that a library is free to choose; what is found stays."""
    found = [
        recover_span(logits[torch.randperm(N, generator=torch.Generator().manual_seed(i))]).basis for i in range(8)
    ]
    for basis in found:
        torch.testing.assert_close(basis, found[0])
        assert (basis.gather(0, basis.abs().argmax(0, keepdim=True)) > 0).all()


def test_the_scale_of_the_basis_does_not_grow_with_the_rows(head):
    few, many = (recover_span(torch.randn(n, D, dtype=torch.float64) @ head.T).basis.norm() for n in (500, 5000))
    assert few / many == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize(("rows", "vocabulary"), [(2 * D - 2, V), (D // 2, V), (N, 2 * D - 2), (1, V), (3, 2)])
def test_fewer_than_two_rows_or_tokens_a_dimension_are_refused(rows, vocabulary):
    logits = torch.randn(rows, D, dtype=torch.float64) @ torch.randn(vocabulary, D, dtype=torch.float64).T
    with pytest.raises(ValueError, match=f"No gap .* {rows} rows over {vocabulary} tokens.*--rows.*--softcap"):
        recover_span(logits)


def test_rows_without_structure_are_refused():
    with pytest.raises(ValueError, match="No gap among the first 45 singular values"):
        recover_span(torch.randn(N, V, dtype=torch.float64))


def test_rows_of_two_models_have_the_rank_of_both(logits):
    other = torch.randn(N, D, dtype=torch.float64) @ torch.randn(V, D, dtype=torch.float64).T
    assert recover_span(torch.cat([logits, other])).hidden_size == 2 * D


CAP = 15.0


def test_a_soft_cap_hides_the_width_and_undoing_it_shows_it_again(logits, head):
    logprobs = (CAP * torch.tanh(logits / CAP)).log_softmax(-1)
    with pytest.raises(ValueError, match="No gap"):
        recover_span(logprobs)
    found = recover_span(undo_softcap(logprobs, CAP, D))
    assert found.hidden_size == D
    assert found.singular_values[D] / found.singular_values[0] < 1e-8
    assert principal_angles(found.basis, head).max() < 1e-4


def test_undone_logits_are_the_true_ones_up_to_a_constant(logits):
    logprobs = (CAP * torch.tanh(logits / CAP)).log_softmax(-1)
    torch.testing.assert_close(centred(undo_softcap(logprobs, CAP, D)), centred(logits), atol=1e-6, rtol=0)


def test_a_cap_that_the_rows_exceed_and_too_few_rows_for_the_width_are_refused(logits):
    logprobs = (CAP * torch.tanh(logits / CAP)).log_softmax(-1)
    with pytest.raises(ValueError, match="which a cap of 2 does not allow"):
        undo_softcap(logprobs, 2.0, D)
    with pytest.raises(ValueError, match=f"{N} rows over {V} tokens are too few for a width of 50.*--rows"):
        undo_softcap(logprobs, CAP, 50)


def test_a_wrong_width_finds_nothing_under_a_cap(logits):
    logprobs = (CAP * torch.tanh(logits / CAP)).log_softmax(-1)
    with pytest.raises(ValueError, match="No gap"):
        recover_span(undo_softcap(logprobs, CAP, D - 5))


def test_angles_are_those_of_a_known_plane():
    basis = torch.eye(4, dtype=torch.float64)[:, :2] - 0.25
    turn = torch.tensor(0.3)
    head = torch.stack([basis[:, 0], turn.cos() * basis[:, 1] + turn.sin() * torch.tensor([0.0, 0, 1, -1])], 1).double()
    angles = principal_angles(basis, head)
    assert angles.min() < 1e-5
    expected = scipy.linalg.subspace_angles(basis.numpy(), head.numpy())
    torch.testing.assert_close(angles.deg2rad(), torch.from_numpy(expected))
    assert principal_angles(basis, basis @ torch.randn(2, 2, dtype=torch.float64)).max() < 1e-5


def test_geometry_is_orthogonal_procrustes():
    source, pivot = torch.randn(50, 7, dtype=torch.float64), torch.randn(50, 7, dtype=torch.float64)
    rotation, _ = scipy.linalg.orthogonal_procrustes(pivot.numpy(), source.numpy())
    left = (source - pivot @ torch.from_numpy(rotation)).square().sum() / source.square().sum()
    assert geometry_score(source, pivot) == pytest.approx(1 - float(left))


@pytest.mark.parametrize("width", [7, 11])
def test_geometry_is_one_for_a_rotation_and_falls_with_noise(width):
    source = torch.randn(50, 7, dtype=torch.float64)
    turned = torch.cat([source, torch.zeros(50, width - 7, dtype=torch.float64)], 1)
    turned = turned @ torch.linalg.qr(torch.randn(width, width, dtype=torch.float64)).Q
    assert geometry_score(source, turned) == pytest.approx(1)
    assert geometry_score(turned, source) == pytest.approx(1)
    noise = torch.randn(50, width, dtype=torch.float64)
    assert 1 > geometry_score(source, turned + 0.1 * noise) > geometry_score(source, turned + 0.5 * noise)
    assert geometry_score(source, torch.zeros(50, 3, dtype=torch.float64)) == 0


@pytest.fixture(scope="module")
def caches(tmp_path_factory):
    """Folder of caches of whole rows (a model with RMS norm, one with LayerNorm), of the largest, and the models' folder."""
    folder = tmp_path_factory.mktemp("leak")
    objectives = [{"kind": "forward_kl"}]
    raw = runs.raw(folder, extract={"top_k": "all", "value_format": "float32"}, objectives=objectives)
    whole = pipeline.run(runs.loading.parse(raw, "test"), "extract")
    some = pipeline.run(runs.config(folder, name="some", objectives=objectives), "extract")
    return whole / "cache", some / "cache", folder


def test_the_audit_of_a_cache_finds_the_models_width_and_span(caches, tmp_path):
    whole, _, models = caches
    said = recover_head(whole / "qwen", model=str(models / "qwen"), out=tmp_path / "new/basis.safetensors")
    assert said["hidden width"] == said["width of the model"] == "32"
    assert float(said["principal angles"].split()[1]) < 0.1
    ((name, basis),) = load_file(tmp_path / "new/basis.safetensors").items()
    weight = load_model(ModelRef(str(models / "qwen"))).get_output_embeddings().weight.detach()
    assert name == "basis"
    assert basis.shape == (Cache(whole / "qwen").entries, 32)
    assert principal_angles(basis, weight[: len(basis)]).max() < 0.1


def test_float16_as_whole_rows_are_kept_by_default_is_enough(caches):
    models = caches[2]
    raw = runs.raw(models, name="half", extract={"top_k": "all"}, objectives=[{"kind": "forward_kl"}])
    half = pipeline.run(runs.loading.parse(raw, "test"), "extract")
    said = recover_head(half / "cache/qwen", model=str(models / "qwen"))
    assert said["hidden width"] == "32"
    assert float(said["principal angles"].split()[1]) < 5


def test_another_model_is_told_from_the_one_it_comes_from(caches):
    whole, _, models = caches
    angle = {
        name: float(recover_head(whole / "neox", model=str(models / name))["principal angles"].split()[1])
        for name in ("neox", "qwen")
    }
    assert angle["neox"] < 0.1
    assert angle["qwen"] > 60


def test_a_model_with_fewer_tokens_cannot_be_the_one(caches):
    whole, _, models = caches
    with pytest.raises(ValueError, match="output layer of [0-9]+ tokens, the cache is of [0-9]+: another model"):
        recover_head(whole / "qwen", model=str(models / "neox"))


def test_a_cache_of_the_largest_entries_is_refused_with_the_reason(caches):
    _, some, _ = caches
    with pytest.raises(ValueError, match="keeps 10 entries of each row, the largest.*guess.*top_k: all"):
        recover_span_from_cache(Cache(some / "qwen"))


def test_a_cap_needs_a_width(caches):
    with pytest.raises(ValueError, match="--softcap and --width go together"):
        recover_span_from_cache(Cache(caches[0] / "qwen"), softcap=30.0)


def test_too_few_rows_of_a_cache_are_refused(caches):
    with pytest.raises(ValueError, match="No gap .* 40 rows"):
        recover_span_from_cache(Cache(caches[0] / "qwen"), rows=40)


def test_the_command_prints_a_table(caches):
    done = CliRunner().invoke(app, ["cache", "audit", str(caches[0] / "qwen"), "--model", str(caches[2] / "qwen")])
    assert done.exit_code == 0, done.output
    assert "hidden width" in done.output
    assert "principal angles" in done.output


def test_the_command_says_what_is_wrong(caches, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["fusion", "cache", "audit", str(caches[1] / "qwen")])
    assert run() == 1
    assert "top_k: all" in capsys.readouterr().err
