"""LoRA adapters as inputs, against matrices added by hand; what peft itself saves is in tests/field/test_merge_adapters.py."""

import pytest
import torch
from safetensors.torch import load_file, save_file

from fusion.merging.files.stream import merge
from fusion.merging.methods.registry import TIES, Linear, TaskArithmetic
from tests.helpers.adapters import BASE, UP, Q, folded, save_adapter
from tests.helpers.families import EMBEDDING, WEIGHTS, edit_weights, load_tensors, no_output_in, save_tiny_llama


@pytest.mark.parametrize(
    ("settings", "scale", "up_scale"),
    [
        ({}, 2, None),
        ({"use_rslora": True}, 6 / 3**0.5, None),
        ({"alpha_pattern": {"mlp.up_proj": 12}}, 2, 4),
    ],
    ids=["alpha over rank", "rank-stabilised", "its own alpha"],
)
def test_an_adapter_is_the_base_with_its_changes_added(tmp_path, settings, scale, up_scale):
    save_tiny_llama(tmp_path / "base")
    tensors = save_adapter(tmp_path / "a", **settings)
    merge(tmp_path / "base", [tmp_path / "a"], Linear(), tmp_path / "out")
    expected = folded(tmp_path / "base", tensors, scale, up_scale)
    for name, merged in load_tensors(tmp_path / "out").items():
        torch.testing.assert_close(merged, expected[name].float())


def test_adapters_and_models_merge_and_nothing_is_rounded_on_the_way(tmp_path, monkeypatch):
    base = save_tiny_llama(tmp_path / "base", dtype=torch.bfloat16)
    save_tiny_llama(tmp_path / "m1", seed=1, like=base, dtype=torch.bfloat16)
    tensors = save_adapter(tmp_path / "a")
    monkeypatch.setattr("fusion.merging.methods.tiles.TILE_ENTRIES", 64)
    merge(tmp_path / "base", [tmp_path / "a", tmp_path / "m1"], TIES(), tmp_path / "out", dtype="float32")
    origin, model = load_file(tmp_path / "base" / WEIGHTS), load_tensors(tmp_path / "m1")
    expected = folded(tmp_path / "base", tensors, 2)
    for name, merged in load_tensors(tmp_path / "out").items():
        alone = TIES()(origin[name].double(), [expected[name], model[name].double()])
        torch.testing.assert_close(merged, alone, rtol=1e-6, atol=1e-7)


def test_two_adapters_add_up_by_task_arithmetic(tmp_path):
    save_tiny_llama(tmp_path / "base")
    one, two = save_adapter(tmp_path / "a"), save_adapter(tmp_path / "b", seed=1)
    merge(tmp_path / "base", [tmp_path / "a", tmp_path / "b"], TaskArithmetic(weights=[1, 0.5]), tmp_path / "out")
    origin = load_file(tmp_path / "base" / WEIGHTS)
    first, second = folded(tmp_path / "base", one, 2), folded(tmp_path / "base", two, 2)
    for name, merged in load_tensors(tmp_path / "out").items():
        expected = first[name] + 0.5 * (second[name] - origin[name].double())
        torch.testing.assert_close(merged, expected.float(), rtol=1e-5, atol=1e-6)


def test_tiles_of_an_adapter_are_those_of_the_whole(tmp_path, monkeypatch):
    save_tiny_llama(tmp_path / "base")
    save_adapter(tmp_path / "a", use_dora=True, extra=magnitudes())
    merge(tmp_path / "base", [tmp_path / "a"], Linear(), tmp_path / "whole")
    monkeypatch.setattr("fusion.merging.methods.tiles.TILE_ENTRIES", 64)
    monkeypatch.setattr("fusion.merging.adapters.tensor_updates.ROWS_AT_ONCE", 5)
    merge(tmp_path / "base", [tmp_path / "a"], Linear(), tmp_path / "tiles", threads=2)
    tiles = load_tensors(tmp_path / "tiles")
    for name, tensor in load_tensors(tmp_path / "whole").items():
        assert torch.equal(tiles[name], tensor)


def magnitudes():
    sizes = {Q: 16, UP: 24, EMBEDDING.removesuffix(".weight"): 16}
    return {f"{BASE}{module}.lora_magnitude_vector": torch.linspace(0.5, 2, size) for module, size in sizes.items()}


def test_modules_an_adapter_saved_whole_replace_the_bases(tmp_path):
    save_tiny_llama(tmp_path / "base")
    head = torch.ones(37, 16)
    save_adapter(tmp_path / "a", extra={f"{BASE}lm_head.weight": head})
    merge(tmp_path / "base", [tmp_path / "a"], Linear(), tmp_path / "out")
    assert torch.equal(load_tensors(tmp_path / "out")["lm_head.weight"], head)


def test_a_matrix_stored_the_other_way_round_takes_the_transpose(tmp_path):
    save_tiny_llama(tmp_path / "base")
    edit_weights(tmp_path / "base", lambda t: t.update({f"{UP}.weight": t[f"{UP}.weight"].T.contiguous()}))
    tensors = save_adapter(tmp_path / "a", fan_in_fan_out=True)
    merge(tmp_path / "base", [tmp_path / "a"], Linear(), tmp_path / "out")
    origin = load_file(tmp_path / "base" / WEIGHTS)[f"{UP}.weight"].double()
    b, a = tensors[f"{BASE}{UP}.lora_B.weight"].double(), tensors[f"{BASE}{UP}.lora_A.weight"].double()
    torch.testing.assert_close(load_tensors(tmp_path / "out")[f"{UP}.weight"], (origin + 2 * (b @ a).T).float())


def pickle(folder):
    torch.save({}, folder / "adapter_model.bin")
    (folder / "adapter_model.safetensors").unlink()


def grow(folder):
    tensors = load_file(folder / "adapter_model.safetensors")
    tensors[f"{BASE}{Q}.lora_B.weight"] = torch.zeros(17, 3)
    save_file(tensors, folder / "adapter_model.safetensors")


@pytest.mark.parametrize(
    ("spoil", "error", "message"),
    [
        (grow, ValueError, r"its update of \S+q_proj.weight has shape \(17, 16\), the base \S+ has \(16, 16\)"),
        (pickle, ValueError, "pickled weights only"),
        (lambda f: (f / "adapter_model.safetensors").unlink(), FileNotFoundError, "but no adapter_model.safetensors"),
    ],
    ids=["another shape", "pickled", "absent"],
)
def test_an_adapter_that_does_not_fit_is_named(tmp_path, spoil, error, message):
    save_tiny_llama(tmp_path / "base")
    save_adapter(tmp_path / "a")
    spoil(tmp_path / "a")
    with pytest.raises(error, match=message):
        merge(tmp_path / "base", [tmp_path / "a"], Linear(), tmp_path / "out")
    assert no_output_in(tmp_path)
