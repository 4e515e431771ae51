"""Rounds on prompts of which some have no reference: nothing calls an answer to those right or wrong."""

import json

import pytest

from fusion import pipeline
from fusion.config import loading
from fusion.config.models import BUILTIN
from fusion.stages.context import RunContext
from fusion.stages.preferences.answers import judged_answers
from fusion.stages.rounds.context import RoundContext
from fusion.stages.rounds.gap import best_source_rates, pivot_rates
from fusion.stages.rounds.kept import round_folder
from fusion.stages.rounds.learn import advantages

CHECK = {"kind": "final_answer", "compare": "text"}
NUMBERS = {"path": "builtin:numbers", "domain": "numbers", "split": "fusion"}


def raw(folder, **changes):
    return {
        "name": "few", "runs": str(folder), "pivot": {"path": f"{BUILTIN}student"},
        "sources": [{"name": name, "path": f"{BUILTIN}{name}"} for name in ("numbers", "lumi")],
        "data": {
            "responses": {"kind": "best_source", "keep": "all", "unlabelled": "best", "temperature": 1.0, "max_new_tokens": 32},
            "train": [NUMBERS | {"limit": 3, "check": CHECK}, NUMBERS | {"skip": 3, "limit": 5, "response": None}],
            "heldout": [NUMBERS | {"split": "heldout", "limit": 2}],
            "validation": [NUMBERS | {"split": "validation", "limit": 2}],
        },
        "objectives": [{"kind": "cross_entropy"}], "baseline": False,
        "training": {"max_steps": 1, "save_strategy": "no"},
        "rounds": {
            "count": 1, "num_generations": 2, "max_completion_length": 32, "validation_generations": 1,
            "objectives": [{"kind": "group_reward"}, {"kind": "cross_entropy", "part": "right_rollouts"},
                           {"kind": "cross_entropy", "part": "replay"}],
            "training": {"max_steps": 1},
        },
    } | changes  # fmt: skip


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """A run behind its round."""
    config = loading.parse(raw(tmp_path_factory.mktemp("unlabelled rounds")), "test")
    pipeline.run(config, "rounds")
    return config


@pytest.fixture
def run(done):
    return RunContext(done)


@pytest.fixture
def one(run, done):
    return RoundContext.of(run, 1, round_folder(done, 0) / "model")


def test_answers_to_prompts_without_a_reference_are_neither_right_nor_rewarded(run, one):
    known = {example.prompt_id for example in run.original_examples if example.response}
    assert len(known) == 3
    judged = {text.example.prompt_id for text in one.written if text.passed is not None}
    unjudged = [text for text in one.written if text.passed is None]
    assert judged == known
    assert len(unjudged) == 10
    assert {text.reward for text in unjudged} == {0.0}
    assert any(text.rollout.end is not None for text in unjudged), "they ended, which made them right before"
    for text, advantage in zip(one.written, advantages(one), strict=True):
        assert advantage == 0 or text.example.prompt_id in known


def test_shares_of_right_answers_and_pairs_are_of_prompts_with_a_reference(run, done):
    assert best_source_rates(run) == {"numbers": 1.0}
    file = done.folder / "rounds/1/texts/texts.jsonl"
    passed = [json.loads(line)["passed"] for line in file.read_text().splitlines()]
    right = [each for each in passed if each is not None]
    without = RunContext(loading.parse(raw(done.folder.parent), "test"))
    vars(without)["validation_examples"] = []
    assert pivot_rates(without, 2) == {"numbers": sum(right) / len(right)}
    known = {example.prompt_id for example in run.original_examples if example.response}
    assert {answer.example.prompt_id for answer in judged_answers(run)} == known


def test_the_record_counts_what_was_judged(done):
    ((counted,),) = json.loads((done.folder / "run.json").read_text())["rounds"]["texts"]
    assert (counted["domain"], counted["prompts"], counted["texts"], counted["judged"]) == ("numbers", 8, 16, 6)


def test_a_check_of_their_own_judges_prompts_without_a_reference(tmp_path):
    (tmp_path / "mine.py").write_text("def even(prompts, completions):\n    return [len(c) % 2 for c in completions]\n")
    values = raw(tmp_path)
    values["data"]["train"][1] |= {
        "domain": "more",
        "check": {"kind": "function", "path": str(tmp_path / "mine.py"), "name": "even"},
    }
    config = loading.parse(values | {"data": values["data"]}, "test")
    assert [data.is_judged for data in config.data.train] == [True, True]
