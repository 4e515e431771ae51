"""What a plan says of preferences: pairs and their answers at most, and none of it where there are none."""

from __future__ import annotations

import dataclasses

import pytest

from fusion.plan import plan
from fusion.stages.context import RunContext
from tests.helpers import runs

PREFERENCES = {
    "objectives": [{"kind": "infifpo"}],
    "pairs_per_prompt": 3,
    "training": {"max_steps": -1, "num_train_epochs": 1, "per_device_train_batch_size": 4},
}


def stages(folder, preferences, **changes):
    given = {} if preferences is None else {"preferences": preferences}
    raw = runs.raw(folder, **given, **changes)
    raw["data"]["responses"] = {"kind": "best_source", "max_new_tokens": 20}
    for data in raw["data"]["train"]:
        data |= {"check": {"kind": "final_answer"}}
    return {each.stage: each for each in plan(RunContext(runs.loading.parse(raw, "test"))).stages}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("plan")


@pytest.fixture(scope="module")
def planned(folder):
    return stages(folder, PREFERENCES)


def test_every_reader_reads_both_answers_of_every_pair(planned):
    names = [name for name in planned if name.startswith("preferences: ")]
    assert names == [f"preferences: {part}" for part in ("pivot reads", "neox reads", "qwen reads", "train")]
    for name in ("pivot", "neox", "qwen"):
        read = planned[f"preferences: {name} reads"]
        assert read.examples == 16 * 3 * 2
        assert read.tokens >= 16 * 3 * 2 * 20 * (0.5 if name != "pivot" else 1)
        assert read.flops > 0
        assert read.disk > 0


def test_a_step_is_of_pairs_and_holds_their_answers(planned, folder):
    train = planned["preferences: train"]
    assert train.steps == 16 * 3 / 4
    assert train.tokens == planned["preferences: pivot reads"].tokens
    fewer = stages(folder, PREFERENCES | {"training": PREFERENCES["training"] | {"per_device_train_batch_size": 2}})
    half = fewer["preferences: train"]
    assert half.steps == 2 * train.steps
    assert dataclasses.astuple(half.memory) != dataclasses.astuple(train.memory)
    assert "evaluate preferences" in planned


def test_three_answers_that_stand_together_take_half_as_much_again_as_two(folder):
    rounds = {
        "objectives": [{"kind": "group_reward"}],
        "max_completion_length": 20,
        "count": 1,
        "prompts": 4,
        "replay": 0.0,
    }
    pair, three = (
        stages(folder, PREFERENCES | {"objectives": [{"kind": kind}]}, rounds=rounds)["preferences: train"]
        for kind in ("dpo", "wrpo")
    )
    assert three.memory.activations == pytest.approx(1.5 * pair.memory.activations)
    assert three.tokens == pytest.approx(1.5 * pair.tokens)
    assert three.steps == pair.steps


def test_without_a_source_that_is_asked_the_pivot_alone_reads(folder):
    found = stages(folder, PREFERENCES | {"objectives": [{"kind": "dpo"}]})
    assert [name for name in found if name.endswith(" reads")] == ["preferences: pivot reads"]


def test_a_run_without_preferences_plans_none(folder):
    assert not [name for name in stages(folder, None) if "preferences" in name]


def test_a_plan_from_settings_counts_them_too(folder):
    found = stages(folder, PREFERENCES, plan={"tokens": 100, "response": 40, "examples": 16, "heldout": 4})
    assert found["preferences: train"].steps == 16 * 3 / 4
