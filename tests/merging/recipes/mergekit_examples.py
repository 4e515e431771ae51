"""Small files of the forms that mergekit's examples have, over models of our own, with what becomes of each.

The first six are called as the files in its repository; the others stand for what its pages show. BASE, A, B and C are folders.
"""

RUNS = "runs"
EXAMPLES = {
    "bio-merge.yml": (
        """
models:
  - {model: A, parameters: {density: 0.5, weight: 0.5}}
  - {model: B, parameters: {density: 0.5, weight: 0.5}}
merge_method: ties
base_model: BASE
parameters: {normalize: false, int8_mask: true}
dtype: float16
""",
        RUNS,
    ),
    "gradient-slerp.yml": (
        """
slices:
  - sources:
      - {model: A, layer_range: [0, 4]}
      - {model: B, layer_range: [0, 4]}
merge_method: slerp
base_model: A
parameters:
  t:
    - {filter: self_attn, value: [0, 0.5, 0.3, 0.7, 1]}
    - {filter: mlp, value: [1, 0.5, 0.7, 0.3, 0]}
    - value: 0.5
dtype: float16
""",
        RUNS,
    ),
    "linear.yml": (
        """
models:
  - {model: A, parameters: {weight: 1.0}}
  - {model: B, parameters: {weight: 0.3}}
  - {model: C, parameters: {weight: 0.5}}
merge_method: linear
dtype: float16
""",
        RUNS,
    ),
    "mega.yml": (
        """
slices: [{sources: [{model: A, layer_range: [0, 4]}, {model: B, layer_range: [0, 4]}]}]
merge_method: slerp
base_model: A
parameters: {t: 0.5}
dtype: float16
name: first
---
models: [{model: first}, {model: C, parameters: {density: 0.3, weight: 0.5}}]
merge_method: ties
base_model: BASE
dtype: float16
""",
        "holds several documents; one ends at --- in line 8: put each into a file of its own",
    ),
    "orcamini-platy-44layer.yml": (
        """
slices:
  - sources: [{model: A, layer_range: [0, 3]}]
  - sources: [{model: B, layer_range: [2, 4]}]
merge_method: passthrough
dtype: float16
""",
        "slices[1].sources[0].layer_range is [2, 4] where layer 3 comes next; layers that are left out, repeated or moved make "
        "another architecture",
    ),
    "ties.yml": (
        """
models:
  - {model: A, parameters: {density: [1, 0.7, 0.1], weight: 1.0}}
  - {model: B, parameters: {density: 0.5, weight: [0, 0.3, 0.7, 1]}}
  - {model: C, parameters: {density: 0.33, weight: [{filter: mlp, value: 0.5}, {value: 0}]}}
merge_method: ties
base_model: BASE
parameters: {normalize: true, int8_mask: true}
dtype: float16
""",
        RUNS,
    ),
    "task_arithmetic": (
        "merge_method: task_arithmetic\nbase_model: BASE\nmodels: [{model: A}, {model: B}]\n"
        "parameters: {weight: 0.4, lambda: 0.8}",
        RUNS,
    ),
    "dare_ties, dare_linear": (
        "merge_method: dare_ties\nbase_model: BASE\nmodels:\n  - model: BASE\n"
        "  - {model: A, parameters: {density: 0.53, weight: 0.4}}\n  - {model: B, parameters: {density: 0.5, weight: 0.3}}\n"
        "parameters: {int8_mask: true}\ndtype: bfloat16",
        RUNS,
    ),
    "della, della_linear": (
        "merge_method: della\nbase_model: BASE\nmodels: [{model: A, parameters: {epsilon: 0.1}}, {model: B}]\n"
        "parameters: {weight: 0.5, density: 0.6, epsilon: 0.2, lambda: 1.1, rescale: true}",
        RUNS,
    ),
    "breadcrumbs, breadcrumbs_ties": (
        "merge_method: breadcrumbs_ties\nbase_model: BASE\nmodels: [{model: A}, {model: B}]\n"
        "parameters: {weight: 0.5, density: 0.9, gamma: 0.01}",
        RUNS,
    ),
    "sce": (
        "merge_method: sce\nbase_model: BASE\nmodels: [{model: A}, {model: B}]\n"
        "parameters: {select_topk: 0.5}\ntokenizer_source: base",
        RUNS,
    ),
    "model_stock": (
        "merge_method: model_stock\nbase_model: BASE\nmodels: [{model: A}, {model: B}]\ndtype: bfloat16",
        RUNS,
    ),
    "nuslerp": (
        "merge_method: nuslerp\nmodels: [{model: A, parameters: {weight: 0.5}}, {model: B, parameters: {weight: 0.25}}]",
        RUNS,
    ),
    "nuslerp, row by row": (
        "merge_method: nuslerp\nmodels: [{model: A}, {model: B}]\nparameters: {weight: 0.5, nuslerp_flatten: false}",
        "nuslerp_flatten: false cannot be taken over for nuslerp; here it is always true",
    ),
    "multislerp": (
        "merge_method: multislerp\nmodels: [{model: A}, {model: B}, {model: C}]\nparameters: {weight: 1}",
        RUNS,
    ),
    "karcher": ("merge_method: karcher\nmodels: [{model: A}, {model: B}]\nparameters: {max_iter: 10, tol: 1e-5}", RUNS),
    "passthrough, one model": (
        "merge_method: passthrough\nmodels: [{model: A}]\nparameters: {scale: [{filter: down_proj, value: 0}, {value: 1}]}",
        RUNS,
    ),
    "slices with parameters of their own": (
        "merge_method: linear\nparameters: {weight: 1}\nslices:\n"
        "  - {sources: [{model: A, layer_range: [0, 2]}, {model: B, layer_range: [0, 2]}]}\n"
        "  - {sources: [{model: A, layer_range: [2, 4], parameters: {weight: 3}}, {model: B, layer_range: [2, 4]}]}",
        RUNS,
    ),
    "arcee_fusion.yml": (
        "merge_method: arcee_fusion\nbase_model: A\nmodels: [{model: A}, {model: B}]",
        "merge_method arcee_fusion is not here; there are linear, passthrough",
    ),
    "nearswap": (
        "merge_method: nearswap\nbase_model: A\nmodels: [{model: A}, {model: B}]\nparameters: {t: 0.001}",
        "merge_method nearswap is not here; there are linear, passthrough",
    ),
    "ram, ramplus_tl": (
        "merge_method: ram\nbase_model: BASE\nmodels: [{model: A}, {model: B}]",
        "merge_method ram is not here; there are linear, passthrough",
    ),
    "a union of tokenizers": (
        "merge_method: linear\nmodels: [{model: A}, {model: B}]\nparameters: {weight: 1}\n"
        "tokenizer: {source: union, tokens: {<x>: {source: A, force: true}}}",
        "tokenizer.source is 'union'; the result has the tokenizer of A",
    ),
    "chat_template": (
        "merge_method: linear\nmodels: [{model: A}, {model: B}]\nparameters: {weight: 1}\nchat_template: chatml",
        "chat_template cannot be taken over",
    ),
    "modules": (
        "merge_method: linear\nmodules: {text_decoder: {models: [{model: A}]}}\nparameters: {weight: 1}",
        "modules cannot be taken over",
    ),
    "a mixture of experts": (
        "base_model: A\ngate_mode: random\nexperts: [{source_model: A, positive_prompts: [x]}]",
        "experts cannot be taken over: a mixture of experts is not built here",
    ),
    "an evolution": (
        "genome: {models: [A, B], merge_method: linear}\ntasks: [{name: x}]",
        "genome cannot be taken over: weights are found by a search of ours",
    ),
}
"""Text and outcome by name: that it runs, or the words it is refused with."""
