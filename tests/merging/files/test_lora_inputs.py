"""LoRA adapters as inputs, against matrices added by hand, and refused where they are more than that."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from fusion.merging.files.stream import merge
from fusion.merging.methods.registry import TIES, Linear, TaskArithmetic
from tests.helpers.families import (
    EMBEDDING,
    WEIGHTS,
    edit_weights,
    load_tensors,
    no_output_in,
    save_tiny_llama,
)

Q = "model.layers.0.self_attn.q_proj"
UP = "model.layers.1.mlp.up_proj"
BASE = "base_model.model."


def adapter(folder, *, seed=0, rank=3, extra=None, **settings):
    """A folder as peft saves it: changes of a query matrix, an up projection and the embedding."""
    draw = torch.Generator().manual_seed(seed)
    shapes = {Q: (16, 16), UP: (24, 16)}
    tensors = {}
    for module, (rows, columns) in shapes.items():
        tensors[f"{BASE}{module}.lora_A.weight"] = torch.randn(rank, columns, generator=draw)
        tensors[f"{BASE}{module}.lora_B.weight"] = torch.randn(rows, rank, generator=draw)
    embedding = BASE + EMBEDDING.removesuffix(".weight")
    tensors[f"{embedding}.lora_embedding_A"] = torch.randn(rank, 37, generator=draw)
    tensors[f"{embedding}.lora_embedding_B"] = torch.randn(16, rank, generator=draw)
    folder.mkdir()
    save_file(tensors | (extra or {}), folder / "adapter_model.safetensors")
    config = {"peft_type": "LORA", "lora_alpha": 6, "r": rank, "bias": "none"} | settings
    (folder / "adapter_config.json").write_text(json.dumps(config))
    return tensors


def folded(base, tensors, scale, up_scale=None):
    """The base's weights with the adapter added, in float64."""
    weights = {name: tensor.double() for name, tensor in load_file(base / WEIGHTS).items()}

    def product(module, a="lora_A.weight", b="lora_B.weight"):
        return tensors[f"{BASE}{module}.{b}"].double() @ tensors[f"{BASE}{module}.{a}"].double()

    weights[f"{Q}.weight"] += scale * product(Q)
    weights[f"{UP}.weight"] += (up_scale or scale) * product(UP)
    weights[EMBEDDING] += scale * product(EMBEDDING.removesuffix(".weight"), "lora_embedding_A", "lora_embedding_B").T
    return weights


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
    tensors = adapter(tmp_path / "a", **settings)
    merge(tmp_path / "base", [tmp_path / "a"], Linear(), tmp_path / "out")
    expected = folded(tmp_path / "base", tensors, scale, up_scale)
    for name, merged in load_tensors(tmp_path / "out").items():
        torch.testing.assert_close(merged, expected[name].float())


def test_adapters_and_models_merge_and_nothing_is_rounded_on_the_way(tmp_path, monkeypatch):
    base = save_tiny_llama(tmp_path / "base", dtype=torch.bfloat16)
    save_tiny_llama(tmp_path / "m1", seed=1, like=base, dtype=torch.bfloat16)
    tensors = adapter(tmp_path / "a")
    monkeypatch.setattr("fusion.merging.methods.tiles.TILE_ENTRIES", 64)
    merge(tmp_path / "base", [tmp_path / "a", tmp_path / "m1"], TIES(), tmp_path / "out", dtype="float32")
    origin, model = load_file(tmp_path / "base" / WEIGHTS), load_tensors(tmp_path / "m1")
    expected = folded(tmp_path / "base", tensors, 2)
    for name, merged in load_tensors(tmp_path / "out").items():
        alone = TIES()(origin[name].double(), [expected[name], model[name].double()])
        torch.testing.assert_close(merged, alone, rtol=1e-6, atol=1e-7)


def test_two_adapters_add_up_by_task_arithmetic(tmp_path):
    save_tiny_llama(tmp_path / "base")
    one, two = adapter(tmp_path / "a"), adapter(tmp_path / "b", seed=1)
    merge(tmp_path / "base", [tmp_path / "a", tmp_path / "b"], TaskArithmetic(weights=[1, 0.5]), tmp_path / "out")
    origin = load_file(tmp_path / "base" / WEIGHTS)
    first, second = folded(tmp_path / "base", one, 2), folded(tmp_path / "base", two, 2)
    for name, merged in load_tensors(tmp_path / "out").items():
        expected = first[name] + 0.5 * (second[name] - origin[name].double())
        torch.testing.assert_close(merged, expected.float(), rtol=1e-5, atol=1e-6)


def test_modules_an_adapter_saved_whole_replace_the_bases(tmp_path):
    save_tiny_llama(tmp_path / "base")
    head = torch.ones(37, 16)
    adapter(tmp_path / "a", extra={f"{BASE}lm_head.weight": head})
    merge(tmp_path / "base", [tmp_path / "a"], Linear(), tmp_path / "out")
    assert torch.equal(load_tensors(tmp_path / "out")["lm_head.weight"], head)


def test_a_matrix_stored_the_other_way_round_takes_the_transpose(tmp_path):
    save_tiny_llama(tmp_path / "base")
    edit_weights(tmp_path / "base", lambda t: t.update({f"{UP}.weight": t[f"{UP}.weight"].T.contiguous()}))
    tensors = adapter(tmp_path / "a", fan_in_fan_out=True)
    merge(tmp_path / "base", [tmp_path / "a"], Linear(), tmp_path / "out")
    origin = load_file(tmp_path / "base" / WEIGHTS)[f"{UP}.weight"].double()
    b, a = tensors[f"{BASE}{UP}.lora_B.weight"].double(), tensors[f"{BASE}{UP}.lora_A.weight"].double()
    torch.testing.assert_close(load_tensors(tmp_path / "out")[f"{UP}.weight"], (origin + 2 * (b @ a).T).float())


def lose_half(folder):
    tensors = load_file(folder / "adapter_model.safetensors")
    tensors.pop(f"{BASE}{Q}.lora_A.weight")
    save_file(tensors, folder / "adapter_model.safetensors")


def pickle(folder):
    torch.save({}, folder / "adapter_model.bin")
    (folder / "adapter_model.safetensors").unlink()


def grow(folder):
    tensors = load_file(folder / "adapter_model.safetensors")
    tensors[f"{BASE}{Q}.lora_B.weight"] = torch.zeros(17, 3)
    save_file(tensors, folder / "adapter_model.safetensors")


@pytest.mark.parametrize(
    ("settings", "extra", "spoil", "error", "message"),
    [
        ({"peft_type": "IA3"}, {}, None, ValueError, "peft_type is 'IA3'; only LORA adapters"),
        ({"use_dora": True}, {}, None, ValueError, "use_dora is True, which is more than low-rank"),
        ({"bias": "all"}, {}, None, ValueError, "bias is 'all', which is more"),
        ({}, {f"{BASE}other.lora_A.weight": torch.zeros(3, 2)}, None, ValueError, "other.lora_A.weight is neither low-rank"),
        ({}, {}, lose_half, ValueError, r"q_proj.lora_B.weight has no \S+lora_A.weight beside it"),
        ({}, {}, grow, ValueError, r"its update of \S+q_proj.weight has shape \(17, 16\), the base \S+ has \(16, 16\)"),
        ({}, {}, pickle, ValueError, "pickled weights only"),
        ({}, {}, lambda f: (f / "adapter_model.safetensors").unlink(), FileNotFoundError, "but no adapter_model.safetensors"),
        (
            {},
            {f"{BASE}x.lora_A.weight": torch.zeros(3, 2), f"{BASE}x.lora_B.weight": torch.zeros(2, 3)},
            None,
            ValueError,
            "has no x.weight for the adapter's",
        ),
    ],
)  # fmt: skip
def test_an_adapter_that_does_not_fit_is_named(tmp_path, settings, extra, spoil, error, message):
    save_tiny_llama(tmp_path / "base")
    adapter(tmp_path / "a", extra=extra, **settings)
    if spoil:
        spoil(tmp_path / "a")
    with pytest.raises(error, match=message):
        merge(tmp_path / "base", [tmp_path / "a"], Linear(), tmp_path / "out")
    assert no_output_in(tmp_path)
