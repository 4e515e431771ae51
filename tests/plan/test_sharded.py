"""Shares of weights, gradients and optimizer against two real processes of DeepSpeed and FSDP2."""

import json
import os
from pathlib import Path

import pytest

from fusion.plan import memory
from fusion.plan.memory import EngineOption, Precision
from fusion_launch import Program, Resources, execute, prepare
from tests.helpers import measured_memory


@pytest.mark.slow
def test_two_processes_hold_what_the_plan_says(tmp_path, monkeypatch):
    pytest.importorskip("deepspeed")
    places = [str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(places))
    assert (
        execute(prepare("torchrun", Program("tests.helpers.sharded", (str(tmp_path),), "sharded"), Resources(gpus=2)))
        == 0
    )
    _, sizes = measured_memory.model()
    for rank in range(2):
        found = json.loads((tmp_path / f"{rank}.json").read_text())
        assert found.keys() == {"zero1", "zero2", "zero3", "fsdp2"}
        for kind, parts in found.items():
            precision = Precision(4, 4) if kind == "fsdp2" else Precision(2, 2)
            expected = memory.model_states(sizes, EngineOption(kind), precision, 2)
            for part, held in parts.items():
                assert held == pytest.approx(getattr(expected, part), rel=0.02), (kind, part)  # padding to equal shares
