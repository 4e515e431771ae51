"""Merging of folders against the methods in memory on tiny real Llamas; what is written, repeated, and cut short."""

import json
import os
import signal
import subprocess
import sys

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, LlamaForCausalLM

from fusion.merge import stream
from fusion.merge.methods import ALL, TIES, Linear
from fusion.merge.stream import merge
from tests.merge.families import EMBEDDING, WEIGHTS, change, everything, nothing_new, save

# The result


@pytest.mark.parametrize("method", [method() for method in ALL], ids=lambda method: method.kind)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
def test_streaming_gives_what_the_method_gives_in_memory(tmp_path, method, dtype):
    base = save(tmp_path / "base", dtype=dtype)
    models = [tmp_path / "m1", tmp_path / "m2"]
    for number, folder in enumerate(models):
        save(folder, seed=number, like=base, dtype=dtype)
    result = merge(tmp_path / "base", models, method, tmp_path / "out")
    assert result.made
    assert result.folder == tmp_path / "out"
    origin, grown, merged = (
        load_file(tmp_path / "base" / WEIGHTS),
        [everything(m) for m in models],
        everything(result.folder),
    )
    assert merged.keys() == origin.keys()
    assert len(merged) == 21
    for name, tensor in merged.items():
        assert tensor.dtype == dtype
        assert torch.equal(tensor, method(origin[name], [weights[name] for weights in grown]).to(dtype))
        assert not torch.equal(tensor, origin[name])


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
    assert found == copied | {WEIGHTS, "merge.json"}
    for name in copied - {"config.json"}:
        assert (tmp_path / "out" / name).read_bytes() == (base / name).read_bytes()
    assert json.loads((tmp_path / "out/config.json").read_text()) == json.loads((base / "config.json").read_text())
    with safe_open(tmp_path / "out" / WEIGHTS, "pt") as file:
        assert file.metadata() == {"format": "pt"}


def test_sharded_models_and_shards_written_hold_the_same_tensors(family, tmp_path, monkeypatch):
    base, models = family
    merge(base, models, TIES(), tmp_path / "out_one")
    for folder in (base, models[1]):
        LlamaForCausalLM.from_pretrained(folder).save_pretrained(folder, max_shard_size="4KB")
        (folder / WEIGHTS).unlink()
        assert len(list(folder.glob("model-*.safetensors"))) > 2
    monkeypatch.setattr(stream, "SHARD_BYTES", 5000)
    merge(base, models, TIES(), tmp_path / "out_many")
    files = sorted((tmp_path / "out_many").glob("*.safetensors"))
    assert len(files) > 2
    assert files[0].name == f"model-00001-of-{len(files):05}.safetensors"
    assert all(sum(t.nbytes for t in load_file(file).values()) <= 5000 for file in files)
    one, many = everything(tmp_path / "out_one"), everything(tmp_path / "out_many")
    assert one.keys() == many.keys()
    assert all(torch.equal(one[name], many[name]) for name in one)
    index = json.loads((tmp_path / "out_many/model.safetensors.index.json").read_text())
    assert index["metadata"]["total_size"] == sum(tensor.nbytes for tensor in one.values())
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "out_many").state_dict()
    assert all(torch.equal(one[name], loaded[name]) for name in one)


def test_a_chosen_dtype_reaches_weights_and_config(family, tmp_path):
    base, models = family
    change(base, lambda t: t.update(step=torch.tensor(3)))
    for model in models:
        change(model, lambda t: t.update(step=torch.tensor(3)))
    merge(base, models, Linear(), tmp_path / "out", dtype="bfloat16")
    merged = everything(tmp_path / "out")
    assert merged.pop("step") == torch.tensor(3)
    assert {tensor.dtype for tensor in merged.values()} == {torch.bfloat16}
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype="auto").dtype == torch.bfloat16


def test_models_in_another_dtype_than_the_base_are_merged_in_the_bases(tmp_path):
    base = save(tmp_path / "base", dtype=torch.bfloat16)
    save(tmp_path / "m1", like=base, dtype=torch.float16)
    merge(tmp_path / "base", [tmp_path / "m1"], Linear(), tmp_path / "out")
    expected = everything(tmp_path / "m1")
    assert all(torch.equal(t, expected[name].bfloat16()) for name, t in everything(tmp_path / "out").items())


def test_progress_counts_files_and_then_tensors(family, tmp_path):
    heard = []
    merge(*family, Linear(), tmp_path / "out", progress=lambda *args: heard.append(args))
    files, tensors = [h for h in heard if h[0] == "checksums"], [h for h in heard if h[0] == "tensors"]
    assert heard == files + tensors
    assert [done for _, done, _ in files] == list(range(1, 2 + 5 + 3 * 2 + 1))
    assert tensors == [("tensors", done, 21) for done in range(1, 22)]


# Once more


def test_the_same_merge_again_does_nothing_wherever_the_folders_moved(family, tmp_path):
    base, models = family
    merge(base, models, TIES(), tmp_path / "out")
    before = {file: file.stat().st_mtime_ns for file in (tmp_path / "out").iterdir()}
    base.rename(tmp_path / "moved")
    again = merge(tmp_path / "moved", models, TIES(density=0.6), tmp_path / "out")
    assert not again.made
    assert os.fspath(again) == str(tmp_path / "out")
    assert {file: file.stat().st_mtime_ns for file in (tmp_path / "out").iterdir()} == before


@pytest.mark.parametrize("what", ["method", "models", "dtype", "base"])
def test_a_result_of_other_inputs_is_refused_and_left_alone(family, tmp_path, what):
    base, models = family
    merge(base, models, TIES(), tmp_path / "out")
    before = (tmp_path / "out" / WEIGHTS).read_bytes()
    method, dtype = TIES(density=0.5) if what == "method" else TIES(), "float16" if what == "dtype" else None
    if what == "base":
        (base / "tokenizer.json").write_text("another")
    if what == "models":
        change(models[2], lambda t: t[EMBEDDING].add_(1))
    with pytest.raises(FileExistsError, match=f"merged with another {what}; give another folder"):
        merge(base, models, method, tmp_path / "out", dtype=dtype)
    assert (tmp_path / "out" / WEIGHTS).read_bytes() == before


def test_a_result_that_was_damaged_since_is_refused(family, tmp_path):
    merge(*family, Linear(), tmp_path / "out")
    (tmp_path / "out" / WEIGHTS).unlink()
    with pytest.raises(FileExistsError, match=r"model.safetensors is gone or changed; remove the folder"):
        merge(*family, Linear(), tmp_path / "out")


def test_a_folder_with_other_things_and_a_file_are_refused_but_an_empty_folder_is_taken(family, tmp_path):
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "mine.txt").write_text("keep me")
    with pytest.raises(FileExistsError, match="not empty and was not made by a merge"):
        merge(*family, Linear(), tmp_path / "notes")
    with pytest.raises(FileExistsError, match="is a file"):
        merge(*family, Linear(), tmp_path / "notes" / "mine.txt")
    assert (tmp_path / "notes" / "mine.txt").read_text() == "keep me"
    (tmp_path / "empty").mkdir()
    assert merge(*family, Linear(), tmp_path / "empty").made


# Killed midway


def test_an_interruption_leaves_no_folder(family, tmp_path):
    def stop(stage, done, total):
        if (stage, done) == ("tensors", 5):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        merge(*family, Linear(), tmp_path / "out", progress=stop)
    assert nothing_new(tmp_path)


def test_a_kill_leaves_no_result_and_the_next_merge_is_whole(family, tmp_path):
    base, models = family
    script = (
        "import sys, time; from pathlib import Path\n"
        "from fusion.merge import stream; from fusion.merge.methods import Linear\n"
        "stream.SHARD_BYTES = 4000\n"
        "def wait(stage, done, total):\n"
        "    if done == 12 and stage == 'tensors': print('now', flush=True); time.sleep(60)\n"
        "base, out, *models = map(Path, sys.argv[1:]); stream.merge(base, models, Linear(), out, progress=wait)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script, base, tmp_path / "out", *models], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "now\n"
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "out").exists()
    assert list((tmp_path / ".out.partial").glob("*.safetensors"))  # it was killed while it wrote
    assert merge(base, models, Linear(), tmp_path / "out").made
    assert not (tmp_path / ".out.partial").exists()
    assert [file.name for file in (tmp_path / "out").glob("*.safetensors")] == [WEIGHTS]
    LlamaForCausalLM.from_pretrained(tmp_path / "out")
