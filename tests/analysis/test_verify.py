"""A finished run in which a file is cut, emptied, flipped or gone: `fusion verify` names it, and it is never used as it is."""

import json
import shutil
from pathlib import Path

import pytest
from safetensors.torch import load_file

from fusion import pipeline
from fusion.analysis.verify import verify
from fusion.config import loading
from fusion.runtime.artifacts import mark_complete
from fusion_eval.results import Result
from tests.helpers import runs


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A finished run with pairwise models, and its configuration."""
    folder = tmp_path_factory.mktemp("verified")
    config = runs.config(
        folder, strategies=["unified", "pairwise"], merge={"kind": "linear"}, weighting={"kind": "max_margin"}
    )
    pipeline.run(config, "evaluate")  # a report has no mark
    return config


@pytest.fixture
def run(whole, tmp_path):
    """A copy of it, which may be damaged, and its configuration."""
    shutil.copytree(whole.runs, tmp_path / "runs", symlinks=True)
    return loading.parse(whole.model_dump(mode="json") | {"runs": str(tmp_path / "runs")}, "test")


def cut(file):
    file.write_bytes(file.read_bytes()[:-3])


def empty(file):
    file.write_bytes(b"")


def flip(file):
    content = bytearray(file.read_bytes())
    content[-5] ^= 1
    file.write_bytes(content)


def gone(file):
    file.unlink()


def problems(folder):
    return {str(each.path): each.problems for each in verify(folder) if each.problems}


def test_a_finished_run_is_as_it_was_written(whole):
    found = verify(whole.folder)
    assert {each.kind for each in found} >= {
        "run",
        "artifact",
        "cache",
        "checkpoint",
        "fused model",
        "merged model",
        "result",
    }
    assert problems(whole.folder) == {}
    assert not list(whole.folder.rglob("*.part"))


FILES = {
    "a training's weights": ("train/unified/model/model.safetensors", "train/unified"),
    "a training's log": ("train/unified/log.json", "train/unified"),
    "a source's rows": ("cache/neox/shard-00001-of-00004.safetensors", "cache/neox"),
    "the pivot's rows": ("cache/pivot/shard-00000-of-00004.safetensors", "cache/pivot"),
    "the merged weights": ("train/pairwise/merged/model/model.safetensors", "train/pairwise/merged"),
    "a checkpoint's optimizer": ("train/unified/checkpoint-4/optimizer.pt", "train/unified/checkpoint-4"),
    "the fused weights": ("fused/model.safetensors", "fused"),
}


@pytest.mark.parametrize("harm", [cut, empty, flip, gone])
@pytest.mark.parametrize("what", FILES)
def test_a_damaged_file_is_named(run, what, harm):
    name, place = FILES[what]
    harm(run.folder / name)
    assert any(name.rsplit("/", 1)[1] in problem for problem in problems(run.folder)[place])


def test_a_mark_that_was_emptied_is_named(run):
    for name in ("train/unified/done.json", "cache/neox/manifest.json", "run.json", "eval/unified/heldout.json"):
        empty(run.folder / name)
    assert set(problems(run.folder)) == {"train/unified", "cache/neox", ".", "eval/unified"}


def test_nothing_to_verify_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="Nothing below .* is marked as finished"):
        verify(tmp_path)
    with pytest.raises(FileNotFoundError, match="no folder"):
        verify(tmp_path / "absent")


@pytest.mark.parametrize(
    ("what", "harm"), [("a training's weights", flip), ("the merged weights", gone), ("the fused weights", cut)]
)
def test_a_damaged_model_is_made_again_as_it_was(whole, run, what, harm, capsys):
    name, _ = FILES[what]
    harm(run.folder / name)
    pipeline.run(run, "merge")
    assert "it is made again" in " ".join(capsys.readouterr().out.split())
    expected = load_file(whole.folder / name)
    assert all((expected[each] == weight).all() for each, weight in load_file(run.folder / name).items())
    assert problems(run.folder) == {}


@pytest.mark.parametrize(
    ("what", "harm"), [("a source's rows", cut), ("the pivot's rows", flip), ("the pivot's rows", gone)]
)
def test_damaged_rows_are_refused_by_name_before_anything_is_trained(run, what, harm):
    name, _ = FILES[what]
    harm(run.folder / name)
    shutil.rmtree(run.folder / "train/unified")
    with pytest.raises(ValueError, match=name.rsplit("/", 1)[1]):
        pipeline.run(run, "train")
    assert not (run.folder / "train/unified").exists()


def test_ids_or_counts_swapped_in_a_manifest_are_refused(run):
    file = run.folder / "cache/neox/manifest.json"
    manifest = json.loads(file.read_text())
    rows = manifest["shards"][0]["rows"]
    other = next(n for n, count in enumerate(rows) if count != rows[0])
    rows[0], rows[other] = rows[other], rows[0]
    file.write_text(json.dumps(manifest))
    with pytest.raises(ValueError, match=r"manifest\.json is not as it was written"):
        pipeline.run(run, "train")


@pytest.mark.parametrize("harm", [gone, empty])
def test_a_folder_whose_key_is_lost_is_refused(run, harm):
    harm(run.folder / "train/unified/key.json")
    with pytest.raises(ValueError, match=r"unified/key\.json is gone or damaged.*Delete .*fusion train"):
        pipeline.run(run, "train")


def test_a_result_that_was_emptied_is_measured_again(whole, run):
    file = run.folder / "eval/unified/heldout.json"
    empty(file)
    pipeline.run(run, "evaluate")
    assert Result.load(file).samples == Result.load(whole.folder / "eval/unified/heldout.json").samples


def test_a_note_beside_a_model_leaves_it_the_same_model(run):
    note = Path(run.sources[0].path) / "notes.txt"
    note.write_text("mine")
    try:
        pipeline.run(run, "train")  # or its cache would be refused
    finally:
        note.unlink()


def test_fused_without_its_mark_is_made_again_and_what_people_edit_stays(run):
    (run.folder / "fused/generation_config.json").write_text("{}")
    pipeline.run(run, "merge")
    assert (run.folder / "fused/generation_config.json").read_text() == "{}"
    empty(run.folder / "fused/fusion.json")
    pipeline.run(run, "merge")
    assert problems(run.folder) == {}


def test_a_checkpoint_that_a_run_deletes_meanwhile_is_no_damage(run, monkeypatch):
    place = run.folder / "train/unified/checkpoint-2"
    gone(place / "optimizer.pt")  # the mark goes with the last files
    monkeypatch.setattr("time.sleep", lambda _: shutil.rmtree(place, ignore_errors=True))
    assert problems(run.folder) == {}


def test_what_lies_in_a_store_is_verified_with_the_run(whole, tmp_path):
    (tmp_path / "run").mkdir()
    shutil.copytree(whole.folder / "cache/neox", tmp_path / "store/neox")
    (tmp_path / "run/neox").symlink_to("../store/neox")
    cut(tmp_path / "store/neox/shard-00001-of-00004.safetensors")
    assert "neox" in problems(tmp_path / "run")


def test_what_was_set_aside_as_damaged_goes_when_it_is_made_again(run):
    flip(run.folder / "train/unified/model/model.safetensors")
    (run.folder / "train/unified/damaged-checkpoint-2-0000").mkdir()
    pipeline.run(run, "train")
    assert not [path for path in run.folder.rglob("*") if "damaged" in path.name]


def test_a_fact_in_a_mark_that_was_changed_is_named_and_the_mark_is_made_again(whole, run):
    file = run.folder / "train/unified/done.json"
    file.write_text(file.read_text().replace("checkpoint", "checkpoinu").replace("log.json", "lof.json"))
    assert problems(run.folder) == {"train/unified": ("done.json is not as it was written",)}
    pipeline.run(run, "train")
    assert problems(run.folder) == {}


def test_what_rounds_left_is_verified_too(tmp_path):
    texts = tmp_path / "rounds" / "1" / "texts"
    texts.mkdir(parents=True)
    (texts / "texts.jsonl").write_text('{"passed": true}\n')
    mark_complete(texts)
    (tmp_path / "rounds" / "kept.json").write_text('{"round": 1}')
    assert problems(tmp_path) == {}
    flip(texts / "texts.jsonl")
    cut(tmp_path / "rounds" / "kept.json")
    assert set(problems(tmp_path)) == {"rounds/1/texts", "rounds"}
