"""Writes golden_yaml.json: what mergekit makes of its own YAML over tiny models. Run it with a python that has mergekit.

    uv venv /tmp/mergekit && uv pip install --python /tmp/mergekit/bin/python mergekit==0.1.5
    /tmp/mergekit/bin/python tests/merging/recipes/golden_yaml.py

The file that lies here was written by mergekit 0.1.5 with torch 2.13. Weights are float32 and drawn in `write_models`; of each
merged tensor five entries are kept. DARE and DELLA keep everything (density 1), for their random choices are of their own.
"""

import json
import tempfile
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

LAYERS, HIDDEN, INNER, TOKENS = 4, 8, 12, 11
SLERP_BY_NAME = """
  t:
    - {filter: self_attn, value: [0, 0.5, 0.3, 0.7, 1]}
    - {filter: mlp, value: [1, 0.5, 0.7, 0.3, 0]}
    - value: 0.5
"""
CASES = {
    "linear, gradients": """
merge_method: linear
models:
  - {model: A, parameters: {weight: [0, 1, 0.2]}}
  - {model: B, parameters: {weight: [{filter: mlp, value: [1, 0.5]}, {filter: "*", value: 0.4}]}}
parameters: {normalize: false}
""",
    "linear, the base is one more": """
merge_method: linear
base_model: BASE
models: [{model: A, parameters: {weight: 0.7}}, {model: B}]
parameters: {weight: {value: "0.4"}}
""",
    "linear, filters that do not fit pass on": """
merge_method: linear
models:
  - {model: A, parameters: {weight: [{filter: mlp, value: 0.9}, {filter: norm, value: [0.1, 0.6]}]}}
  - {model: B, parameters: {weight: []}}
parameters: {weight: [{filter: layers.1., value: 0.2}, {filter: "self_attn.*", value: 7}, {value: [0.3, 0.8]}]}
""",
    "linear, precedence in slices": """
merge_method: linear
slices:
  - sources:
      - {model: A, layer_range: [0, 1], parameters: {weight: [0.2, 0.9]}}
      - {model: B, layer_range: [0, 1]}
    parameters: {weight: 0.6}
  - sources:
      - {model: B, layer_range: [1, 4], parameters: {weight: [{filter: mlp, value: 0.7}]}}
      - {model: A, layer_range: [1, 4]}
parameters: {weight: [0.5, 1.5]}
""",
    "linear, other models in each slice": """
merge_method: linear
base_model: BASE
slices:
  - sources: [{model: A, layer_range: [0, 2]}, {model: B, layer_range: [0, 2]}]
  - sources: [{model: C, layer_range: [2, 4]}, {model: B, layer_range: [2, 4], parameters: {weight: 3}}]
parameters: {weight: 1}
""",
    "passthrough, one model after the other": """
merge_method: passthrough
slices:
  - sources: [{model: A, layer_range: [0, 2]}]
  - sources: [{model: B, layer_range: [2, 4], parameters: {scale: [{filter: down_proj, value: 0.5}]}}]
""",
    "slerp, gradients by name": f"""
merge_method: slerp
base_model: A
slices: [{{sources: [{{model: A, layer_range: [0, 4]}}, {{model: B, layer_range: [0, 4]}}]}}]
parameters: {SLERP_BY_NAME}
""",
    "slerp, a value for each slice": """
merge_method: slerp
base_model: A
slices:
  - sources: [{model: B, layer_range: [0, 3]}, {model: A, layer_range: [0, 3]}]
    parameters: {t: [0.9, 0.2]}
  - sources: [{model: A, layer_range: [3, 4]}, {model: B, layer_range: [3, 4]}]
parameters: {t: [0.1, 0.3]}
""",
    "nuslerp": """
merge_method: nuslerp
models: [{model: A, parameters: {weight: [0.3, 0.9]}}, {model: B, parameters: {weight: 0.4}}]
""",
    "nuslerp, of deltas": """
merge_method: nuslerp
base_model: BASE
models: [{model: A}, {model: B, parameters: {weight: [{filter: mlp, value: 0.2}]}}]
parameters: {weight: 0.6, nuslerp_flatten: true}
""",
    "multislerp": """
merge_method: multislerp
models: [{model: A}, {model: B, parameters: {weight: [0.2, 0.7]}}, {model: C}]
parameters: {weight: 0.5}
""",
    "karcher, the base is one more": """
merge_method: karcher
base_model: BASE
models: [{model: A}, {model: B}]
parameters: {max_iter: 200, tol: 1.0e-7}
""",
    "model_stock": """
merge_method: model_stock
base_model: BASE
models: [{model: A}, {model: B}, {model: C}]
""",
    "task_arithmetic": """
merge_method: task_arithmetic
base_model: BASE
models: [{model: A, parameters: {weight: [0.2, 0.6]}}, {model: B}, {model: BASE, parameters: {weight: 4}}]
parameters: {weight: -0.3, density: 0.5, lambda: [{filter: mlp, value: 0.5}, {value: [1, 2]}]}
""",
    "task_arithmetic, the base of a slice": """
merge_method: task_arithmetic
base_model: BASE
slices:
  - sources: [{model: A, layer_range: [0, 4], parameters: {weight: 0.7}}, {model: B, layer_range: [0, 4]}]
    base_model: B
""",
    "ties": """
merge_method: ties
base_model: BASE
models:
  - {model: A, parameters: {density: [1, 0.7, 0.1], weight: 1.0}}
  - {model: B, parameters: {density: 0.5, weight: [0, 0.3, 0.7, 1]}}
  - {model: C, parameters: {density: 0.33, weight: [{filter: mlp, value: 0.5}, {value: 0}]}}
parameters: {normalize: true, int8_mask: true}
""",
    "ties, in slices": """
merge_method: ties
base_model: BASE
slices:
  - sources:
      - {model: BASE, layer_range: [0, 2]}
      - {model: A, layer_range: [0, 2], parameters: {density: 0.4}}
      - {model: B, layer_range: [0, 2]}
    parameters: {weight: 0.8}
  - sources:
      - {model: BASE, layer_range: [2, 4]}
      - {model: A, layer_range: [2, 4]}
      - {model: B, layer_range: [2, 4], parameters: {weight: [{filter: self_attn, value: [0, 0.5]}, {value: 1}]}}
    parameters: {lambda: 0.6}
parameters: {weight: 0.5, density: 0.75, normalize: false}
""",
    "dare_linear, all kept": """
merge_method: dare_linear
base_model: BASE
models: [{model: A, parameters: {weight: [0.1, 0.9]}}, {model: B}]
parameters: {weight: 0.5, normalize: true}
""",
    "dare_ties, all kept": """
merge_method: dare_ties
base_model: BASE
models: [{model: A, parameters: {weight: [0.1, 0.9], density: 1}}, {model: B}]
parameters: {weight: 0.5, rescale: true}
""",
    "della_linear, all kept": """
merge_method: della_linear
base_model: BASE
models: [{model: A, parameters: {weight: [0.1, 0.9], epsilon: 0.2}}, {model: B}]
parameters: {weight: 0.5}
""",
    "della, all kept": """
merge_method: della
base_model: BASE
models: [{model: A, parameters: {weight: [0.1, 0.9]}}, {model: B}]
parameters: {weight: 0.5, lambda: 1.1}
""",
    "breadcrumbs": """
merge_method: breadcrumbs
base_model: BASE
models:
  - {model: A, parameters: {density: [0.9, 0.5], gamma: 0.05}}
  - {model: B, parameters: {gamma: [{filter: mlp, value: 0.1}, {value: 0.0}]}}
parameters: {weight: 0.5, density: 0.75}
""",
    "breadcrumbs_ties": """
merge_method: breadcrumbs_ties
base_model: BASE
models:
  - {model: A, parameters: {density: 0.75, gamma: 0.05, weight: [0.3, 0.6]}}
  - {model: B, parameters: {density: 0.5, weight: 0.4}}
""",
    "sce": """
merge_method: sce
base_model: BASE
models: [{model: A}, {model: B}, {model: C}]
parameters: {select_topk: [{filter: mlp, value: [0.25, 0.75]}, {value: 0.5}], int8_mask: true}
""",
}


def shapes():
    """Names and shapes of the tensors of a tiny Llama."""
    names = {"model.embed_tokens.weight": (TOKENS, HIDDEN)}
    for number in range(LAYERS):
        layer = f"model.layers.{number}"
        names |= {f"{layer}.self_attn.{part}_proj.weight": (HIDDEN, HIDDEN) for part in "qkvo"}
        names |= {f"{layer}.mlp.{part}_proj.weight": (INNER, HIDDEN) for part in ("gate", "up")}
        names |= {f"{layer}.mlp.down_proj.weight": (HIDDEN, INNER)}
        names |= {f"{layer}.{part}_layernorm.weight": (HIDDEN,) for part in ("input", "post_attention")}
    return names | {"model.norm.weight": (HIDDEN,), "lm_head.weight": (TOKENS, HIDDEN)}


def write_models(folder):
    """BASE, and A, B and C that grew from it: far enough apart that SLERP turns."""
    draw = torch.Generator().manual_seed(5)
    base = {name: torch.randn(shape, generator=draw) for name, shape in shapes().items()}
    grown = {
        model: {name: value + 0.7 * torch.randn(value.shape, generator=draw) for name, value in base.items()}
        for model in "ABC"
    }
    config = {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": TOKENS, "hidden_size": HIDDEN,
        "intermediate_size": INNER, "num_hidden_layers": LAYERS, "num_attention_heads": 2, "num_key_value_heads": 2,
        "hidden_act": "silu", "tie_word_embeddings": False, "torch_dtype": "float32",
    }  # fmt: skip
    for model, tensors in {"BASE": base, **grown}.items():
        (folder / model).mkdir(parents=True)
        (folder / model / "config.json").write_text(json.dumps(config))
        save_file(tensors, folder / model / "model.safetensors", metadata={"format": "pt"})


def sample(folder):
    """Five entries of each tensor, in the order of `shapes`."""
    tensors = {
        name: tensor for file in sorted(folder.glob("*.safetensors")) for name, tensor in load_file(file).items()
    }
    assert tensors.keys() == shapes().keys()
    picked = {name: torch.linspace(0, tensors[name].numel() - 1, 5).long() for name in shapes()}
    return [round(x, 7) for name, at in picked.items() for x in tensors[name].flatten()[at].tolist()]


def main():
    import os

    import yaml
    from mergekit.config import MergeConfiguration
    from mergekit.merge import MergeOptions, run_merge

    found = {}
    with tempfile.TemporaryDirectory() as name:
        os.chdir(name)
        write_models(Path(name))
        for number, (case, text) in enumerate(CASES.items()):
            options = MergeOptions(quiet=True, copy_tokenizer=False, write_model_card=False)
            run_merge(MergeConfiguration.model_validate(yaml.safe_load(text)), f"out{number}", options)
            found[case] = sample(Path(f"out{number}"))
    lines = ",\n".join(f"{json.dumps(case)}: {json.dumps(values)}" for case, values in found.items())
    Path(__file__).resolve().with_suffix(".json").write_text(f"{{\n{lines}\n}}\n")


if __name__ == "__main__":
    main()
