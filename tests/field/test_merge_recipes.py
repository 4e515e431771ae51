"""Merge recipes as people write them for mergekit: each is read with its precedence, or refused by the path of its key.

BASE, A and B stand for folders; here they have a config.json of four layers, B's in `text_config`.
"""

import json

import pytest

from fusion.merging.recipes.merge_recipe import load_recipe

TWO = "models: [{model: A, parameters: {weight: 1}}, {model: B, parameters: {weight: 1}}]\n"
PAIR = "{model: A, layer_range: [0, 4]}, {model: B, layer_range: [0, 4]}"


@pytest.fixture
def read(tmp_path, monkeypatch):
    """Read a text as a recipe, beside folders of these names."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "ADAPTER").mkdir()
    for name in ("BASE", "A", "B"):
        (tmp_path / name).mkdir()
        layers = {"num_hidden_layers": 4}
        (tmp_path / name / "config.json").write_text(json.dumps({"text_config": layers} if name == "B" else layers))

    def read_text(text):
        (tmp_path / "m.yaml").write_text(text)
        return load_recipe(tmp_path / "m.yaml")

    return read_text


REFUSED = {
    # keys that nothing reads
    "a typo of a parameter": (
        "merge_method: linear\nmodels: [{model: A, parameters: {wieght: 1.0}}, {model: B, parameters: {wieght: 0.1}}]",
        r"unknown key models\[0\].parameters.wieght; did you mean weight\?",
    ),
    "a weight beside the model": (
        "merge_method: linear\nmodels: [{model: A, weight: 0.1}, {model: B, weight: 0.9}]",
        r"models\[0\].weight belongs under parameters",
    ),
    "a typo beside the model": (
        "merge_method: linear\nmodels: [{model: A, wieght: 0.1}]",
        r"unknown key models\[0\].wieght; did you mean weight, under parameters\?",
    ),
    "a parameter beside parameters": (
        f"merge_method: slerp\nbase_model: A\nt: 0.4\n{TWO}",
        r"m.yaml: t belongs under parameters",
    ),
    "a typo at the top": (
        f"merge_method: linear\n{TWO}out_dtyp: float16",
        r"unknown key out_dtyp; did you mean out_dtype\?",
    ),
    "a typo of merge_method": (
        f"merge_methd: linear\n{TWO}",
        r"merge_method is missing\n.*unknown key merge_methd; did you",
    ),
    "a typo in a filter": (
        "merge_method: slerp\nbase_model: A\nmodels: [{model: A}, {model: B}]\n"
        "parameters: {t: [{fliter: mlp, value: 1}, {value: 0}]}",
        r"unknown key parameters.t\[0\].fliter; did you mean filter\?",
    ),
    "a typo of a slice": (
        f"merge_method: slerp\nbase_model: A\nslices: [{{sources: [{PAIR}], paramters: {{t: 1}}}}]",
        r"unknown key slices\[0\].paramters; did you mean parameters\?",
    ),
    "layers of a whole model": (
        "merge_method: linear\nmodels: [{model: A, layer_range: [0, 2]}]\nparameters: {weight: 1}",
        r"unknown key models\[0\].layer_range; allowed are model, parameters",
    ),
    "a parameter that the method does not know": (
        f"merge_method: linear\n{TWO}parameters: {{density: 0.5}}",
        r"parameters.density: linear has no density, so that mergekit ignores it; leave it out",
    ),
    "a typo at the top parameters": (
        f"merge_method: ties\nbase_model: BASE\n{TWO}parameters: {{normalise: true}}",
        r"unknown key parameters.normalise; it is called normalize now",
    ),
    "a parameter of all models under one": (
        "merge_method: slerp\nbase_model: A\nmodels: [{model: A}, {model: B, parameters: {t: 0.3}}]",
        r"models\[1\].parameters.t is ignored by mergekit: t is one for all models; write it under parameters",
    ),
    "a seed, which is no key": (f"merge_method: linear\n{TWO}random_seed: 3", "unknown key random_seed; allowed are"),
    # values of another kind
    "a weight that is true": (
        "merge_method: linear\nmodels: [{model: A, parameters: {weight: true}}]",
        r"models\[0\].parameters.weight is true; it must be a number",
    ),
    "a weight that is a word": (
        "merge_method: linear\nmodels: [{model: A, parameters: {weight: half}}]",
        r"models\[0\].parameters.weight is 'half'; it must be a number",
    ),
    "a weight that is nothing": (
        "merge_method: linear\nmodels: [{model: A, parameters: {weight: }}]",
        r"models\[0\].parameters.weight is null; it must be a number, a list of numbers",
    ),
    "a normalize that is a number": (
        f"merge_method: linear\n{TWO}parameters: {{normalize: 1}}",
        "parameters.normalize is 1; it must be true or false",
    ),
    "a filter without value": (
        f"merge_method: linear\n{TWO}parameters: {{weight: [{{filter: mlp}}, 0.5]}}",
        r"parameters.weight\[0\].value is missing\n.*parameters.weight\[1\] is 0.5; it must be a mapping with filter and value",
    ),
    "no weight": (
        "merge_method: linear\nmodels: [{model: A, parameters: {weight: 1}}, {model: B}]",
        r"weight is missing for B; write it under models\[1\].parameters, or under parameters of the whole merge",
    ),
    "a base that is averaged without a weight": (
        f"merge_method: linear\nbase_model: BASE\n{TWO}",
        "weight is missing for BASE; write it under parameters of an entry of models for it",
    ),
    # other forms
    "models that are strings": (
        "merge_method: linear\nmodels: [A, B]",
        r"models\[0\] is 'A'; it must be a mapping with model",
    ),
    "a slice without range": (
        "merge_method: passthrough\nslices: [{sources: [{model: A}]}]",
        r"slices\[0\].sources\[0\].layer_range is missing",
    ),
    "parameters that are a list": (
        "merge_method: linear\nmodels: [{model: A, parameters: [{weight: 1}]}]",
        r"models\[0\].parameters is a list of 1; it must be a mapping of names to values",
    ),
    "models and slices": (
        f"merge_method: slerp\nbase_model: A\n{TWO}slices: [{{sources: [{PAIR}]}}]",
        "write models or slices, and one of the two only",
    ),
    "neither": ("merge_method: linear\nmodels: null", "write models or slices"),
    "a model twice": (
        "merge_method: linear\nmodels: [{model: A}, {model: A}]\nparameters: {weight: 1}",
        r"models\[1\].model is A once more; list each model once",
    ),
    "several documents": (
        f"merge_method: linear\n{TWO}name: one\n---\nmerge_method: linear\nmodels: [{{model: one}}]",
        "m.yaml holds several documents; .* put each into a file of its own",
    ),
    # what is not here
    "several modules": (
        "merge_method: linear\nmodules: {text: {models: []}}",
        "modules cannot be taken over: .* write models",
    ),
    "a mixture of experts": (
        "base_model: A\ngate_mode: hidden\nexperts: [{source_model: B, positive_prompts: [x]}]",
        "experts cannot be taken over: a mixture of experts is not built here",
    ),
    "a chat template": (
        f"merge_method: linear\n{TWO}chat_template: auto",
        "chat_template cannot be taken over: .*leave it out",
    ),
    "a union of tokenizers": (
        f"merge_method: linear\n{TWO}tokenizer: {{source: union, tokens: {{<x>: {{source: A}}}}}}",
        "tokenizer.source is 'union'; the result has the tokenizer of A",
    ),
    "a tokenizer without source": (
        f"merge_method: linear\n{TWO}tokenizer: {{}}",
        "tokenizer.source is 'union'",
    ),
    "tokens": (
        f"merge_method: linear\n{TWO}tokenizer: {{source: base, tokens: {{<x>: {{source: A}}}}}}",
        "tokenizer.tokens cannot be taken over",
    ),
    "padded tokens": (
        f"merge_method: linear\n{TWO}tokenizer: {{source: base, pad_to_multiple_of: 64}}",
        "tokenizer.pad_to_multiple_of cannot be taken over",
    ),
    "another type": (
        f"merge_method: linear\n{TWO}dtype: float64",
        "dtype is 'float64'; a result is bfloat16, float16, float32",
    ),
    "a method of mergekit alone": (
        f"merge_method: nearswap\nbase_model: A\n{TWO}",
        "merge_method nearswap is not here; there are linear",
    ),
    "a method that nobody has": (f"merge_method: tiez\n{TWO}", "there is no merge_method 'tiez'; did you mean ties"),
    # slices that are not the whole model
    "fewer layers than text_config has": (
        "merge_method: passthrough\nslices: [{sources: [{model: B, layer_range: [0, 3]}]}]",
        r"slices\[0\].sources\[0\].layer_range: the slices end at layer 3 and B has 4 layers",
    ),
    "repeated layers": (
        "merge_method: passthrough\nslices: [{sources: [{model: A, layer_range: [0, 3]}]}, "
        "{sources: [{model: A, layer_range: [2, 4]}]}]",
        r"slices\[1\].sources\[0\].layer_range is \[2, 4\] where layer 3 comes next; layers that are left out",
    ),
    "layers of different numbers": (
        "merge_method: linear\nslices: [{sources: [{model: A, layer_range: [0, 4]}, {model: B, layer_range: [1, 5]}]}]",
        r"slices\[0\].sources\[1\].layer_range is \[1, 5\], that of sources\[0\] \[0, 4\]",
    ),
    "other models in each slice": (
        "merge_method: ties\nbase_model: BASE\nparameters: {weight: 1}\nslices: [{sources: [{model: A, layer_range: [0, 2]}]}, "
        "{sources: [{model: B, layer_range: [2, 4]}]}]",
        r"slices\[1\] has the models B, slices\[0\] has A; only linear and passthrough",
    ),
    "a base for each slice": (
        "merge_method: ties\nbase_model: BASE\nparameters: {weight: 1}\nslices: [{sources: [{model: A, layer_range: [0, 2]}]}, "
        "{sources: [{model: A, layer_range: [2, 4]}], base_model: B}]",
        r"base_model differs from slice to slice \(B, BASE\)",
    ),
    "two models passed through": (
        "merge_method: passthrough\nmodels: [{model: A}, {model: B}]",
        "passthrough takes one model at a time, got A, B",
    ),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_would_be_ignored_or_misread_is_refused_by_its_path(kind, read):
    text, message = REFUSED[kind]
    with pytest.raises(ValueError, match=message) as error:
        read(text)
    assert all("m.yaml" in line for line in str(error.value).splitlines())


def test_the_base_of_a_slice_is_the_base(read):
    recipe = read(
        "merge_method: task_arithmetic\nbase_model: BASE\n"
        "slices: [{sources: [{model: A, layer_range: [0, 4], parameters: {weight: 1}}], base_model: B}]"
    )
    assert (recipe.base_model, [entry.model for entry in recipe.models]) == ("B", ["A"])


def test_a_parameter_of_a_slice_is_stronger_than_that_of_the_merge(read):
    slices = f"slices: [{{sources: [{PAIR}], parameters: {{t: 0.9}}}}]"
    text = f"merge_method: slerp\nbase_model: A\n{slices}\nparameters: {{t: 0.1}}"
    assert read(text).resolved_method().for_tensor("model.layers.1.w", 4).t == 0.9


@pytest.mark.parametrize(
    "tokenizer", ["tokenizer: {source: base}", "tokenizer_source: base", "tokenizer: {source: A}", ""]
)
def test_the_tokenizer_of_the_base_is_what_there_is_anyway(tokenizer, read):
    recipe = read(f"merge_method: linear\nbase_model: A\n{TWO}{tokenizer}")
    assert (recipe.base_model, recipe.resolved_method().weights) == ("A", [1, 1])


@pytest.mark.parametrize("tokenizer", ["tokenizer: {source: B}", "tokenizer_source: B"])
def test_the_tokenizer_of_a_model_is_taken_with_what_goes_with_it(tokenizer, read):
    recipe = read(f"merge_method: linear\nbase_model: A\n{TWO}{tokenizer}")
    assert recipe.tokenizer_source == "B"
    with pytest.raises(ValueError, match=r"is 'C'; the result has the tokenizer of A \(base\) or of one of A, B"):
        read(f"merge_method: linear\nbase_model: A\n{TWO}tokenizer_source: C")


def test_an_adapter_is_passed_on_with_its_base(read):
    recipe = read("merge_method: linear\nmodels: [{model: A+ADAPTER, parameters: {weight: 1}}]")
    assert [entry.model for entry in recipe.models] == ["A+ADAPTER"]
    with pytest.raises(ValueError, match=r"layer_range: the slices end at layer 3 and A\+ADAPTER has 4 layers"):
        read("merge_method: passthrough\nslices: [{sources: [{model: A+ADAPTER, layer_range: [0, 3]}]}]")


def test_what_has_no_effect_is_accepted(read):
    text = f"merge_method: linear\nname: mine\n{TWO}parameters: {{int8_mask: true}}\ndtype: torch.bfloat16\nchat_template: null"
    assert read(text.replace("chat_template: null", "")).dtype == "bfloat16"
    task = f"merge_method: task_arithmetic\nbase_model: BASE\n{TWO}parameters: {{density: 0.5, rescale: false}}"
    assert read(task).resolved_method().weights == [1, 1]


def test_a_typo_of_the_models_key_is_not_taken_for_a_run(read):
    with pytest.raises(ValueError, match=r"unknown key modles; did you mean models\?"):
        read("merge_method: linear\nmodles: [{model: A}]")


def test_a_filter_is_a_text_and_not_a_pattern(read):
    filters = "{t: [{filter: 'self_attn.*', value: 1}, {filter: '[m]lp', value: 1}, {filter: '*', value: 0.25}]}"
    models = "models: [{model: A}, {model: B}]"
    method = read(f"merge_method: slerp\nbase_model: A\n{models}\nparameters: {filters}").resolved_method()
    assert [method.for_tensor(name, 4).t for name in ("h.0.self_attn.q", "h.0.mlp.up")] == [0.25, 0.25]
