"""The files of an exported model: the pivot's own wherever it has them, and the ends that were trained."""

import json
import shutil

import pytest
from transformers import AutoTokenizer, GenerationConfig

from fusion.models import export
from fusion.models.auxiliary_files import find_auxiliary_files
from fusion.models.export import complete_export, save_weights
from fusion.models.loading import ModelRef, load_model
from tests.helpers import tiny
from tests.helpers.families import set_config


@pytest.fixture
def pivot(tmp_path):
    return tiny.folder("llama", tmp_path / "pivot")


def exported(pivot, out, ends=(7,), ref=None):
    """The pivot saved as a training leaves it, and completed."""
    model = load_model(ModelRef(str(pivot)))
    model.config.use_cache = False
    model.config.pad_token_id = model.config.eos_token_id = 9
    model.save_pretrained(out)
    tokenizer = AutoTokenizer.from_pretrained(pivot)
    tokenizer.pad_token = tokenizer.eos_token
    tokenizer.save_pretrained(out)
    complete_export(out, ref or ModelRef(str(pivot)), ends)
    return out


def read(file):
    return json.loads(file.read_text())


@pytest.mark.parametrize(
    ("own", "ends", "expected"),
    [
        (2, [7], [2, 7]),
        ([5, 2], [7, 2, 8], [5, 2, 7, 8]),
        ([2, 7], [7], [2, 7]),
        (7, [7], 7),
        (2, [], 2),
        (None, [7], [7]),
    ],
)
def test_trained_ends_stand_behind_the_pivots_own(pivot, tmp_path, own, ends, expected):
    settings = {"top_k": 20, "temperature": 0.7} | ({} if own is None else {"eos_token_id": own})
    (pivot / "generation_config.json").write_text(json.dumps(settings))
    out = exported(pivot, tmp_path / "out", ends)
    assert read(out / "generation_config.json") == settings | {"eos_token_id": expected}


def test_a_pivot_without_generation_config_keeps_the_ends_of_its_configuration(pivot, tmp_path):
    (pivot / "generation_config.json").unlink()
    set_config(pivot, eos_token_id=4, bos_token_id=1)
    out = exported(pivot, tmp_path / "out")
    found = GenerationConfig.from_pretrained(out)
    assert (found.eos_token_id, found.bos_token_id, found.pad_token_id) == ([4, 7], 1, None)
    assert load_model(ModelRef(str(out))).generation_config.eos_token_id == [4, 7]


def test_what_training_did_to_the_configuration_is_undone_and_the_type_is_that_of_the_weights(pivot, tmp_path):
    set_config(pivot, use_cache=True, dtype="bfloat16", quantization_config={"quant_method": "none"})
    config = read(pivot / "config.json")
    set_config(pivot, quantization_config=None)
    out = exported(pivot, tmp_path / "out", ref=None)
    del config["quantization_config"]
    found = read(out / "config.json")
    found.pop("quantization_config", None)
    assert found == config | {"dtype": "float32"}


def test_a_hub_models_files_are_those_of_its_snapshot(pivot, tmp_path, monkeypatch):
    (pivot / "LICENSE").write_text("of the pivot")
    asked = []
    monkeypatch.setattr(export, "snapshot_download", lambda *args, **kwargs: asked.append((args, kwargs)) or str(pivot))
    monkeypatch.setattr(export, "load_config", lambda _: None)
    out = exported(pivot, tmp_path / "out", ref=ModelRef("some/model", revision="abc"))
    assert (out / "LICENSE").read_text() == "of the pivot"
    [(names, options)] = asked
    assert names == ("some/model",)
    assert options["revision"] == "abc"
    assert not {"*.safetensors", "*.bin", "*.json", "*"} & set(options["allow_patterns"])


def test_the_modules_of_an_embedding_model_and_its_tekken_are_the_pivots(pivot, tmp_path):
    texts = {"modules.json": '[{"path": "1_Pooling"}]', "1_Pooling/config.json": "{}", "tekken.json": "{}"}
    (pivot / "1_Pooling").mkdir()
    for name, text in texts.items():
        (pivot / name).write_text(text)
    out = exported(pivot, tmp_path / "out")
    assert {name: (out / name).read_text() for name in texts} == texts


def test_a_language_model_taken_out_of_a_larger_one_keeps_its_own_configuration(pivot, tmp_path):
    out = tmp_path / "out"
    save_weights(load_model(ModelRef(str(pivot))), out)
    saved = read(out / "config.json")
    (out / "config.json").write_text(json.dumps(saved | {"model_type": "llama_text", "use_cache": False}))
    complete_export(out, ModelRef(str(pivot)), [])
    assert read(out / "config.json") == saved | {"model_type": "llama_text"}


@pytest.mark.parametrize(
    "settings", [{"temperature": 0.5}, {"length_penalty": 2.0}, {"num_beams": 1, "early_stopping": True}]
)
def test_settings_that_transformers_changes_or_refuses_when_it_saves_are_kept(pivot, tmp_path, settings):
    (pivot / "generation_config.json").write_text(json.dumps(settings | {"eos_token_id": 2}))
    save_weights(load_model(ModelRef(str(pivot))), tmp_path / "out")
    complete_export(tmp_path / "out", ModelRef(str(pivot)), [2])
    assert read(tmp_path / "out/generation_config.json") == settings | {"eos_token_id": 2}


def test_weights_cards_and_scripts_are_not_taken_over(pivot, tmp_path):
    for name in (
        "README.md",
        "train.py",
        "pytorch_model.bin",
        "optimizer.pt",
        "x.safetensors",
        "trainer_state.json",
        "log.txt",
    ):
        (pivot / name).write_text("x")
    names = {file.name for file in find_auxiliary_files(pivot)}
    assert names == {"generation_config.json", "tokenizer.json", "tokenizer_config.json"}
    set_config(pivot, auto_map={"AutoModelForCausalLM": "modeling.Mine"})
    shutil.copy(pivot / "train.py", pivot / "modeling.py")
    assert {file.name for file in find_auxiliary_files(pivot)} == names | {"train.py", "modeling.py"}
