"""Tiny Llamas that grew from one base, made on the spot, and ways to edit their folders."""

import json

import torch
from safetensors.torch import load_file, save_file
from transformers import LlamaConfig, LlamaForCausalLM

WEIGHTS = "model.safetensors"
HEAD, EMBEDDING = "lm_head.weight", "model.embed_tokens.weight"


def save_tiny_llama(folder, *, seed=0, tied=False, dtype=torch.float32, like=None, **config):
    """A tiny Llama made on the spot; with `like`, that one after a little noise."""
    torch.manual_seed(seed)
    sizes = {"vocab_size": 37, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 1}
    model = LlamaForCausalLM(LlamaConfig(**(sizes | heads | config), tie_word_embeddings=tied))
    if like is not None:
        weights = like.state_dict()
        model.load_state_dict({name: value + 0.02 * torch.randn(value.shape) for name, value in weights.items()})
        model.tie_weights()
    model.to(dtype).save_pretrained(folder)
    return model.float()


def edit_weights(folder, edit, metadata=None):
    """Rewrites the weights of a folder after `edit` has changed the dict of tensors."""
    tensors = {name: tensor.clone() for name, tensor in load_file(folder / WEIGHTS).items()}
    edit(tensors)
    save_file(tensors, folder / WEIGHTS, metadata=metadata or {"format": "pt"})


def set_config(folder, **values):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | values))


def load_tensors(folder):
    """All tensors of a folder, whatever the number of its files."""
    files = sorted(folder.glob("*.safetensors"))
    return {name: tensor for file in files for name, tensor in load_file(file).items()}


def tree(folder):
    """Everything below a folder: links with where they lead, files with content and time of change."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.is_symlink():
            found[path] = path.readlink()
        else:
            found[path] = (path.read_bytes(), path.stat().st_mtime_ns) if path.is_file() else path.stat().st_mode
    return found


def no_output_in(tmp_path):
    """Whether neither a result nor a half-written one is there."""
    return not [path.name for path in tmp_path.iterdir() if "out" in path.name]
