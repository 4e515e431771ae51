"""Merging of folders against the methods in memory on tiny real Llamas; and what is written."""

import json
import struct
from pathlib import Path

import pytest
import torch
import xxhash
import yaml
from safetensors import safe_open
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, LlamaForCausalLM

from fusion.merging.files import checkpoint_writer, merge_record
from fusion.merging.files.stream import merge
from fusion.merging.methods import tiles
from fusion.merging.methods.registry import METHODS, SCE, TIES, DARETies, Karcher, Linear, MultiSlerp
from fusion.merging.recipes.merge_recipe import load_recipe
from tests.helpers.families import WEIGHTS, edit_weights, load_tensors, save_tiny_llama


@pytest.mark.parametrize("method", [method() for method in METHODS], ids=lambda method: method.kind)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
def test_streaming_gives_what_the_method_gives_in_memory(tmp_path, method, dtype):
    base = save_tiny_llama(tmp_path / "base", dtype=dtype)
    models = [tmp_path / "m1", tmp_path / "m2"]  # all methods can merge two
    for number, folder in enumerate(models):
        save_tiny_llama(folder, seed=number, like=base, dtype=dtype)
    result = merge(tmp_path / "base", models, method, tmp_path / "out")
    assert result.created
    assert result.folder == tmp_path / "out"
    origin, grown, merged = (
        load_file(tmp_path / "base" / WEIGHTS),
        [load_tensors(m) for m in models],
        load_tensors(result.folder),
    )
    assert merged.keys() == origin.keys()
    assert len(merged) == 21
    for name, tensor in merged.items():
        assert tensor.dtype == dtype
        assert torch.equal(
            tensor, method(origin[name], [weights[name] for weights in grown], name, num_layers=2).to(dtype)
        )
    assert any(not torch.equal(tensor, origin[name]) for name, tensor in merged.items())


def test_the_result_loads_and_answers_with_the_merged_weights(family, tmp_path):
    base, models = family
    merge(base, models, Linear(), tmp_path / "out")
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "out", use_safetensors=True)
    expected = LlamaForCausalLM.from_pretrained(base)
    parts = [LlamaForCausalLM.from_pretrained(model).state_dict() for model in models]
    expected.load_state_dict({name: torch.stack([part[name] for part in parts]).mean(0) for name in parts[0]})
    ids = torch.arange(20)[None]
    torch.testing.assert_close(loaded(ids).logits, expected(ids).logits, rtol=1e-4, atol=1e-6)


def test_all_but_the_weights_is_the_bases(family, tmp_path):
    base, models = family
    merge(base, models, Linear(), tmp_path / "out")
    found = {str(file.relative_to(tmp_path / "out")) for file in (tmp_path / "out").rglob("*") if file.is_file()}
    copied = {
        "config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja",
        "additional_chat_templates/tools.jinja",
    }  # fmt: skip
    assert found == copied | {WEIGHTS, "merge.json", "recipe.yaml", "README.md"}
    for name in copied - {"config.json"}:
        assert (tmp_path / "out" / name).read_bytes() == (base / name).read_bytes()
    assert json.loads((tmp_path / "out/config.json").read_text()) == json.loads((base / "config.json").read_text())
    with safe_open(tmp_path / "out" / WEIGHTS, "pt") as file:
        assert file.metadata() == {"format": "pt"}


def test_a_merge_ends_where_all_its_models_end(family, tmp_path):
    base, models = family
    settings = {"temperature": 0.7, "eos_token_id": 2}
    for folder, ends in zip((base, *models), (2, [2, 9, 11], [9, 2], [9]), strict=True):
        (folder / "generation_config.json").write_text(json.dumps(settings | {"eos_token_id": ends}))
    merge(base, models, Linear(), tmp_path / "out")
    assert json.loads((tmp_path / "out/generation_config.json").read_text()) == settings | {"eos_token_id": [2, 9]}
    (models[2] / "generation_config.json").unlink()
    merge(base, models, Linear(), tmp_path / "other")
    assert json.loads((tmp_path / "other/generation_config.json").read_text()) == settings


def test_sharded_models_and_shards_written_hold_the_same_tensors(family, tmp_path, monkeypatch):
    base, models = family
    merge(base, models, TIES(), tmp_path / "out_one")
    for folder in (base, models[1]):
        LlamaForCausalLM.from_pretrained(folder).save_pretrained(folder, max_shard_size="4KB")
        (folder / WEIGHTS).unlink()
        assert len(list(folder.glob("model-*.safetensors"))) > 2
    monkeypatch.setattr(checkpoint_writer, "SHARD_BYTES", 5000)
    merge(base, models, TIES(), tmp_path / "out_many")
    files = sorted((tmp_path / "out_many").glob("*.safetensors"))
    assert len(files) > 2
    assert files[0].name == f"model-00001-of-{len(files):05}.safetensors"
    assert all(sum(t.nbytes for t in load_file(file).values()) <= 5000 for file in files)
    one, many = load_tensors(tmp_path / "out_one"), load_tensors(tmp_path / "out_many")
    assert one.keys() == many.keys()
    assert all(torch.equal(one[name], many[name]) for name in one)
    index = json.loads((tmp_path / "out_many/model.safetensors.index.json").read_text())
    assert index["metadata"]["total_size"] == sum(tensor.nbytes for tensor in one.values())
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "out_many").state_dict()
    assert all(torch.equal(one[name], loaded[name]) for name in one)


def test_a_chosen_dtype_reaches_weights_and_config(family, tmp_path):
    base, models = family
    edit_weights(base, lambda t: t.update(step=torch.tensor(3)))
    for model in models:
        edit_weights(model, lambda t: t.update(step=torch.tensor(3)))
    merge(base, models, Linear(), tmp_path / "out", dtype="bfloat16")
    merged = load_tensors(tmp_path / "out")
    assert merged.pop("step") == torch.tensor(3)
    assert {tensor.dtype for tensor in merged.values()} == {torch.bfloat16}
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype="auto").dtype == torch.bfloat16


def test_models_in_another_dtype_than_the_base_are_merged_in_the_bases(tmp_path):
    base = save_tiny_llama(tmp_path / "base", dtype=torch.bfloat16)
    save_tiny_llama(tmp_path / "m1", like=base, dtype=torch.float16)
    merge(tmp_path / "base", [tmp_path / "m1"], Linear(), tmp_path / "out")
    expected = load_tensors(tmp_path / "m1")
    assert all(torch.equal(t, expected[name].bfloat16()) for name, t in load_tensors(tmp_path / "out").items())


def test_progress_counts_tensors(family, tmp_path):
    heard = []
    merge(*family, Linear(), tmp_path / "out", progress=lambda *args: heard.append(args))
    assert heard == [("tensors", done, 21) for done in range(1, 22)]


@pytest.mark.parametrize("method", [TIES(), SCE(), Karcher(), DARETies()], ids=lambda method: method.kind)
def test_neither_threads_nor_tasks_change_a_bit(family, tmp_path, monkeypatch, method):
    merge(*family, method, tmp_path / "out_one", threads=1)
    monkeypatch.setattr(tiles, "TASK_ENTRIES", 64)
    monkeypatch.setattr(tiles, "TILE_ENTRIES", 64)
    merge(*family, method, tmp_path / "out_four", threads=4)
    one, four = (load_tensors(tmp_path / name) for name in ("out_one", "out_four"))
    assert all(torch.equal(one[name], four[name]) for name in one)


def test_without_a_base_the_first_model_gives_all_but_the_weights(family, tmp_path):
    base, models = family
    (models[0] / "tokenizer.json").write_bytes((base / "tokenizer.json").read_bytes())
    merge(None, models, Linear(), tmp_path / "out")
    merge(base, models, Linear(), tmp_path / "out_base")
    without, based = load_tensors(tmp_path / "out"), load_tensors(tmp_path / "out_base")
    assert all(torch.equal(without[name], based[name]) for name in based)
    assert (tmp_path / "out/tokenizer.json").is_file()
    with pytest.raises(
        ValueError, match="ties compares the models with the model they grew from; name it as base_model"
    ):
        merge(None, models, TIES(), tmp_path / "out_ties")
    with pytest.raises(ValueError, match="multislerp compares the models"):
        merge(None, models, MultiSlerp(origin="base"), tmp_path / "out_slerp")


def test_every_input_is_hashed_once(family, tmp_path, monkeypatch):
    hashed, once = [], merge_record._hash
    monkeypatch.setattr(merge_record, "_hash", lambda file: (hashed.append(file), once(file))[1])
    _, models = family
    merge(None, models, Linear(), tmp_path / "out")  # the first model is the base as well
    assert sorted(hashed) == sorted({*hashed})
    assert {models[0] / WEIGHTS, models[2] / WEIGHTS} < {*hashed}


def test_torch_has_as_many_threads_after_a_merge_as_before(family, tmp_path):
    before = torch.get_num_threads()
    merge(*family, Linear(), tmp_path / "out", threads=2)
    assert torch.get_num_threads() == before


def test_a_file_whose_tensors_are_not_aligned_is_read_right(family, tmp_path):
    base, models = family
    merge(base, models, TIES(), tmp_path / "out_aligned")
    for folder in (base, *models):
        file = folder / WEIGHTS
        content = file.read_bytes()
        (length,) = struct.unpack("<Q", content[:8])
        header = content[8 : 8 + length].rstrip()
        header += b" " * (1 - len(header) % 2)  # of odd length
        file.write_bytes(struct.pack("<Q", len(header)) + header + content[8 + length :])
    merge(base, models, TIES(), tmp_path / "out")
    aligned, other = load_tensors(tmp_path / "out_aligned"), load_tensors(tmp_path / "out")
    assert all(torch.equal(aligned[name], other[name]) for name in aligned)


def test_the_folder_carries_a_card_and_a_recipe_that_makes_it_again(family, tmp_path):
    base, models = family
    for folder in (base, *models):
        (folder / "README.md").write_text("---\nlicense: apache-2.0\n---\nA model.")
    merge(base, models, TIES(density=0.3, weights=[1, 2, 3]), tmp_path / "out")
    card = (tmp_path / "out/README.md").read_text()
    front = yaml.safe_load(card.split("---")[1])
    assert front == {"library_name": "transformers", "tags": ["merge"], "license": "apache-2.0"}
    assert "3 models merged by `ties`" in card
    record = json.loads((tmp_path / "out/merge.json").read_text())
    assert record["base_model"]["xxh3"][WEIGHTS] == xxhash.xxh3_128((base / WEIGHTS).read_bytes()).hexdigest()
    assert record["models"][2]["xxh3"][WEIGHTS][:16] in card
    again = load_recipe(tmp_path / "out/recipe.yaml")
    assert again.base_model is not None
    merge(
        Path(again.base_model), [Path(m.model) for m in again.models], again.resolved_method(), tmp_path / "out_again"
    )
    assert (tmp_path / "out_again" / WEIGHTS).read_bytes() == (tmp_path / "out" / WEIGHTS).read_bytes()
