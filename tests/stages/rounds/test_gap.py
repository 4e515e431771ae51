"""What is left to gain in a domain: right answers of its best source less those of the pivot, from where these are known."""

import json

import pytest

from fusion.config import loading
from fusion.runtime.artifacts import write_text
from fusion.runtime.run_file import RoundScore
from fusion.stages.context import CHOSEN, RunContext
from fusion.stages.rounds.context import prompt_counts
from fusion.stages.rounds.gap import keep_pass_rates, pass_gaps
from tests.helpers import runs


def context(folder, validated=()):
    rounds = {
        "objectives": [{"kind": "forward_kl"}],
        "replay": 0,
        "prompts": 8,
        "domain_shares": "gap",
        "gap_floor": 0.0,
    }
    raw = runs.raw(folder, rounds=rounds, evaluation={})
    kept = runs.write_data(folder, "validation.jsonl", 4, start=200)
    raw["data"] |= {
        "responses": {"kind": "best_source", "samples": 4, "temperature": 1.0},
        "validation": [{"path": kept, "domain": d, "where": {"domain": int(d[1])}} for d in validated],
    }
    run = RunContext(loading.parse(raw, "test"))
    passed = {"d0": {"neox": 3, "qwen": 1}, "d1": {"neox": 0, "qwen": 2}}  # of four
    lines = [
        {"prompt": e.prompt_id, "answers": {"neox": 4, "qwen": 4}, "passed": passed[e.domain]} for e in run.original_examples
    ]  # fmt: skip
    write_text(run.config.folder / CHOSEN / "passes.jsonl", "".join(f"{json.dumps(line)}\n" for line in lines))
    return run


def score(domain, rate):
    return RoundScore(domain, 4, 4, rate, 1.0, 1.0, 5.0, "")


def write_round(run, number, passed):
    texts = [{"example": {"domain": d}, "passed": p} for d, of in passed.items() for p in of]
    file = run.config.folder / f"rounds/{number}/texts/texts.jsonl"
    write_text(file, "".join(f"{json.dumps(text)}\n" for text in texts))


def test_answers_to_validation_prompts_after_the_round_before_tell_how_good_the_pivot_is(tmp_path):
    run = context(tmp_path, validated=("d0", "d1"))
    keep_pass_rates(run, 0, [score("d0", 0.25), score("d1", 0.4)])
    keep_pass_rates(run, 1, [score("d0", 0.75), score("d1", 0.25)])
    assert pass_gaps(run, 1) == pytest.approx({"d0": 0.75 - 0.25, "d1": 0.5 - 0.4})
    write_round(run, 1, {"d0": [False], "d1": [True]})
    assert pass_gaps(run, 2) == pytest.approx({"d0": 0.0, "d1": 0.25})
    assert (prompt_counts(run, 1), prompt_counts(run, 2)) == ({"d0": 7, "d1": 1}, {"d0": 0, "d1": 8})


def test_without_validation_answers_of_the_round_before_do_and_the_first_round_is_proportional(tmp_path):
    run = context(tmp_path)
    assert pass_gaps(run, 1) is None
    assert prompt_counts(run, 1) == {"d0": 4, "d1": 4}
    write_round(run, 1, {"d0": [True, False], "d1": [True, False, False, False]})
    assert pass_gaps(run, 2) == pytest.approx({"d0": 0.25, "d1": 0.25})


def test_a_domain_that_is_not_validated_goes_by_the_round_before_or_else_by_the_others(tmp_path):
    run = context(tmp_path, validated=("d0",))
    keep_pass_rates(run, 0, [score("d0", 0.25)])
    assert pass_gaps(run, 1) == pytest.approx({"d0": 0.5, "d1": 0.5})
    keep_pass_rates(run, 1, [score("d0", 0.5)])
    write_round(run, 1, {"d0": [False], "d1": [True, False, False, False]})
    assert pass_gaps(run, 2) == pytest.approx({"d0": 0.25, "d1": 0.25})


def test_a_file_that_is_lost_is_named(tmp_path):
    with pytest.raises(OSError, match=r"rounds/validation/0/pass_rates.json"):
        pass_gaps(context(tmp_path, validated=("d0",)), 1)
