"""The command line under torchrun: two processes train, one tells the story; killed for good, it goes on."""

import json
import os
import subprocess
import sys
import time

import psutil
import pytest
import yaml

from fusion.config import loading
from fusion.stages.context import RunContext
from tests.helpers import runs

COMMAND = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "fusion"]


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    folder = tmp_path_factory.mktemp("torchrun")
    engine = {"kind": "zero2", "global_batch_size": 4}
    training = {"max_steps": 24, "learning_rate": 1e-3, "save_strategy": "steps", "save_steps": 4}
    raw = runs.raw(folder, strategies=["unified"], baseline=False, engine=engine, training=training)
    raw["sources"][0]["fine_tune"] = {"training": {"max_steps": 4, "save_strategy": "no"}}
    file = folder / "config.yaml"
    file.write_text(yaml.safe_dump(raw))
    return file


@pytest.fixture(scope="module")
def folder(config):
    return config.parent / "runs" / "small"


@pytest.fixture(scope="module")
def output(config, folder):
    """What is printed by a run that begins where another was killed in the middle of its training."""
    with subprocess.Popen(
        [*COMMAND, "train", str(config)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as first:
        deadline = time.time() + 300
        while not list(folder.glob("train/unified/checkpoint-*/trainer_state.json")):
            assert first.poll() is None, "it ended before its first checkpoint"
            assert time.time() < deadline
            time.sleep(0.05)
        launcher = psutil.Process(first.pid)
        for process in [*launcher.children(recursive=True), launcher]:
            process.kill()
    assert not (folder / "train/unified/done.json").exists()
    environment = os.environ | {"COLUMNS": "120"}
    done = subprocess.run([*COMMAND, "run", str(config)], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def test_one_process_tells_the_story(output):
    for line in ("fine-tune neox", "train unified", "evaluate unified", "Fused model:"):
        assert output.count(line) == 1


def test_it_goes_on_where_it_was_killed(output, folder):
    log = json.loads((folder / "train/unified/log.json").read_text())
    assert [entry["step"] for entry in log] == list(range(1, 25))
    (last,) = (folder / "train/unified").glob("checkpoint-24")
    assert json.loads((last / "engine.json").read_text()) == {"engine": "zero2", "processes": 2}


def test_the_run_is_whole(output, folder):
    expected = ["fused/model.safetensors", "fused/README.md", "eval/unified/heldout.json", "report.html", "run.json"]
    assert [name for name in expected if not (folder / name).exists()] == []
    assert not list(folder.rglob("*.part"))


@pytest.mark.slow
def test_another_number_of_processes_finds_it_done(output, config):
    again = subprocess.run(
        [sys.executable, "-m", "fusion", "run", str(config)], capture_output=True, text=True, check=False
    )
    assert again.returncode == 0, again.stderr[-3000:]
    assert "done before, nothing to do" in again.stdout


def test_a_batch_that_the_processes_cannot_share_is_a_mistake(config, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    wrong = loading.load(config, ["engine.global_batch_size=3"])
    with pytest.raises(ValueError, match="engine.global_batch_size is 3, which 2 processes cannot share equally"):
        RunContext(wrong).training  # noqa: B018


@pytest.mark.slow
def test_a_mistake_is_named_once_for_each_process(config):
    done = subprocess.run(
        [*COMMAND, "train", str(config), "--set", "engine.global_batch_size=3"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode != 0
    assert "engine.global_batch_size is 3, which 2 processes cannot share equally" in done.stderr
