"""Folders of adapters as peft saves them, made by hand, and their bases with the adapter added."""

import json

import torch
from safetensors.torch import load_file, save_file

from tests.helpers.families import EMBEDDING, WEIGHTS

Q = "model.layers.0.self_attn.q_proj"
UP = "model.layers.1.mlp.up_proj"
BASE = "base_model.model."


def save_adapter(folder, *, seed=0, rank=3, extra=None, **settings):
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


def folded(base, tensors, scale=2, up_scale=None):
    """The base's weights with the adapter added, in float64."""
    weights = {name: tensor.double() for name, tensor in load_file(base / WEIGHTS).items()}

    def product(module, a="lora_A.weight", b="lora_B.weight"):
        return tensors[f"{BASE}{module}.{b}"].double() @ tensors[f"{BASE}{module}.{a}"].double()

    weights[f"{Q}.weight"] += scale * product(Q)
    weights[f"{UP}.weight"] += (up_scale or scale) * product(UP)
    weights[EMBEDDING] += scale * product(EMBEDDING.removesuffix(".weight"), "lora_embedding_A", "lora_embedding_B").T
    return weights
