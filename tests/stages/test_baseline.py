"""Plain fine-tuning with settings of its own, beside results that keep theirs."""

import json

import pytest
from safetensors.torch import load_file

from fusion import pipeline
from fusion.config.loading import ConfigError
from fusion.plan import plan
from fusion.stages.context import RunContext
from tests.helpers import runs

OWN = {"training": {"num_train_epochs": 1, "learning_rate": 3e-3}}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("baseline")


def config(folder, name="own", **changes):
    raw = runs.raw(folder, name=name, baseline=OWN, strategies=["unified"], objectives=[{"kind": "cross_entropy"}])
    return runs.loading.parse(raw | changes, "test")


def log(folder, name, training):
    return json.loads((folder / "runs" / name / "train" / training / "log.json").read_text())


def weights(folder, name, training):
    return load_file(folder / "runs" / name / "train" / training / "model" / "model.safetensors")


def test_the_baseline_trains_as_a_run_would_with_its_settings_and_the_result_with_the_runs(folder):
    changed = {"max_steps": -1, **OWN["training"]}
    pipeline.run(config(folder), "train")
    pipeline.run(config(folder, "other", baseline=True, training=runs.raw(folder)["training"] | changed), "train")
    assert [len(log(folder, "own", training)) for training in ("fine-tuned", "unified")] == [
        4,
        4,
    ]  # 16 examples, 4 a step
    assert log(folder, "own", "fine-tuned")[0]["learning_rate"] == 3e-3
    assert log(folder, "own", "unified")[0]["learning_rate"] == 1e-2
    mine, theirs = weights(folder, "own", "fine-tuned"), weights(folder, "other", "fine-tuned")
    assert all(mine[name].equal(theirs[name]) for name in mine)
    assert pipeline.run(config(folder), "train")
    with pytest.raises(ValueError, match=r"train/fine-tuned was made .*learning_rate"):
        pipeline.run(config(folder, baseline={"training": {"learning_rate": 1e-3}}), "train")


def test_the_plan_counts_its_steps_and_not_the_runs(folder):
    changed = config(
        folder, "planned", baseline={"training": {"num_train_epochs": 3, "per_device_train_batch_size": 8}}
    )
    found = {stage.stage: stage.steps for stage in plan(RunContext(changed)).stages}
    assert (found["train fine-tuned"], found["train unified"]) == (6, 4)


@pytest.mark.parametrize(("training", "message"), [
    ({"learning_rte": 1}, "learning_rte"),
    ({"load_best_model_at_end": True}, "load_best_model_at_end"),
    ({"fp16": True}, "baseline.training.fp16"),
])  # fmt: skip
def test_a_mistake_in_its_settings_is_said_with_its_place(folder, training, message):
    with pytest.raises((ConfigError, ValueError), match=message):
        RunContext(config(folder, "wrong", baseline={"training": training}, dtype="bfloat16"))
