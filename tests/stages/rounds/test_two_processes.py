"""A round in two processes: the same texts, and weights within rounding."""

import json
import os
import shutil
import subprocess
import sys

import pytest
import torch
import yaml
from safetensors.torch import load_file

from tests.helpers import runs

TORCHRUN = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]


def fusion(file, command, *launcher):
    words = [sys.executable, *launcher, "-m", "fusion", command, str(file)]
    done = subprocess.run(words, env=os.environ, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]


@pytest.mark.slow
def test_two_processes_write_the_same_texts_and_train_within_rounding(tmp_path):
    rounds = {
        "count": 1, "prompts": 8, "num_generations": 2, "max_completion_length": 8, "replay": 0.5,
        "objectives": [{"kind": "forward_kl"}], "training": {"max_steps": 3, "per_device_train_batch_size": 2},
    }  # fmt: skip
    engine = {"global_batch_size": 4}
    training = {"max_steps": 2, "learning_rate": 1e-3, "save_strategy": "no"}
    raw = runs.raw(tmp_path, strategies=["unified"], baseline=False, engine=engine, training=training, rounds=rounds)
    raw["extract"]["shard_size"] = 2
    file = tmp_path / "config.yaml"
    file.write_text(yaml.safe_dump(raw))
    fusion(file, "merge")
    shutil.copytree(tmp_path / "runs", tmp_path / "before")
    found = {}
    for processes, launcher in ((1, []), (2, TORCHRUN)):
        fusion(file, "rounds", *launcher)
        one = tmp_path / "runs/small/rounds/1"
        texts = [
            (one / "texts/texts.jsonl").read_text(),
            *(f.read_text() for f in sorted(one.glob("responses/*/*.jsonl"))),
        ]
        found[processes] = texts, load_file(one / "train/unified/model/model.safetensors")
        assert [entry["step"] for entry in json.loads((one / "train/unified/log.json").read_text())] == [1, 2, 3]
        shutil.rmtree(tmp_path / "runs")
        shutil.copytree(tmp_path / "before", tmp_path / "runs")
    assert found[1][0] == found[2][0]
    assert len(found[1][0]) == 5, "four shards that processes share"
    for name, weights in found[1][1].items():
        torch.testing.assert_close(found[2][1][name], weights, rtol=1e-4, atol=1e-5)
