"""A whole run on tiny models: what it leaves on disk, that nothing is done twice, and what is refused."""

import json
import pickle
import shutil
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from fusion import pipeline, sources
from fusion.cache import Cache
from fusion.report.run_contents import read_run
from fusion.runtime.artifacts import OtherInputsError
from fusion.stages import extract, train
from fusion.stages.context import RunContext
from fusion.training import fit
from tests.helpers import runs


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("run")


@pytest.fixture(scope="module")
def finished(folder):
    """A finished run with both strategies."""
    return pipeline.run(runs.config(folder, strategies=["unified", "pairwise"]))


def test_a_run_leaves_what_the_design_promises(finished):
    expected = [
        "config.yaml", "run.json", "report.html", "alignment.json",
        "report/heldout-exact_match-bars.png", "cache/pivot/manifest.json", "cache/neox/manifest.json",
        "cache/qwen/shard-00003-of-00004.safetensors", "train/fine-tuned/model/model.safetensors",
        "train/unified/model/model.safetensors", "train/unified/log.json", "train/pairwise/neox/model/model.safetensors",
        "train/pairwise/merged/model/model.safetensors", "fused/model.safetensors", "fused/README.md", "fused/fusion.json",
        *(f"eval/{name}/heldout.json" for name in ["pivot", "neox", "qwen", "fine-tuned", "unified", "pairwise"]),
    ]  # fmt: skip
    assert [name for name in expected if not (finished / name).exists()] == []
    assert not list(finished.rglob("*.part"))
    assert not list((finished / "fused").glob("*.bin"))


def test_the_fused_folder_is_an_ordinary_model(finished):
    model = AutoModelForCausalLM.from_pretrained(finished / "fused")
    tokenizer = AutoTokenizer.from_pretrained(finished / "fused")
    ids = tokenizer("number 3: ", return_tensors="pt")
    assert model.generate(**ids, max_new_tokens=5, do_sample=False).shape[1] > ids["input_ids"].shape[1]


def test_the_fused_model_is_the_chosen_one_and_differs_from_the_others(finished):
    weights = {name: load_file(finished / name / "model.safetensors") for name in (
        "fused", "train/unified/model", "train/fine-tuned/model", "train/pairwise/merged/model")}  # fmt: skip
    same = {name: all(torch.equal(w[k], v) for k, v in weights["fused"].items()) for name, w in weights.items()}
    assert same == {
        "fused": True, "train/unified/model": True, "train/fine-tuned/model": False, "train/pairwise/merged/model": False,
    }  # fmt: skip


def test_the_log_holds_every_part(finished):
    log = json.loads((finished / "train/unified/log.json").read_text())
    parts = {"loss/cross_entropy"} | {
        f"loss/{o}/{s}" for o in ("infifusion", "gld", "forward_kl") for s in ("neox", "qwen")
    }
    parts |= {f"{what}/{s}" for what in ("match", "weight") for s in ("neox", "qwen")}
    assert [entry["step"] for entry in log] == [1, 2, 3, 4]
    for entry in log:
        assert parts <= entry.keys()
        assert all(0 < entry[f"match/{s}"] <= 1 for s in ("neox", "qwen"))
        total = 0.5 * entry["loss/cross_entropy"] + sum(
            weight * entry[f"loss/{o}/{s}"]
            for o, weight in (("infifusion", 0.1), ("gld", 0.1), ("forward_kl", 0.3))
            for s in ("neox", "qwen")
        )
        assert entry["loss"] == pytest.approx(total, rel=1e-3)


def test_helping_is_in_the_record(finished):
    rows = json.loads((finished / "run.json").read_text())["helping"]
    assert {(row["source"], row["domain"]) for row in rows} == {(s, d) for s in ("neox", "qwen") for d in ("d0", "d1")}
    for row in rows:
        assert row["gold_source"] < 0
        assert row["gold_pivot"] < 0
        assert 0 < row["match_rate"] <= 1


def test_the_record_holds_the_plan_and_the_sizes_of_the_caches(finished):
    record = json.loads((finished / "run.json").read_text())
    stages = [stage["name"] for stage in record["stages"]]
    assert [estimate["stage"] for estimate in record["plan"]] == [name for name in stages if name != "report"]
    assert {name: facts["top_k"] for name, facts in record["caches"].items()} == {"pivot": 1, "neox": 10, "qwen": 10}
    for name, facts in record["caches"].items():
        shards = list((finished / "cache" / name).glob("shard-*.safetensors"))
        assert facts["bytes"] == sum(shard.stat().st_size for shard in shards)
        assert facts["rows"] == len(Cache(finished / "cache" / name)) > 0


def test_the_alignment_shows_one_example_of_each_domain_as_the_caches_hold_it(folder, finished):
    shown = json.loads((finished / "alignment.json").read_text())
    context = RunContext(runs.config(folder))
    for domain, one in zip(["d0", "d1"], shown, strict=True):
        examples = [example for example in context.train_examples if example.domain == domain]
        example = max(examples, key=lambda e: len(e.response))
        assert (one["domain"], one["prompt"], one["response"]) == (domain, example.prompt, example.response)
        for name, lane in one["positions"].items():
            rows = Cache(finished / "cache" / name).rows([example.id])
            assert [p["gold"] for p in lane] == pytest.approx(rows.gold.exp().tolist(), abs=2e-5)
            assert [len(p["top"]) for p in lane] == [rows.k] * len(rows)
            known = [p for p in lane if p["start"] is not None]
            spelled = b"".join(example.response.encode()[p["start"] : p["end"]] for p in known)
            assert spelled.decode() == example.response
        for name in ("neox", "qwen"):
            starts = [[one["positions"][lane][i]["start"] for i in side] for lane, side in zip(
                ("pivot", name), zip(*one["pairs"][name], strict=True), strict=True)]  # fmt: skip
            assert starts[0] == starts[1]
            assert len(starts[0]) > 3


def test_a_second_run_does_nothing_and_says_so(folder, finished, capsys):
    outputs = [
        *finished.glob("cache/*/*"),
        *finished.glob("train/**/*.*"),
        *finished.glob("fused/*.*"),
        *finished.glob("eval/*/*"),
    ]
    before = {file: file.stat().st_mtime_ns for file in outputs if file.is_file() and file.name != "README.md"}
    pipeline.run(
        runs.config(folder, strategies=["unified", "pairwise"]), until="evaluate"
    )  # a report is made each time
    assert {file: file.stat().st_mtime_ns for file in before} == before
    assert (
        capsys.readouterr().out.count("done before, nothing to do") == 15
    )  # 3 extract, 4 train, merge, fuse, 6 evaluate
    stages = json.loads((finished / "run.json").read_text())["stages"]
    assert sum(stage["skipped"] for stage in stages) == 15
    assert all(stage["seconds"] > 0 for stage in stages)


def test_a_killed_training_ends_with_the_same_weights(folder, finished, tmp_path):
    config = runs.config(folder, runs=str(tmp_path), strategies=["unified"], baseline=False)
    with pytest.raises(KeyboardInterrupt):
        interrupted(config, at_step=3)
    assert not (tmp_path / "small/train/unified/model").exists()
    assert (tmp_path / "small/train/unified/checkpoint-2").exists()
    whole, torn = (tmp_path / f"small/train/unified/checkpoint-{n}" for n in (2, 3))
    shutil.copytree(whole, torn, ignore=shutil.ignore_patterns("trainer_state.json"))  # cut off while it was written
    pipeline.run(config, until="train")
    again, straight = (
        load_file(run / "train/unified/model/model.safetensors") for run in (tmp_path / "small", finished)
    )
    assert all(torch.equal(again[name], weight) for name, weight in straight.items())


def interrupted(config, at_step):
    """Run until a training reaches `at_step`, then stop as Ctrl-C would."""
    from transformers import TrainerCallback

    class Stop(TrainerCallback):
        def on_step_begin(self, args, state, control, **_):
            if state.global_step == at_step - 1:
                raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train, "training_bar", lambda title: [Stop()])
        pipeline.run(config, until="train")


def test_a_training_that_was_killed_behind_its_last_step_makes_no_further_one(tmp_path):
    """In the middle of an epoch, and at a learning rate that does not fall to 0, where a further step would show."""
    schedule = {"lr_scheduler_type": "constant", "max_steps": 3, "save_strategy": "steps", "save_steps": 1}
    chosen = runs.config(
        tmp_path, strategies=["unified"], baseline=False, training=schedule | {"per_device_train_batch_size": 4}
    )
    training = pipeline.run(chosen, "train") / "train/unified"
    whole, log = load_file(training / "model/model.safetensors"), json.loads((training / "log.json").read_text())
    (training / "done.json").unlink()
    shutil.rmtree(training / "model")
    pipeline.run(chosen, "train")
    again = load_file(training / "model/model.safetensors")
    assert all(torch.equal(again[name], weights) for name, weights in whole.items())
    assert [entry["step"] for entry in json.loads((training / "log.json").read_text())] == [
        entry["step"] for entry in log
    ]


def test_a_killed_extraction_goes_on_where_it_stopped(folder, tmp_path, monkeypatch):
    config, done = runs.config(folder, runs=str(tmp_path)), []
    rows = sources.TransformersSource.rows

    def dies(self, texts, progress=None):
        done.append(len(texts))
        if len(done) == 6:
            raise KeyboardInterrupt
        return rows(self, texts, progress)

    monkeypatch.setattr(sources.TransformersSource, "rows", dies)
    with pytest.raises(KeyboardInterrupt):
        pipeline.run(config, until="extract")
    pipeline.run(config, until="extract")
    assert len(done) == 3 * 4 + 1  # four shards of each of three models, one of them tried twice


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"training": {"max_steps": 5, "per_device_train_batch_size": 4}},
            r"train/fine-tuned, .* were made .*max_steps: 4 there, 5 here",
        ),
        (
            {"extract": {"top_k": 11, "shard_size": 5}},
            r"cache/neox and .*cache/qwen were made .*top_k: 10 there, 11 here.*fusion run",
        ),
        ({"weighting": {"kind": "mean"}}, r"train/unified, .* were made .*fusion"),
    ],
)
def test_what_was_made_from_something_else_is_refused(folder, finished, changes, message):
    before = {file: file.read_bytes() for file in finished.rglob("*.safetensors")}
    with pytest.raises(ValueError, match=message):
        pipeline.run(runs.config(folder, strategies=["unified", "pairwise"], **changes))
    assert before == {file: file.read_bytes() for file in finished.rglob("*.safetensors")}


def test_a_source_with_the_pivots_files_that_no_objective_reads_is_refused(folder, tmp_path):
    raw = runs.raw(folder, runs=str(tmp_path / "runs"), objectives=[{"kind": "cross_entropy"}])
    shutil.copytree(raw["pivot"]["path"], tmp_path / "copy")
    raw["sources"][0]["path"] = str(tmp_path / "copy")
    with pytest.raises(ValueError, match="Source neox .* has the same files as the pivot"):
        pipeline.run(runs.loading.parse(raw, "test"))


def test_a_heldout_example_that_is_trained_on_is_refused(folder):
    raw = runs.raw(folder)
    raw["data"]["heldout"][0] = raw["data"]["train"][0]
    with pytest.raises(ValueError, match="8 of 11 held-out examples ask what is also in the training data"):
        _ = RunContext(runs.loading.parse(raw, "test")).heldout_examples


def test_a_missing_model_is_named(folder, tmp_path):
    raw = runs.raw(folder, runs=str(tmp_path))
    raw["sources"][1]["path"] = "/no/such/model"
    with pytest.raises(FileNotFoundError, match="The model /no/such/model does not exist"):
        pipeline.run(runs.loading.parse(raw, "test"))


def test_a_model_without_a_template_says_so_when_one_is_demanded(folder, tmp_path):
    raw = runs.raw(folder, runs=str(tmp_path))
    raw["sources"][1]["template"] = "chat"
    with pytest.raises(ValueError, match="has no chat template; set template to plain or auto"):
        pipeline.run(runs.loading.parse(raw, "test"))


def test_runs_with_one_store_make_the_same_cache_and_training_once(folder, tmp_path, monkeypatch):
    shared = {"store": str(tmp_path / "store"), "runs": str(tmp_path), "strategies": ["unified"]}
    first = pipeline.run(runs.config(folder, name="first", **shared), "train")
    monkeypatch.setattr(fit, "train", None)  # what is made is not made again
    monkeypatch.setattr(extract, "open_source", None)
    second = pipeline.run(runs.config(folder, name="second", **shared), "train")
    for name in ("cache/qwen", "train/fine-tuned", "train/unified"):
        assert (first / name).is_symlink()
        assert (first / name).resolve() == (second / name).resolve()
        assert not (first / name).readlink().is_absolute()
    monkeypatch.undo()
    assert list(read_run(second).logs) == ["fine-tuned", "unified"]
    other = pipeline.run(runs.config(folder, name="third", seed=1, **shared), "train")
    assert (other / "cache/qwen").resolve() == (first / "cache/qwen").resolve()
    assert (other / "train/unified").resolve() != (first / "train/unified").resolve()


def test_two_runs_that_would_make_the_same_training_at_once_make_it_one_after_the_other(folder, tmp_path, monkeypatch):
    shared = {"store": str(tmp_path / "store"), "runs": str(tmp_path), "strategies": ["unified"], "baseline": False}
    pipeline.run(runs.config(folder, name="first", **shared), "extract")
    trained, at_once, most = [], [], []

    def slow(recipe, place, callbacks):
        at_once.append(place)
        most.append(len(at_once))
        time.sleep(0.3)
        trained.append(at_once.pop())

    monkeypatch.setattr(fit, "train", slow)
    both = [RunContext(runs.config(folder, name=name, **shared)) for name in ("first", "second")]
    caches = [pipeline.extract(context) for context in both]
    with ThreadPoolExecutor() as threads:
        found = list(
            threads.map(lambda n: train.train_one(both[n], "unified", references(both[n], caches[n]), ["qwen"]), (0, 1))
        )
    assert sorted(found) == [False, True]
    assert (len(trained), max(most)) == (1, 1)


def references(context, caches):
    return [train.training_source(context, name, cache) for name, cache in caches.items() if name != "pivot"]


def test_a_run_with_a_store_still_refuses_what_was_made_from_something_else(folder, tmp_path):
    shared = {"store": str(tmp_path / "store"), "runs": str(tmp_path), "strategies": ["unified"], "baseline": False}
    pipeline.run(runs.config(folder, **shared), "train")
    with pytest.raises(ValueError, match=r"train/unified was made from something else: seed: 0 there, 1 here"):
        pipeline.run(runs.config(folder, seed=1, **shared), "train")


def test_a_changed_setting_is_refused_once_with_all_that_has_to_go(folder, tmp_path):
    """Before anything is trained or measured; and what is named is enough, and no more."""
    both = {"runs": str(tmp_path), "strategies": ["unified", "pairwise"]}
    place = pipeline.run(runs.config(folder, **both), "evaluate")
    kept = [
        *(place / "cache").rglob("*.safetensors"),
        *(place / f"eval/{n}/heldout.json" for n in ("pivot", "neox", "qwen")),
    ]
    times = [file.stat().st_mtime_ns for file in kept]
    faster = runs.config(folder, **both, training=runs.raw(folder)["training"] | {"learning_rate": 2e-2})
    with pytest.raises(OtherInputsError, match=r"\(learning_rate: 0\.01 there, 0\.02 here\)\. Give") as refused:
        pipeline.run(faster, "evaluate")
    trained = ["fine-tuned", "unified", "pairwise/neox", "pairwise/qwen"]
    assert [str(path.relative_to(place / "train")) for path in refused.value.paths] == trained
    assert [str(path.relative_to(place)) for path in refused.value.following] == [
        "train/pairwise/merged", "eval/fine-tuned/heldout.json", "fused", "eval/unified/heldout.json",
        "eval/pairwise/heldout.json",
    ]  # fmt: skip
    assert "or delete them, and what was made from them (" in str(refused.value)
    assert str(refused.value).endswith("run `fusion evaluate` again.")
    handed_over = pickle.loads(pickle.dumps(refused.value))  # as a process of a study does
    assert (str(handed_over), handed_over.following) == (str(refused.value), refused.value.following)
    for path in (*refused.value.paths, *refused.value.following):
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    pipeline.run(faster, "evaluate")
    assert [file.stat().st_mtime_ns for file in kept] == times
    wider = faster.model_copy(update={"extract": faster.extract.model_copy(update={"top_k": 9})})
    with pytest.raises(OtherInputsError, match="top_k: 10 there, 9 here") as refused:
        pipeline.run(wider, "evaluate")
    assert [path.name for path in refused.value.paths] == ["neox", "qwen"]
    behind = {str(path.relative_to(place)) for path in refused.value.following}
    assert behind >= {"train/unified", "train/pairwise/neox", "fused", "eval/unified/heldout.json"}
    assert not any("fine-tuned" in each for each in behind)
    measured = faster.model_copy(update={"evaluation": faster.evaluation.model_copy(update={"max_new_tokens": 5})})
    with pytest.raises(OtherInputsError, match="max_new_tokens: 4 there, 5 here") as refused:
        pipeline.run(measured, "evaluate")
    assert len(refused.value.paths) == 6
    assert refused.value.following == ()


def test_untouched_models_need_not_be_measured(folder, tmp_path):
    config = runs.config(
        folder, runs=str(tmp_path), baseline=False, strategies=["unified"], evaluation={"original_models": False}
    )
    finished = pipeline.run(config, "evaluate")
    assert [place.name for place in (finished / "eval").iterdir()] == ["unified"]


@pytest.mark.parametrize(
    "name", ["fused/config.json", "fused/tokenizer.json", "train/pairwise/merged/base/tokenizer.json"]
)
def test_files_that_were_emptied_are_made_again(folder, finished, name):
    whole = (finished / name).read_bytes()
    (finished / name).write_bytes(b"")
    pipeline.run(runs.config(folder, strategies=["unified", "pairwise"]), "merge")
    assert (finished / name).read_bytes() == whole
