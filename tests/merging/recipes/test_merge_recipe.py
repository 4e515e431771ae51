"""Recipes: what a file may say, mergekit's files read as ours, and every mistake named."""

import pytest
import yaml

from fusion.merging.methods.registry import METHODS
from fusion.merging.methods.schedule import LayerSchedule, TensorSchedule
from fusion.merging.recipes.merge_recipe import is_merge_recipe, load_recipe, parse_recipe

OURS = {"base_model": "b", "models": ["x", "y"], "method": "ties"}


def parse(raw, **changes):
    return parse_recipe(raw | changes, "r.yaml")


def mergekit(method, models=("x", "y"), base="b", parameters=None, **others):
    named = models and [{"model": name} if isinstance(name, str) else name for name in models]
    raw = {"merge_method": method, "models": named, "base_model": base, "parameters": parameters, "dtype": "bfloat16"}
    return parse({key: value for key, value in (raw | others).items() if value is not None})


def with_parameters(name, **parameters):
    return {"model": name, "parameters": parameters}


def test_a_path_and_a_name_are_enough_and_weights_stand_beside_the_models():
    short = parse(OURS)
    assert [model.model for model in short.models] == ["x", "y"]
    assert short.resolved_method().kind == "ties"
    long = parse(OURS, models=[{"model": "x", "weight": 0.3}, {"model": "y", "weight": 0.6}], method={"kind": "ties"})
    assert long.resolved_method().weights == [0.3, 0.6]
    varied = parse(OURS, models=[{"model": "x", "density": {"layers": [0.1, 1]}}, {"model": "y", "density": 0.5}])
    assert varied.resolved_method().density == [LayerSchedule(layers=[0.1, 1]), 0.5]


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method().kind)
def test_a_recipe_written_is_the_recipe_read(tmp_path, method):
    first = parse(OURS, method={"kind": method().kind})
    (tmp_path / "r.yaml").write_text(first.to_yaml())
    assert load_recipe(tmp_path / "r.yaml") == first
    assert load_recipe(tmp_path / "r.yaml").resolved_method() == method()


def test_new_weights_replace_those_of_the_models_and_slerp_takes_a_share():
    weighted = parse(OURS, models=[{"model": "x", "weight": 0.3}, {"model": "y", "weight": 0.6}]).with_weights(
        [1.0, 2.0]
    )
    assert weighted.resolved_method().weights == [1, 2]
    assert parse(OURS, method="slerp").with_weights([0.25]).resolved_method().t == 0.25
    thinned = parse(OURS, models=[{"model": "x", "density": 0.3}, {"model": "y", "density": 0.6}]).with_weights(
        [1.0, 2.0]
    )
    assert thinned.resolved_method().density == [0.3, 0.6]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"modles": []}, r"r.yaml: unknown key modles; did you mean models\?"),
        ({"base": "b"}, "r.yaml: unknown key base; it is called base_model now"),
        ({"models": [{"path": "x"}]}, r"unknown key models\[0\]\.path; it is called model now"),
        (
            {"method": {"kind": "ties", "normalise": True}},
            "unknown key method.normalise; it is called normalize now",
        ),
        ({"method": {"kind": "ties", "scale": 2}}, "unknown key method.scale; it is called lambda now"),
        ({"search": {"validation": {}, "how": {"kind": "grid"}}}, "unknown key search.how; it is called algorithm now"),
        ({"models": []}, "r.yaml: models: List should have at least 1 item"),
        ({"method": "tiez"}, r"r.yaml: method: there is no 'tiez'; did you mean ties\?"),
        ({"method": {"kind": "tiez"}}, r"r.yaml: method.kind: there is no 'tiez'; did you mean ties\?"),
        ({"method": {"density": 1}}, "r.yaml: method: it must be the name of a method, or a mapping with kind"),
        (
            {"models": [{"model": "x", "density": 2}]},
            "r.yaml: density of x: Input should be less than or equal to 1, got 2",
        ),
        (
            {"models": [{"model": "x", "weight": {"tensors": {"*": "z"}}}]},
            r"r.yaml: models\[0\].weight.tensors.\*: Input should be a valid number, .*'z'",
        ),
        (
            {"models": [{"model": "x", "weight": {"tensors": {"*": {"tensors": {}}}}}]},
            r"r.yaml: models\[0\].weight.tensors.\*: it must be a number, or its values by layer",
        ),
        ({"models": "x"}, "r.yaml: models: it must be a list, got 'x'"),
        ({"models": [["x"]]}, r"r.yaml: models\[0\]: it must be a mapping of keys to values"),
        ({"models": [None]}, r"r.yaml: models\[0\]: it must be a mapping of keys to values"),
        ({"models": [{"model": None}]}, r"r.yaml: models\[0\].model: it must be a text"),
        ({"models": [{"model": "x", "weight": True}]}, r"r.yaml: models\[0\].weight: must be a number, got true"),
        ({"method": {"kind": "ties", "density": 2}}, "less than or equal to 1, got 2"),
        ({"models": [{"model": "x", "weight": 1}, "y"]}, "weight is given for some models, not for y"),
        ({"models": [{"model": "x", "weight": 1}], "method": "sce"}, "sce has no weight; leave it out"),
        (
            {"models": [{"model": "x", "weight": 1}], "method": {"kind": "ties", "weights": [1]}},
            "weight is given with the models and as method.weights",
        ),
        ({"method": {"kind": "linear", "weights": [1]}}, "linear has 1 weights for 2 models"),
        ({"models": ["x"], "method": "slerp"}, "slerp needs at least 2 models, got 1"),
        ({"dtype": "int8"}, "r.yaml: dtype: Input should be 'float32', 'bfloat16' or 'float16', got 'int8'"),
    ],
)
def test_a_mistake_is_named_with_its_place(changes, message):
    with pytest.raises(ValueError, match=message):
        parse(OURS, **changes)


def test_a_file_that_is_no_recipe_is_named(tmp_path):
    (tmp_path / "list.yaml").write_text("- a")
    (tmp_path / "broken.yaml").write_text("a: [")
    with pytest.raises(ValueError, match=r"list.yaml should hold keys and values, it holds list"):
        load_recipe(tmp_path / "list.yaml")
    with pytest.raises(ValueError, match=r"broken.yaml is not valid YAML"):
        load_recipe(tmp_path / "broken.yaml")


def test_a_run_is_told_from_a_recipe_by_its_keys():
    assert is_merge_recipe(OURS)
    assert is_merge_recipe({"merge_method": "slerp", "slices": []})
    assert not is_merge_recipe({"pivot": {}, "models": []})
    assert not is_merge_recipe({"name": "a"})


# mergekit's files


def test_ties_of_mergekit_takes_its_defaults_and_parameters():
    text = """
    merge_method: ties
    base_model: b
    models:
      - model: b
      - model: x
        parameters: {weight: 0.3, density: 0.5}
      - model: y
        parameters: {weight: [0, 0.5, 1]}
    parameters: {normalize: false, int8_mask: true, lambda: 0.7}
    dtype: bfloat16
    out_dtype: float16
    """
    found = parse(yaml.safe_load(text))
    method = found.resolved_method()
    assert (found.base_model, found.dtype, [model.model for model in found.models]) == ("b", "float16", ["x", "y"])
    assert (method.weights, method.density) == ([0.3, LayerSchedule(layers=[0, 0.5, 1], outside="first")], [0.5, 1.0])
    assert (method.normalize, method.lambda_) == (False, 0.7)


@pytest.mark.parametrize(
    "kind", ["task_arithmetic", "ties", "dare_ties", "dare_linear", "breadcrumbs", "breadcrumbs_ties"]
)
def test_what_mergekit_takes_for_granted_is_written_out(kind):
    found = mergekit(kind, parameters={"weight": 0.5}).resolved_method()
    assert found.weights == [0.5, 0.5]
    assert found.normalize == (kind == "ties")
    if kind != "task_arithmetic":
        assert found.density == [1.0, 1.0]


def test_slerp_of_mergekit_goes_from_its_base_and_filters_become_patterns():
    t = [{"filter": "self_attn", "value": [0, 1]}, {"filter": "mlp", "value": 0.2}, {"value": 0.5}]
    found = mergekit("slerp", ["x", "b"], parameters={"t": t})
    assert [model.model for model in found.models] == ["b", "x"]
    patterns = {"*self_attn*": LayerSchedule(layers=[0, 1], outside="first"), "*mlp*": 0.2, "*": 0.5}
    assert found.resolved_method().t == TensorSchedule(tensors=patterns)
    assert [m.model for m in mergekit("slerp", ["x"], parameters={"t": 0.5}).models] == ["b", "x"]


def test_a_single_slice_of_all_layers_is_the_whole_model(tmp_path):
    (tmp_path / "config.json").write_text('{"num_hidden_layers": 4}')
    sources = [{"model": str(tmp_path), "layer_range": [0, 4]}, {"model": "y", "layer_range": [0, 4]}]
    found = mergekit("slerp", None, str(tmp_path), {"t": 0.5}, slices=[{"sources": sources}])
    assert [model.model for model in found.models] == [str(tmp_path), "y"]


def test_the_other_methods_of_mergekit_are_read():
    linear = mergekit(
        "linear", [with_parameters("x", weight=1), with_parameters("y", weight=3)], None
    ).resolved_method()
    assert (linear.weights, linear.normalize) == ([1, 3], True)
    assert mergekit("sce").resolved_method().select_topk == 1.0
    assert mergekit("nuslerp", parameters={"weight": 0.5}).resolved_method().origin == "base"
    assert mergekit("multislerp", base=None, parameters={"weight": 0.5}).resolved_method().origin == "zero"
    assert mergekit("karcher", base=None, parameters={"max_iter": 20}).resolved_method().max_iter == 20
    assert mergekit("model_stock").resolved_method().kind == "model_stock"
    della = [with_parameters(name, weight=1, density=0.5, epsilon=0.1) for name in "xy"]
    assert mergekit("della", della, parameters={"rescale": True}).resolved_method().epsilon == 0.1


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: mergekit("passthrough"), "passthrough takes one model at a time, got x, y; linear averages"),
        (
            lambda: mergekit("ties", ["b", with_parameters("x", weight=1, density=2)]),
            "r.yaml: density of x: Input should be less than or equal to 1, got 2",
        ),
        (lambda: mergekit("slerp", ["x"], parameters={"t": 2}), "r.yaml: parameters.t: Input should be less than"),
        (lambda: mergekit("linear", base=""), "r.yaml: base_model is ''; it must not be empty"),
        (
            lambda: mergekit("ties", tokenizer_source="union"),
            "tokenizer_source is 'union'; the result has the tokenizer of",
        ),
        (lambda: mergekit("ties", chat_template="auto"), "chat_template cannot be taken over"),
        (
            lambda: mergekit("ties", parameters={"rescale": True, "weight": 1}),
            "rescale: true cannot be taken over for ties; here it is always false",
        ),
        (
            lambda: mergekit("dare_ties", parameters={"rescale": False, "weight": 1}),
            "rescale: false cannot be taken over for dare_ties",
        ),
        (
            lambda: mergekit("nuslerp", parameters={"nuslerp_flatten": False, "weight": 1}),
            "nuslerp_flatten: false cannot be taken over",
        ),
        (
            lambda: mergekit("slerp", ["x", "y", "z"], parameters={"t": 0.5}),
            "slerp takes base_model and one other model, got 3 others",
        ),
        (
            lambda: mergekit("ties", parameters={"temperature": 1}),
            "unknown key parameters.temperature; allowed are density",
        ),
    ],
)
def test_what_would_come_out_otherwise_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
