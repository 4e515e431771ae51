"""The last step of a merge, and what is there already: nothing that is finished is removed, nothing spoiled passes for done."""

import json
from pathlib import Path

import pytest

from fusion.merging.files import stream
from fusion.merging.files.output_folder import OutputFolder
from fusion.merging.files.stream import merge
from fusion.merging.methods.registry import TIES, Linear
from tests.helpers.families import WEIGHTS, tree

# The last step


def refuse(*_):
    raise OSError(16, "Device or resource busy")


@pytest.mark.parametrize("existed", [False, True])
def test_a_result_that_cannot_be_moved_is_kept_and_the_next_merge_only_moves_it(
    family, tmp_path, monkeypatch, expected, existed
):
    out = tmp_path / "out"
    if existed:
        out.mkdir()
    partial = OutputFolder.find(out, []).partial
    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", refuse)
        patch.setattr(OutputFolder, "_move_up", refuse)
        with pytest.raises(
            OSError, match=r"is whole, in \S+partial, but could not be moved to \S+out: Device or resource"
        ):
            merge(*family, Linear(), out)
    assert (partial / WEIGHTS).read_bytes() == expected
    monkeypatch.setattr(stream, "_write_weights", lambda *_, **__: pytest.fail("merged again"))
    assert merge(*family, Linear(), out).created
    assert (out / WEIGHTS).read_bytes() == expected
    assert not partial.exists()


@pytest.mark.parametrize("moved", range(6))
def test_a_kill_while_files_are_moved_up_leaves_no_model_and_the_next_merge_moves_the_rest(
    family, tmp_path, monkeypatch, expected, moved
):
    out, number, once = tmp_path / "out", iter(range(100)), Path.replace
    out.mkdir()

    def replace(self, target):
        if target.parent == out and next(number) == moved:
            raise KeyboardInterrupt
        return once(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", replace)
        with pytest.raises(KeyboardInterrupt):
            merge(*family, Linear(), out)
    assert not (out / "config.json").exists()
    if moved:
        with pytest.raises(
            FileExistsError, match="holds files of another merge, which was stopped at its end; empty it"
        ):
            merge(*family, TIES(), out)
    assert merge(*family, Linear(), out).created
    assert (out / WEIGHTS).read_bytes() == expected
    assert {path.name for path in out.iterdir()} == {path.name for path in (tmp_path / "whole").iterdir()}


# What is there already


@pytest.mark.parametrize("lock", [".out.lock", "out/.merge.lock"])
def test_a_lock_that_a_kill_after_the_last_step_left_goes_with_the_next_look(family, tmp_path, lock):
    merge(*family, Linear(), tmp_path / "out")
    (tmp_path / lock).write_text('{"pid": 1, "host": "gone", "since": "2026-01-01 00:00:00+00:00"}')
    assert not merge(*family, Linear(), tmp_path / "out").created
    assert not (tmp_path / lock).exists()


@pytest.mark.parametrize("name", [WEIGHTS, "config.json", "tokenizer.json", "recipe.yaml"])
@pytest.mark.parametrize("how", ["cut", "changed", "gone"])
def test_a_result_whose_files_are_not_whole_does_not_pass_for_done(family, tmp_path, name, how):
    out = tmp_path / "out"
    merge(*family, Linear(), out)
    file = out / name
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.unlink() if how == "gone" else file.write_bytes(content[:-1] if how == "cut" else content)
    before = tree(out)
    with pytest.raises(FileExistsError, match=f"but {name} is gone or changed; remove the folder"):
        merge(*family, Linear(), out)
    assert tree(out) == before


def test_a_card_may_be_edited_and_a_merge_into_it_is_still_known(family, tmp_path):
    merge(*family, Linear(), tmp_path / "out")
    (tmp_path / "out/README.md").write_text("# Our model")
    assert not merge(*family, Linear(), tmp_path / "out").created


def test_a_result_of_a_version_that_wrote_no_checksums_is_known_by_its_sizes(family, tmp_path):
    out = tmp_path / "out"
    merge(*family, Linear(), out)
    record = json.loads((out / "merge.json").read_text())
    del record["files_xxh3"]
    (out / "merge.json").write_text(json.dumps(record))
    assert not merge(*family, Linear(), out).created


def test_ends_that_are_added_do_not_make_a_result_another(family, tmp_path):
    base, models = family
    for folder, ends in ((base, 2), *((model, [2, 5]) for model in models)):
        (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": ends}))
    merge(base, models, Linear(), tmp_path / "out")
    assert json.loads((tmp_path / "out/generation_config.json").read_text())["eos_token_id"] == [2, 5]
    assert not merge(base, models, Linear(), tmp_path / "out").created


@pytest.mark.parametrize("text", ["{}", "[1]", "{", '{"files": 3}', ""])
def test_a_record_that_is_none_of_ours_is_refused_in_a_sentence(family, tmp_path, text):
    merge(*family, Linear(), tmp_path / "out")
    (tmp_path / "out/merge.json").write_text(text)
    with pytest.raises((ValueError, FileExistsError), match="remove"):
        merge(*family, Linear(), tmp_path / "out")


# Resuming


@pytest.mark.parametrize("how", ["gone", "cut", "longer"])
def test_weights_that_were_spoiled_since_the_interruption_are_not_gone_on_with(family, tmp_path, expected, how):
    def stop(stage, done, total):
        if done == 12:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        merge(*family, Linear(), tmp_path / "out", progress=stop)
    file = tmp_path / ".out.partial" / WEIGHTS
    content = file.read_bytes()
    file.unlink() if how == "gone" else file.write_bytes(
        content[: len(content) // 3] if how == "cut" else content + b"0"
    )
    merge(*family, Linear(), tmp_path / "out")
    assert (tmp_path / "out" / WEIGHTS).read_bytes() == expected
