"""Embedding models: pooling, prompts and further layers go with the base, and what of the models' is lost is said."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from fusion.merging.embedding_modules import module_notes
from fusion.merging.files.stream import merge
from fusion.merging.methods.registry import Linear
from tests.helpers.families import WEIGHTS

FILES = {
    "modules.json": [{"idx": 0, "path": ""}, {"idx": 1, "path": "1_Pooling"}, {"idx": 2, "path": "2_Dense"}],
    "config_sentence_transformers.json": {"__version__": {"sentence_transformers": "3.0"}, "prompts": {"query": "q: "}},
    "sentence_bert_config.json": {"max_seq_length": 512},
    "1_Pooling/config.json": {"pooling_mode_cls_token": True},
    "2_Dense/config.json": {"in_features": 2, "out_features": 2},
}
DENSE = "2_Dense/model.safetensors"


def make_embedding(folder, seed=0):
    """Add the modules of an embedding model to a model."""
    for name, content in FILES.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(json.dumps(content))
    weights = torch.randn(2, 2, generator=torch.Generator().manual_seed(seed))
    save_file({"linear.weight": weights}, folder / DENSE)


@pytest.fixture
def embedding(family):
    base, models = family
    for folder in (base, *models):
        make_embedding(folder)
    return base, models


def test_the_modules_of_the_base_go_with_the_result_and_are_part_of_its_record(embedding, tmp_path):
    base, models = embedding
    out = merge(base, models, Linear(), tmp_path / "out").folder
    for name in (*FILES, DENSE):
        assert (out / name).read_bytes() == (base / name).read_bytes()
    record = json.loads((out / "merge.json").read_text())
    assert {*FILES, DENSE} <= record["base_model"]["xxh3"].keys() & record["files"].keys()
    assert load_file(out / WEIGHTS).keys() == load_file(base / WEIGHTS).keys()
    assert module_notes(base, models) == []
    (out / DENSE).write_bytes(b"changed")
    with pytest.raises(FileExistsError, match="2_Dense/model.safetensors is gone or changed"):
        merge(base, models, Linear(), tmp_path / "out")


def test_other_modules_of_a_model_are_named(embedding):
    base, (first, second, third) = embedding
    make_embedding(first, seed=1)
    (second / "1_Pooling/config.json").write_text(json.dumps({"pooling_mode_cls_token": False}))
    (second / "sentence_bert_config.json").unlink()
    versions = {"__version__": {"sentence_transformers": "5.1"}}
    (third / "config_sentence_transformers.json").write_text(
        json.dumps(FILES["config_sentence_transformers.json"] | versions, indent=4)
    )
    end = "They are not merged; the result has the base's."
    assert module_notes(base, [first, second, third]) == [
        f"{first} has other modules behind the transformer than the base {base}: {DENSE}. {end}",
        f"{second} has other modules behind the transformer than the base {base}: 1_Pooling/config.json, "
        f"sentence_bert_config.json. {end}",
    ]


def test_a_base_that_is_no_embedding_model_gives_none_and_it_is_said_how_to_make_it_one(family):
    base, (first, second, third) = family
    assert module_notes(base, [first, second, third]) == []
    make_embedding(first)
    make_embedding(second)
    [note] = module_notes(base, [first, second, third])
    assert note.startswith(
        f"{base} has no modules.json, and {first} and {second} have one: the result has no pooling. Copy"
    )
    assert module_notes(first, [base, second]) == []
