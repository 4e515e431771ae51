"""A+ADAPTER names a model with an adapter; an adapter alone belongs to the merge's base; whatever else is said, not guessed."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import load_file
from typer.testing import CliRunner

import fusion
from fusion.cli import app
from fusion.merging.files.stream import merge
from fusion.merging.methods.registry import Linear, TaskArithmetic
from fusion.merging.recipes.merge_recipe import load_recipe, parse_recipe
from fusion.merging.search import merge_recipe
from tests.helpers.adapters import folded, save_adapter
from tests.helpers.families import EMBEDDING, WEIGHTS, load_tensors, no_output_in, save_tiny_llama


@pytest.fixture
def models(tmp_path):
    """A base, a model A grown from it, and an adapter."""
    base = save_tiny_llama(tmp_path / "base")
    save_tiny_llama(tmp_path / "A", seed=1, like=base)
    save_adapter(tmp_path / "lora")
    return tmp_path


def with_adapter(folder, adapter):
    return folded(folder, load_file(adapter / "adapter_model.safetensors"))


def assert_is(out, expected):
    for name, tensor in load_tensors(out).items():
        torch.testing.assert_close(tensor, expected[name].float(), rtol=1e-6, atol=1e-6)


def test_the_adapter_is_folded_into_its_model_and_not_into_the_base(models):
    merge(models / "base", [Path(f"{models}/A+{models}/lora")], TaskArithmetic(weights=[1]), models / "out")
    assert_is(models / "out", with_adapter(models / "A", models / "lora"))


def test_without_a_base_the_model_gives_configuration_and_tokenizer(models):
    (models / "A" / "tokenizer.json").write_text("A's")
    merge(None, [Path(f"{models}/A+{models}/lora")], Linear(), models / "out")
    assert_is(models / "out", with_adapter(models / "A", models / "lora"))
    assert (models / "out" / "tokenizer.json").read_text() == "A's"


def test_rows_of_tokens_that_its_model_lacks_are_the_bases(models):
    base = save_tiny_llama(models / "wide", seed=5, vocab_size=40).state_dict()
    model = Path(f"{models}/A+{models}/lora")
    merge(models / "wide", [model], Linear(), models / "out", vocabulary="pad")
    merged = load_tensors(models / "out")[EMBEDDING]
    torch.testing.assert_close(merged[:37], with_adapter(models / "A", models / "lora")[EMBEDDING].float())
    assert torch.equal(merged[37:], base[EMBEDDING][37:])


def test_the_command_line_and_mergekits_yaml_take_it_too(models):
    recipe = models / "merge.yaml"
    reference = f"{models}/A+{models}/lora"
    recipe.write_text(f"merge_method: linear\nmodels:\n  - model: {reference}\n    parameters: {{weight: 1.0}}\n")
    run = CliRunner().invoke(app, ["merge", str(recipe), "--out", str(models / "one")])
    assert run.exit_code == 0, run.output
    words = ["merge", "--method", "linear", "--base-model", str(models / "base"), f"{reference}:1.0"]
    run = CliRunner().invoke(app, [*words, "--out", str(models / "two")])
    assert run.exit_code == 0, run.output
    for out in (models / "one", models / "two"):
        assert_is(out, with_adapter(models / "A", models / "lora"))


def test_the_recipe_beside_the_result_makes_it_again(models):
    merge(models / "base", [Path(f"{models}/A+{models}/lora"), models / "A"], Linear(), models / "out")
    merge_recipe(load_recipe(models / "out" / "recipe.yaml"), models / "again")
    first, again = load_tensors(models / "out"), load_tensors(models / "again")
    assert all(torch.equal(first[name], again[name]) for name in first)


def test_a_model_with_an_adapter_is_not_taken_for_the_model_and_the_adapter(models):
    merge(models / "base", [models / "A", models / "lora"], Linear(), models / "out")
    with pytest.raises(FileExistsError, match="was merged with another"):
        merge(models / "base", [Path(f"{models}/A+{models}/lora")], Linear(), models / "out")


def test_the_record_names_the_files_of_both(models):
    merge(models / "base", [Path(f"{models}/A+{models}/lora")], Linear(), models / "out")
    (entry,) = json.loads((models / "out" / "merge.json").read_text())["models"]
    assert entry["folder"] == f"{models}/A+{models}/lora"
    assert {"adapter_config.json", "adapter_model.safetensors", "config.json", WEIGHTS} <= set(entry["xxh3"])


@pytest.mark.parametrize("as_base", [True, False])
def test_a_folder_whose_own_name_has_a_plus_is_that_folder(models, as_base):
    (models / "A").rename(models / "A+lora")
    base, model = ("A+lora", "base") if as_base else ("base", "A+lora")
    merge(models / base, [models / model], Linear(), models / "out")
    assert_is(models / "out", load_file(models / model / WEIGHTS))


def test_names_with_a_plus_can_have_an_adapter(models):
    (models / "A").rename(models / "A+b")
    (models / "lora").rename(models / "c+d")
    merge(models / "base", [Path(f"{models}/A+b+{models}/c+d")], Linear(), models / "out")
    assert_is(models / "out", with_adapter(models / "A+b", models / "c+d"))


def test_two_ways_to_read_a_name_are_refused(models, monkeypatch):
    monkeypatch.chdir(models)
    shutil.copytree("A", "x")
    shutil.copytree("A", "x+A")
    shutil.copytree("lora", "A+lora")
    with pytest.raises(ValueError, match=r"can be read as x with A\+lora or x\+A with lora; rename a folder"):
        merge(models / "base", [Path("x+A+lora")], Linear(), models / "out")
    assert no_output_in(models)


@pytest.mark.parametrize(
    ("reference", "error", "message"),
    [
        ("A+gone", FileNotFoundError, "the model A with the adapter gone, and there is no folder gone. .*hf download"),
        ("gone+lora", FileNotFoundError, "the model gone with the adapter lora, and there is no folder gone"),
        (
            "org/A+org/lora",
            FileNotFoundError,
            "the model org/A with the adapter org/lora, and there is no folder org/A",
        ),
        (
            "A+base",
            FileNotFoundError,
            "base has no adapter_config.json, so it is no adapter; MODEL.ADAPTER names one last",
        ),
        ("A+", FileNotFoundError, r"A\+ is no folder, nor MODEL\+ADAPTER"),
        ("+lora", FileNotFoundError, r"\+lora is no folder, nor MODEL\+ADAPTER"),
        ("lora+A", ValueError, "lora is an adapter and not a whole model"),
        ("A+many", ValueError, "many holds adapters in folders of their own: many/default, many/other. Name the one"),
        ("many", ValueError, "many holds adapters in folders of their own: many/default, many/other. Name the one"),
        (
            "both",
            ValueError,
            r"both holds a whole model and an adapter .*which transformers would add .*write both\+ADAPTER",
        ),
    ],
)
def test_what_is_no_model_with_an_adapter_is_refused_by_name(models, monkeypatch, reference, error, message):
    monkeypatch.chdir(models)
    shutil.copytree("lora", "many/default")
    shutil.copytree("lora", "many/other")
    shutil.copytree("A", "both")
    shutil.copytree("lora", "both", dirs_exist_ok=True)
    with pytest.raises(error, match=message):
        merge(Path("base"), [Path(reference)], Linear(), Path("out"))
    assert no_output_in(models)


@pytest.mark.parametrize(
    ("base", "message"),
    [
        ("A+lora", r"base_model A\+lora has an adapter; .*fusion merge --method linear A\+lora --out FOLDER"),
        ("lora", r"base_model lora is an adapter; .*fusion merge --method linear MODEL\+lora --out FOLDER"),
    ],
)
def test_a_base_is_a_whole_model(models, monkeypatch, base, message):
    monkeypatch.chdir(models)
    with pytest.raises(ValueError, match=message):
        merge(Path(base), [Path("A")], Linear(), Path("out"))
    assert no_output_in(models)


@pytest.mark.parametrize("order", [("lora", "A"), ("A", "lora")])
@pytest.mark.parametrize(
    ("named", "message"),
    [
        (
            "base",
            r"lora is an adapter alone, of base, .* has no base_model. base is here: write base\+lora, or name the base_model",
        ),
        ("org/gone", r"an adapter alone, of org/gone, .* has no base_model. write MODEL\+lora, or name the base_model"),
        (None, r"an adapter alone, and this merge has no base_model. write MODEL\+lora"),
    ],
    ids=["here", "elsewhere", "unnamed"],
)
def test_an_adapter_alone_is_not_folded_into_whatever_comes_first(models, monkeypatch, order, named, message):
    monkeypatch.chdir(models)
    name_base(models / "lora", named)
    with pytest.raises(ValueError, match=message):
        merge(None, [Path(name) for name in order], Linear(), Path("out"))
    assert no_output_in(models)


def name_base(adapter, name):
    file = adapter / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"base_model_name_or_path": name}))


@pytest.mark.parametrize(
    ("named", "is_said"),
    [
        ("org/Other-7B", True), ("/somewhere/else/model", True), ("org/Base", False), ("BASE/", False),
        ("models--org--base", False), (None, False), ("", False),
    ],
)  # fmt: skip
def test_an_adapter_of_a_model_with_another_name_is_said_once(models, caplog, named, is_said):
    name_base(models / "lora", named)
    for out in ("out", "again"):
        merge(models / "base", [models / "lora"], Linear(), models / out)
    line = f"{models}/lora was trained on {named} and is folded into {models}/base: the result is right only where"
    assert caplog.text.count(line) == is_said


def test_a_training_folder_with_a_config_but_no_weights_is_the_adapter(models):
    shutil.copy(models / "base" / "config.json", models / "lora" / "config.json")
    merge(models / "base", [models / "lora"], Linear(), models / "out")
    assert_is(models / "out", with_adapter(models / "base", models / "lora"))


def test_an_adapter_beside_its_own_model_is_folded_in_when_it_is_asked_for_by_a_folder_of_its_own(models):
    shutil.copytree(models / "lora", models / "A" / "adapter")
    merge(models / "base", [Path(f"{models}/A+{models}/A/adapter")], Linear(), models / "out")
    assert_is(models / "out", with_adapter(models / "A", models / "lora"))


def on_a_hub(cache, name, folder):
    """Put a folder into the hub's cache, as a download leaves it."""
    place = cache / f"models--{name.replace('/', '--')}"
    (place / "refs").mkdir(parents=True)
    (place / "refs" / "main").write_text("a1")
    shutil.copytree(folder, place / "snapshots" / "a1")


def test_models_and_adapters_may_be_named_by_hub_ids(models, monkeypatch, tmp_path):
    """As mergekit's recipes name them."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    for name in ("base", "A", "lora"):
        on_a_hub(tmp_path / "hub", f"org/{name}", models / name)
    recipe = {"merge_method": "linear", "parameters": {"weight": 0.5}}
    recipe["models"] = [{"model": "org/A"}, {"model": str(models / "A")}]
    out = fusion.merge("linear", "org/base", ["org/A", models / "A"], tmp_path / "out")
    assert_is(out, load_tensors(models / "A"))
    assert_is(merge_recipe(parse_recipe(recipe, "recipe"), tmp_path / "again").folder, load_tensors(models / "A"))
    fusion.merge("linear", "org/base", [f"org/A+{models / 'lora'}"], tmp_path / "adapted")
    assert_is(tmp_path / "adapted", with_adapter(models / "A", models / "lora"))
    fusion.merge("linear", "org/base", [f"{models / 'A'}+org/lora"], tmp_path / "adapted too")
    assert_is(tmp_path / "adapted too", with_adapter(models / "A", models / "lora"))
    with pytest.raises(FileNotFoundError, match="org/gone is no folder here, and as a hub id .*hf download org/gone"):
        fusion.merge("linear", "org/base", ["org/gone"], tmp_path / "none")


def test_a_hub_id_may_name_a_revision(models, monkeypatch, tmp_path):
    """As mergekit's recipes write it; a folder whose own name has an @ is that folder."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    for name in ("base", "A", "lora"):
        on_a_hub(tmp_path / "hub", f"org/{name}", models / name)
    place = tmp_path / "hub" / "models--org--A"
    (place / "refs" / "v1.0").write_text("b2")
    shutil.copytree(models / "base", place / "snapshots" / "b2")
    recipe = {"merge_method": "linear", "models": [{"model": "org/A@v1.0", "parameters": {"weight": 1.0}}]}
    out = merge_recipe(parse_recipe(recipe, "recipe"), tmp_path / "out").folder
    assert_is(out, load_tensors(models / "base"))
    [model] = json.loads((out / "merge.json").read_text())["models"]
    assert model["folder"].endswith("hub/models--org--A/snapshots/b2")
    assert "| model 1 | b2 | org/A |" in (out / "README.md").read_text()
    assert_is(fusion.merge("linear", None, ["org/A@main"], tmp_path / "main"), load_tensors(models / "A"))
    adapted = fusion.merge("linear", None, [f"org/A@v1.0+{models / 'lora'}"], tmp_path / "adapted")
    assert_is(adapted, with_adapter(models / "base", models / "lora"))
    (models / "A").rename(models / "A@v1.0")
    (models / "A").symlink_to(models / "base")
    assert_is(fusion.merge("linear", None, [models / "A@v1.0"], tmp_path / "local"), load_tensors(models / "A@v1.0"))


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("org/A@gone", "org/A@gone is no folder here, and as a hub id .*hf download org/A --revision gone --local-dir"),
        ("A@v1.0", "A is a folder here, which has no revision v1.0: write it without @v1.0"),
        ("base@", "There is no folder base@. Did you mean base"),
    ],
)
def test_a_revision_that_is_not_to_be_had_is_named(models, monkeypatch, tmp_path, reference, message):
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.chdir(models)
    on_a_hub(tmp_path / "hub", "org/A", models / "A")
    with pytest.raises(FileNotFoundError, match=message):
        fusion.merge("linear", "base", [reference], "out")
    assert no_output_in(models)
