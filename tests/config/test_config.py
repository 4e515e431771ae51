"""A configuration says all that is wrong with it at once, and reads back what it writes."""

import copy

import pytest
import yaml

from fusion.api.runs import load_config
from fusion.config import Config, loading
from fusion.config.loading import ConfigError
from fusion.config.recipes import recipes

GOOD = {
    "name": "a",
    "pivot": {"path": "some/pivot"},
    "sources": [{"name": "one", "path": "some/source"}, {"name": "two", "path": "other/source"}],
    "data": {"train": [{"path": "builtin:sums", "domain": "sums"}], "heldout": [{"path": "x.jsonl", "domain": "sums"}]},
    "objectives": [{"kind": "cross_entropy", "weight": 0.9}, {"kind": "infifusion", "weight": 0.1}],
}


def changed(path, value):
    raw = copy.deepcopy(GOOD)
    *parents, last = path
    place = raw
    for part in parents:
        place = place[part] if isinstance(place, list) else place.setdefault(part, {})
    place[last] = value
    return raw


def test_an_objective_that_a_backend_cannot_serve_is_refused_before_anything_runs():
    raw = changed(["objectives", 1], {"kind": "gld", "weight": 0.1})
    raw["sources"][1]["backend"] = {"kind": "openai", "url": "http://here/v1", "model": "m"}
    message = r"objectives\[1\] \(gld\) reads mean and std of each row, which source two cannot give: backend openai"
    with pytest.raises(ConfigError, match=message):
        loading.parse(raw, "x.yaml")
    raw["objectives"][1]["input"] = "raw"
    assert loading.parse(raw, "x.yaml").sources[1].backend.kind == "openai"


@pytest.mark.parametrize(
    "backend", [{"kind": "openai", "url": "http://here/v1", "model": "m"}, {"kind": "vllm"}, {"kind": "imported"}]
)
def test_hidden_states_of_a_backend_that_has_none_are_refused(backend):
    raw = changed(["extract", "hidden_states"], True)
    raw["sources"][1]["backend"] = backend
    message = (
        f"extract.hidden_states is true, and source two cannot give hidden states: its backend {backend['kind']} knows"
    )
    with pytest.raises(ConfigError, match=message):
        loading.parse(raw, "x.yaml")


def test_an_objective_that_looks_at_hidden_states_needs_them_in_the_cache():
    raw = changed(["objectives", 1], {"kind": "affinity"})
    with pytest.raises(
        ConfigError, match=r"objectives\[1\] \(affinity\) looks at hidden .*; set extract.hidden_states to true"
    ):
        loading.parse(raw, "x.yaml")
    raw["extract"] = {"hidden_states": True}
    assert loading.parse(raw, "x.yaml").objectives[1].required_source_fields == {"hidden"}


def test_a_served_model_may_have_the_pivots_tokenizer():
    raw = changed(["sources", 1, "path"], "some/pivot")
    raw["sources"][1]["backend"] = {"kind": "openai", "url": "http://here/v1", "model": "m"}
    assert loading.parse(raw, "x.yaml").sources[1].path == "some/pivot"


def test_a_good_configuration_is_read():
    config = loading.parse(GOOD, "x.yaml")
    assert config.chosen == "unified"
    assert [objective.kind for objective in config.objectives] == ["cross_entropy", "infifusion"]


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (["objectives", 1, "temprature"], 1, r"x.yaml: unknown key objectives\[1\].temprature"),
        (["objectives", 1, "wieght"], 1, r"unknown key objectives\[1\].wieght; did you mean weight\?"),
        (["stratgies"], ["unified"], r"unknown key stratgies; did you mean strategies\?"),
        (["data", "trian"], [], r"unknown key data.trian; did you mean train\?"),
        (["extract", "top_k"], 0, r"extract.top_k: must be at least 1, or `all`, got 0"),
        (["extract", "top_k"], 5, r"objectives\[1\] \(infifusion\) reads 10 entries .* keeps 5"),
        (["objectives", 1, "top_k"], 2, r"objectives\[1\].top_k: .*got 2"),
        (["objectives", 1], {"kind": "uld"}, r"objectives\[1\] \(uld\) needs whole rows: set extract.top_k to all"),
        (
            ["objectives", 1],
            {"kind": "policy_gradient"},
            r"objectives\[1\] \(policy_gradient\) is about texts that the pivot writes .* under rounds.objectives",
        ),
        (
            ["objectives", 1],
            {"kind": "cross_entropy", "part": "replay"},
            r"objectives\[1\] \(cross_entropy\) with part: replay is about .* under rounds.objectives",
        ),
        (["objectives", 1], {"kind": "infifuson"}, r"objectives\[1\].*did you mean infifusion\?"),
        (["objectives", 1], {"kind": "gld", "input": "z_scored"}, r"objectives\[1\].input: .*zero"),
        (["sources", 1, "name"], "one", "sources need different names, whatever their case, got one, one"),
        (["sources", 1, "name"], "pivot", "pivot"),
        (["data", "train"], [], r"data.train: .*at least 1"),
        (["training"], {"lerning_rate": 1}, r"lerning_rate is not a TrainingArgument; did you mean learning_rate\?"),
        (["training"], {"output_dir": "x"}, "output_dir is set by the run itself"),
        (["result"], "pairwise", "result is pairwise, but strategies are unified"),
        (["evaluation", "exact_match"], ["maths"], "exact_match names maths; heldout domains are sums"),
        (["evaluation", "compare"], {"maths": "number"}, "evaluation.compare names maths, where no answer is compared"),
        (["pivot", "path"], "quickstart:nobody", "nobody"),
        (
            ["sources", 1, "backend"],
            {"kind": "vlm"},
            r"sources\[1\].backend.kind: there is no vlm; did you mean vllm\?",
        ),
        (["sources", 1, "backend"], {"kind": "openai", "url": "x"}, r"sources\[1\].backend.url: must begin with http"),
        (
            ["sources", 1, "backend"],
            {"kind": "openai", "modle": "x"},
            r"unknown key sources\[1\].backend.modle; did you mean model",
        ),
        (["merge"], {"kind": "ties", "density": 0}, r"^x.yaml: merge.density: Input should be greater than 0$"),
        (
            ["merge"],
            {"kind": "ties", "density": [1, 3]},
            r"^x.yaml: merge.density\[1\]: .*less than or equal to 1, got 3$",
        ),
        (
            ["merge"],
            {"kind": "linear", "weights": [{"layers": [1], "x": 1}, 1]},
            r"^x.yaml: unknown key merge.weights\[0\].x",
        ),
    ],
)
def test_a_mistake_is_named_with_the_way_out(path, value, message):
    with pytest.raises(ConfigError, match=message):
        loading.parse(changed(path, value), "x.yaml")


def test_a_merge_that_does_not_fit_its_sources_is_refused_before_anything_is_trained():
    raw = changed(["merge"], {"kind": "ties", "weights": [1, 1, 1]})
    assert loading.parse(raw, "x.yaml").merge.kind == "ties"  # nothing is merged
    with pytest.raises(ConfigError, match="ties has 3 weights for 2 models"):
        loading.parse(raw | {"strategies": ["pairwise"]}, "x.yaml")


def test_all_mistakes_are_shown_at_once():
    raw = changed(["stratgies"], 1)
    raw["data"]["max_length"] = 0
    del raw["pivot"]
    with pytest.raises(ConfigError) as error:
        loading.parse(raw, "x.yaml")
    assert len(str(error.value).splitlines()) == 3


def write(tmp_path, raw):
    (tmp_path / "x.yaml").write_text(yaml.safe_dump(raw))
    return tmp_path / "x.yaml"


def test_overrides_reach_every_place(tmp_path):
    overrides = ["training.learning_rate=1e-4", "sources.two.path=/models/b", "sources.0.template=plain", "name=b"]
    config = loading.load(write(tmp_path, GOOD), [*overrides, "strategies=[pairwise]", "extract.top_k=20"])
    assert config.training == {"learning_rate": 1e-4}
    assert (config.sources[1].path, config.sources[0].template) == ("/models/b", "plain")
    assert (config.name, config.chosen, config.extract.top_k) == ("b", "pairwise", 20)


def test_a_mistake_in_an_override_is_not_looked_for_in_the_file(tmp_path):
    file, wrong = (
        write(tmp_path, GOOD),
        ["seed=x", "training.learning_rat=1", "data.train[0].limt=3", "sources.two.path=5"],
    )
    with pytest.raises(ConfigError) as told:
        loading.load(file, [*wrong, "pivot={}"])
    lines = str(told.value).splitlines()
    assert len(lines) == 5
    for begins in (
        "--set seed=x: seed: ", "--set training.learning_rat=1: training: learning_rat is not ", "--set pivot={}: pivot.path ",
        "--set data.train[0].limt=3: unknown key data.train[0].limt", "--set sources.two.path=5: sources[1].path: ",
    ):  # fmt: skip
        assert any(line.startswith(begins) for line in lines), (begins, lines)
    with pytest.raises(ConfigError, match=r"^overrides\['data.train.0.limit'\]: data.train\[0\].limit: "):
        load_config(file, {"data.train.0.limit": -1})
    unnamed = write(tmp_path, {key: value for key, value in GOOD.items() if key != "name"})
    with pytest.raises(ConfigError, match=rf"^{unnamed}: name is missing$"):
        loading.load(unnamed, ["seed=1"])


@pytest.mark.parametrize(
    ("override", "message"),
    [("name", "write it as a.b=c"), ("sources.three.path=x", "there are one, two"), ("name.x=1", "name is a value")],
)
def test_a_wrong_override_is_explained(tmp_path, override, message):
    with pytest.raises(ConfigError, match=message):
        loading.load(write(tmp_path, GOOD), [override])


def test_a_configuration_reads_back_what_it_writes(tmp_path):
    config = loading.parse(GOOD, "x")
    (tmp_path / "y.yaml").write_text(loading.dump(config))
    assert loading.load(tmp_path / "y.yaml") == config


def test_an_absent_file_lists_the_recipes():
    with pytest.raises(ConfigError, match="no configuration absent.yaml.*quickstart"):
        loading.load("absent.yaml")


def test_broken_yaml_is_named(tmp_path):
    (tmp_path / "x.yaml").write_text("a: [1")
    with pytest.raises(ConfigError, match="not valid YAML"):
        loading.load(tmp_path / "x.yaml")


@pytest.mark.parametrize("name", recipes())
def test_every_recipe_loads_and_opens_with_what_it_is(name):
    loading.load(name)
    first = recipes()[name].read_text().splitlines()[0]
    assert first.startswith("# ")
    assert first.endswith(".")


def test_there_are_recipes():
    assert {"quickstart", "smollm2_cpu"} <= recipes().keys()


def test_every_setting_has_a_sentence():
    """The schema is what editors show; a field without a description says nothing there."""
    schema = Config.model_json_schema()
    silent = [
        f"{name}.{field}"
        for name, kind in {"Config": schema, **schema["$defs"]}.items()
        for field, body in kind.get("properties", {}).items()
        if field != "kind" and not (body.get("description") or "$ref" in str(body))
    ]
    assert silent == []


def test_a_file_says_only_what_differs_from_the_one_it_extends(tmp_path):
    write(tmp_path, GOOD)
    (tmp_path / "y.yaml").write_text(
        "extends: x.yaml\nname: other\ntraining: {max_steps: 3}\nweighting: {kind: gold_posterior, level: span}"
    )
    below, above = loading.load(tmp_path / "x.yaml"), loading.load(tmp_path / "y.yaml")
    assert above.name == "other"
    assert above.training == below.training | {"max_steps": 3}
    assert above.sources == below.sources
    assert above.weighting.kind == "gold_posterior"


def test_a_recipe_may_be_extended_by_its_name_from_anywhere(tmp_path):
    (tmp_path / "y.yaml").write_text("extends: quickstart\nname: mine")
    assert loading.load(tmp_path / "y.yaml").objectives == loading.load("quickstart").objectives


def test_groups_join_and_lists_and_other_kinds_replace():
    below = {"a": {"kind": "x", "one": 1}, "b": {"c": 1, "d": 2}, "e": [1, 2]}
    above = {"a": {"kind": "y", "two": 2}, "b": {"d": 3}, "e": [4]}
    assert loading.laid_over(below, above) == {"a": {"kind": "y", "two": 2}, "b": {"c": 1, "d": 3}, "e": [4]}
    assert loading.laid_over(below, {"a": {"kind": "x", "two": 2}})["a"] == {"kind": "x", "one": 1, "two": 2}


def test_files_that_extend_in_a_circle_are_named(tmp_path):
    (tmp_path / "a.yaml").write_text("extends: b.yaml")
    (tmp_path / "b.yaml").write_text("extends: a.yaml")
    with pytest.raises(ConfigError, match=r"a.yaml extends itself, by way of a.yaml, b.yaml; end the circle"):
        loading.load(tmp_path / "a.yaml")


def test_extending_what_is_not_there_lists_the_recipes(tmp_path):
    (tmp_path / "a.yaml").write_text("extends: quickstrat")
    with pytest.raises(ConfigError, match="no configuration quickstrat.*quickstart"):
        loading.load(tmp_path / "a.yaml")


def test_a_term_on_the_pivots_own_rows_asks_nothing_of_the_cache(tmp_path):
    raw = GOOD | {"objectives": [{"kind": "uskd", "top_k": 10}], "extract": {"top_k": 1}}
    assert loading.load(write(tmp_path, raw)).extract.top_k == 1


def test_a_strategy_of_no_means_no_although_yaml_reads_false(tmp_path):
    config = loading.load(write(tmp_path, GOOD), ["training.save_strategy=no", "training.bf16=no"])
    assert config.training == {"save_strategy": "no", "bf16": False}


@pytest.mark.parametrize(
    "path",
    [
        ["objectives", 0, "weight"],
        ["logits_budget"],
        ["extract", "batch_tokens"],
        ["plan", "mfu"],
        ["evaluation", "resamples"],
    ],
)
@pytest.mark.parametrize("value", [float("inf"), float("nan"), float("-inf"), True])
def test_no_number_is_infinite_or_a_truth_value(path, value):
    with pytest.raises(ConfigError) as error:
        loading.parse(changed(path, value), "x.yaml")
    assert str(path[-1]) in str(error.value)


@pytest.mark.parametrize("kind", ["gold_posterior", "random_source", "learned"])
def test_no_number_of_a_weighting_is_infinite(kind):
    infinite = {
        "gold_posterior": {"temperature": float("inf")},
        "random_source": {"probabilities": [float("nan"), 1]},
        "learned": {"shares": {"*": [float("inf"), 0]}},
    }
    with pytest.raises(ConfigError, match="finite number"):
        loading.parse(changed(["weighting"], {"kind": kind} | infinite[kind]), "x.yaml")


@pytest.mark.parametrize("name", ["pivot", "Pivot", "chosen", "baseline", "fused", "unified", "pairwise", "mean"])
def test_a_source_is_not_called_like_something_of_the_run(name):
    with pytest.raises(ConfigError, match=f"no source may be called {name}"):
        loading.parse(changed(["sources", 0, "name"], name), "x.yaml")


@pytest.mark.parametrize("name", ["a/b", "..", "a b", "", "-a", ".hidden", "é"])
def test_a_name_that_a_folder_cannot_have_is_explained(name):
    for path in (["sources", 0, "name"], ["name"]):
        with pytest.raises(ConfigError, match="a name has letters, digits, dots"):
            loading.parse(changed(path, name), "x.yaml")


def test_names_that_differ_in_case_alone_are_one_folder_on_some_disks():
    with pytest.raises(ConfigError, match="different names, whatever their case, got TWO, two"):
        loading.parse(changed(["sources", 0, "name"], "TWO"), "x.yaml")


def test_a_source_is_not_called_like_what_another_one_reads():
    with pytest.raises(ConfigError, match="no source may be called two-reads"):
        loading.parse(changed(["sources", 0, "name"], "two-reads"), "x.yaml")


@pytest.mark.parametrize("domain", ["mean", "Mean", "*", "", "  ", " sums", "a\nb"])
@pytest.mark.parametrize("part", ["train", "heldout"])
def test_a_domain_is_a_label_that_no_table_uses_itself(part, domain):
    with pytest.raises(ConfigError, match=rf"data.{part}\[0\].domain: "):
        loading.parse(changed(["data", part, 0, "domain"], domain), "x.yaml")


@pytest.mark.parametrize("seed", [-1, 2**32])
def test_a_seed_is_one_that_numpy_takes(seed):
    with pytest.raises(ConfigError, match="seed: "):
        loading.parse(changed(["seed"], seed), "x.yaml")


WITHOUT_EFFECT = [
    (["data", "train", 0, "check"], {"kind": "final_answer"}, "data.train[0].check is for answers that sources write"),
    (["data", "train", 0, "tests"], "{t}", "data.train[0].tests is for answers that sources write"),
    (["data", "heldout", 0, "check"], {"kind": "agreement"}, "data.heldout[0].check is for answers that sources write"),
    (["plan", "examples"], 5, "plan.examples stands in for data that are not read"),
    (["plan", "response"], 5, "plan.response stands in"),
    (["plan", "mfu"], 0.5, "plan.mfu is 0.5, and times are said for a kind of GPU alone"),
    (["plan"], {"tokens": 5, "response": 6}, "plan.response is 6 of plan.tokens = 5"),
    (["vocabulary_map"], "exact", "vocabulary_map is exact, and none of the objectives compares by token"),
    (["pivot"], {"path": "/models/a", "revision": "main"}, "pivot.revision is main, and /models/a is on this machine"),
    (["sources", 0, "shots"], {"suns": "x"}, "sources.one.shots names suns; the domains of the data are sums"),
    (
        ["sources", 0, "backend"],
        {"kind": "vllm", "engine": {"dtype": "half"}},
        "sources.one.backend.engine sets dtype, which the run sets itself",
    ),
    (
        ["data", "responses"],
        {"kind": "best_source", "top_p": 0.9},
        "data.responses.top_p is 0.9, and temperature 0 takes the likeliest token",
    ),
]


@pytest.mark.parametrize(("path", "value", "said"), WITHOUT_EFFECT, ids=lambda each: str(each)[:40])
def test_what_would_do_nothing_is_refused_by_name(path, value, said):
    with pytest.raises(ConfigError) as error:
        loading.parse(changed(path, value), "x.yaml")
    assert said in str(error.value)


def test_mistakes_of_several_parts_are_said_at_once():
    raw = changed(["evaluation", "exact_match"], ["suns"])
    raw["sources"][0]["name"] = "pivot"
    raw["plan"] = {"examples": 3}
    with pytest.raises(ConfigError) as error:
        loading.parse(raw, "x.yaml")
    for said in ("evaluation.exact_match names suns", "no source may be called pivot", "plan.examples stands in"):
        assert said in str(error.value)


def test_fp16_and_weights_in_bfloat16_exclude_each_other():
    raw = changed(["training"], {"fp16": True}) | {"dtype": "bfloat16"}
    with pytest.raises(ConfigError, match="training.fp16 scales gradients of float32 weights"):
        loading.parse(raw, "x.yaml")
