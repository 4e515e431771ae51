"""Merges that are started again: done already, from other inputs, cut short anywhere."""

import os
import shutil
import signal
import subprocess
import sys

import pytest
from transformers import LlamaForCausalLM

from fusion.merging.files import checkpoint_writer, stream
from fusion.merging.files.stream import merge
from fusion.merging.methods.registry import TIES, Linear
from fusion.runtime import disk_space
from tests.helpers.families import EMBEDDING, WEIGHTS, edit_weights, no_output_in


def test_the_same_merge_again_does_nothing_wherever_the_folders_moved(family, tmp_path):
    base, models = family
    merge(base, models, TIES(), tmp_path / "out")
    before = {file: file.stat().st_mtime_ns for file in (tmp_path / "out").iterdir()}
    base.rename(tmp_path / "moved")
    again = merge(tmp_path / "moved", models, TIES(density=0.6), tmp_path / "out")
    assert not again.created
    assert os.fspath(again) == str(tmp_path / "out")
    assert {file: file.stat().st_mtime_ns for file in (tmp_path / "out").iterdir()} == before


@pytest.mark.parametrize("what", ["method", "models", "dtype", "base_model"])
def test_a_result_of_other_inputs_is_refused_and_left_alone(family, tmp_path, what):
    base, models = family
    merge(base, models, TIES(), tmp_path / "out")
    before = (tmp_path / "out" / WEIGHTS).read_bytes()
    method, dtype = TIES(density=0.5) if what == "method" else TIES(), "float16" if what == "dtype" else None
    if what == "base_model":
        (base / "tokenizer.json").write_text("another")
    if what == "models":
        edit_weights(models[2], lambda t: t[EMBEDDING].add_(1))
    detail = {"method": r"\. method \(density: 0.6 there, 0.5 here\)", "dtype": r"\. dtype: .* there, \"float16\" here"}
    with pytest.raises(
        FileExistsError, match=f"merged with another {what}; give another folder, or remove it{detail.get(what, '')}\\."
    ):
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
    assert merge(*family, Linear(), tmp_path / "empty").created


# Killed midway


def stopping(stage, done, total):
    if done == 12:
        raise KeyboardInterrupt


def test_an_interruption_leaves_no_result_and_the_next_merge_goes_on_from_there(family, tmp_path, monkeypatch):
    with pytest.raises(KeyboardInterrupt):
        merge(*family, TIES(), tmp_path / "out", progress=stopping)
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / ".out.partial/config.json").exists()  # nothing loads it
    merged = []
    once = stream._merge_tensor
    monkeypatch.setattr(
        stream,
        "_merge_tensor",
        lambda job, spec, *rest, **options: (merged.append(spec.name), once(job, spec, *rest, **options)),
    )
    assert merge(*family, TIES(), tmp_path / "out").created
    assert len(merged) == 21 - 12
    merge(*family, TIES(), tmp_path / "out_whole")
    assert (tmp_path / "out" / WEIGHTS).read_bytes() == (tmp_path / "out_whole" / WEIGHTS).read_bytes()
    assert not (tmp_path / ".out.partial").exists()
    assert not (tmp_path / "out/synced.jsonl").exists()


@pytest.mark.parametrize("what", ["method", "dtype", "input", "base"])
def test_what_another_merge_left_is_not_gone_on_with(family, tmp_path, monkeypatch, what):
    base, models = family
    with pytest.raises(KeyboardInterrupt):
        merge(base, models, TIES(), tmp_path / "out", progress=stopping)
    method, dtype = TIES(density=0.5) if what == "method" else TIES(), "float16" if what == "dtype" else None
    if what in ("input", "base"):
        edit_weights(models[1] if what == "input" else base, lambda t: t[EMBEDDING].add_(1))
    merge(base, models, method, tmp_path / "out", dtype=dtype)
    merge(base, models, method, tmp_path / "out_whole", dtype=dtype)
    assert (tmp_path / "out" / WEIGHTS).read_bytes() == (tmp_path / "out_whole" / WEIGHTS).read_bytes()


def test_an_input_that_changes_while_it_is_merged_is_refused(family, tmp_path):
    base, models = family

    def touch(stage, done, total):
        os.utime(models[1] / WEIGHTS, ns=(done, done))

    with pytest.raises(ValueError, match=r"m2/model.safetensors was changed while it was merged"):
        merge(base, models, Linear(), tmp_path / "out", progress=touch)
    assert no_output_in(tmp_path)


def test_a_disk_that_is_too_small_is_refused_before_anything_is_written(family, tmp_path, monkeypatch):
    monkeypatch.setattr(disk_space.shutil, "disk_usage", lambda folder: shutil._ntuple_diskusage(10, 10, 0))
    with pytest.raises(
        OSError, match=r"has 0.\S+ GB free, the merged model takes 0.\d+ GB: 0.\d*[1-9]\d* GB are missing"
    ):
        merge(*family, Linear(), tmp_path / "out")
    assert no_output_in(tmp_path)


@pytest.mark.parametrize("after", [1, 8, *(pytest.param(after, marks=pytest.mark.slow) for after in (12, 20)), 21])
def test_a_kill_anywhere_leaves_no_result_and_the_next_merge_is_whole(family, tmp_path, after):
    base, models = family
    script = (
        "import sys, time; from pathlib import Path\n"
        "from fusion.merging.files import checkpoint_writer, stream; from fusion.merging.methods.registry import TIES\n"
        "checkpoint_writer.SHARD_BYTES, checkpoint_writer.SYNC_BYTES = 4000, 2000\n"
        "def wait(stage, done, total):\n"
        f"    if done == {after}: time.sleep(0.3); print('now', flush=True); time.sleep(60)\n"
        "base, out, *models = map(Path, sys.argv[1:]); stream.merge(base, models, TIES(), out, progress=wait)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script, base, tmp_path / "out", *models], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "now\n"
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "out").exists()
    partial = tmp_path / ".out.partial"
    synced = (partial / "synced.jsonl").read_text().splitlines()[1:]
    assert len(synced) <= after
    assert synced or after < 8  # it was killed after some of it was on disk
    with pytest.raises(OSError):
        LlamaForCausalLM.from_pretrained(partial)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpoint_writer, "SHARD_BYTES", 4000)
        assert merge(base, models, TIES(), tmp_path / "out").created
        merge(base, models, TIES(), tmp_path / "out_whole")
    assert not partial.exists()
    for file in (tmp_path / "out_whole").glob("*.safetensors"):
        assert (tmp_path / "out" / file.name).read_bytes() == file.read_bytes()
    LlamaForCausalLM.from_pretrained(tmp_path / "out")
