"""The card of a merge: what the hub reads of it, what it may not claim or tell, and that its command works as printed."""

import json
import re
import shlex
from pathlib import Path

import pytest
import yaml
from huggingface_hub import ModelCard
from typer.testing import CliRunner

from fusion.cli import app
from fusion.merging.files.card import OTHER_LICENSES, model_card
from fusion.merging.files.stream import merge
from fusion.merging.methods.registry import Linear
from tests.helpers.families import WEIGHTS, save_tiny_llama, set_config

LLAMA3 = {"license": "other", "license_name": "llama3", "license_link": "LICENSE"}


def state(folder, **metadata):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "README.md").write_text(f"---\n{yaml.safe_dump(metadata)}---\n# {folder.name}\n")
    return folder


def card_of(*folders, title="merged", recipe="models: []\n", **options):
    """The card of a linear merge of folders of which the first is the base, as the hub's parser reads it."""
    base, *models = ({"folder": str(folder), "xxh3": {WEIGHTS: 16 * "ab"}} for folder in folders)
    record = {"method": {"kind": "linear"}, "base_model": base, "models": models}
    text = model_card(title, record, recipe, **options)
    return ModelCard(text, ignore_metadata_errors=False)


@pytest.mark.parametrize("stated", [{"license": "apache-2.0"}, LLAMA3], ids=["known to the hub", "other"])
def test_a_license_that_all_inputs_state_is_stated(tmp_path, stated):
    card = card_of(*(state(tmp_path / name, **stated) for name in ("base", "a", "b")))
    assert stated.items() <= card.data.to_dict().items()
    assert OTHER_LICENSES not in card.text


@pytest.mark.parametrize(
    "other", [{}, {"license": "mit"}, LLAMA3, {"license": "other"}], ids=["none", "mit", "other", "unnamed"]
)
@pytest.mark.parametrize("place", range(3), ids=["base", "first model", "last model"])
def test_a_license_that_one_input_does_not_state_is_not_claimed_and_each_is_listed(tmp_path, other, place):
    stated = [{"license": "apache-2.0"}] * 3
    stated[place] = other
    card = card_of(*(state(tmp_path / str(number), **each) for number, each in enumerate(stated)))
    assert not {"license", "license_name", "license_link"} & card.data.to_dict().keys()
    assert OTHER_LICENSES in card.text
    named = other.get("license", "not stated") + (" (llama3)" if "license_name" in other else "")
    rows = [line for line in card.text.splitlines() if line.startswith(("| base", "| model"))]
    assert [row.split(" | ")[3] for row in rows] == [named if n == place else "apache-2.0" for n in range(3)]


def test_base_models_are_hub_ids_and_never_paths(tmp_path):
    folders = [tmp_path / name for name in ("base", "a", "b")]
    for folder, origin in zip(folders, ["org/base", str(tmp_path / "x"), "./lab"], strict=True):
        folder.mkdir()
        (folder / "config.json").write_text(json.dumps({"_name_or_path": origin}))
    state(folders[2], base_model="lab/b")
    card = card_of(*folders)
    assert card.data.base_model == ["org/base", "lab/b"]
    assert card.data.to_dict()["base_model_relation"] == "merge"
    assert str(tmp_path) not in str(card)
    assert not {"base_model", "base_model_relation"} & card_of(folders[1], folders[1]).data.to_dict().keys()


def test_no_name_or_text_breaks_out_of_its_place(tmp_path):
    odd = state(tmp_path / "a|b <i> `c`\n---\nlicense: mit", license="apache-2.0", base_model="x\n---\ny: z")
    note = "# a heading | <b>"
    card = card_of(odd, odd, title="t\n---\nlicense: mit", recipe="a: |\n  ```\n  # text\n", notes=[note])
    assert card.data.to_dict() == {"library_name": "transformers", "tags": ["merge"], "license": "apache-2.0"}
    assert "\n---\n" not in card.text
    assert "| a\\|b &lt;i> \\`c\\` --- license: mit |" in card.text
    assert "- \\# a heading \\| &lt;b>" in card.text
    assert "````yaml\na: |\n  ```\n  # text\n````" in card.text


def test_the_source_of_the_tokenizer_is_named(tmp_path):
    folder = state(tmp_path / "a")
    assert "Configuration and tokenizer are the base's." in card_of(folder, folder).text
    assert "generation settings are those of model 1." in card_of(folder, folder, tokenizer_from="model 1").text


@pytest.fixture
def home(tmp_path, monkeypatch):
    """The home folder of the user who merges."""
    folder = tmp_path / "home" / "jane doe's"
    folder.mkdir(parents=True)
    monkeypatch.setenv("HOME", str(folder))
    assert Path.home() == folder
    return folder


def test_the_command_of_the_card_works_as_printed_and_nothing_names_the_home_folder(home, monkeypatch):
    base = save_tiny_llama(home / "the base")
    for number, name in enumerate(('model "a"', "it's b"), start=1):
        save_tiny_llama(home / name, seed=number, like=base)
        set_config(home / name, max_position_embeddings=64)
    monkeypatch.chdir(home)
    merge(Path("the base"), [Path('model "a"'), home / "it's b"], Linear(weights=[0.3, 0.7]), Path("my out"))
    card = (home / "my out/README.md").read_text()
    [command] = re.findall(r"```bash\n(.*?)\n```", card)
    assert yaml.safe_load(re.findall(r"```yaml\n(.*?)```", card, re.DOTALL)[0]) == yaml.safe_load(
        (home / "my out/recipe.yaml").read_text()
    )
    monkeypatch.chdir(home / "my out")
    program, *words = shlex.split(command)
    done = CliRunner().invoke(app, words, catch_exceptions=False)
    assert (program, done.exit_code) == ("fusion", 0), done.output
    assert Path("merged/model.safetensors").read_bytes() == Path("model.safetensors").read_bytes()
    for file in ("README.md", "recipe.yaml", "merge.json"):
        assert "jane" not in (home / "my out" / file).read_text(), file
