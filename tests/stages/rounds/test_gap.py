"""What is left to gain in a domain: right answers of its best source less those of the pivot, from where these are known."""

import json

import pytest

from fusion import pipeline
from fusion.config import loading
from fusion.config.models import BUILTIN
from fusion.runtime.artifacts import write_text
from fusion.runtime.run_file import RoundScore
from fusion.stages.context import CHOSEN, RunContext
from fusion.stages.rounds.context import RoundContext, prompt_counts
from fusion.stages.rounds.gap import keep_pass_rates, pass_gaps
from fusion.stages.rounds.kept import round_folder
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


def test_a_run_asks_where_its_source_is_ahead(tmp_path):
    """The only source knows sums, and sorts nothing: there is nothing to gain in sort."""
    check = {"kind": "final_answer", "compare": "text"}
    train, validation = (
        [{"path": f"builtin:{s}", "domain": s, "split": split, "limit": 6, **more} for s in ("sums", "sort")]
        for split, more in (("fusion", {"check": check}), ("validation", {}))
    )
    rounds = {
        "count": 1, "prompts": 4, "num_generations": 1, "max_completion_length": 8, "replay": 0, "domain_shares": "gap",
        "gap_floor": 0.0, "validation_generations": 1, "objectives": [{"kind": "forward_kl"}],
        "training": {"num_train_epochs": 1},
    }  # fmt: skip
    raw = {
        "name": "ahead", "runs": str(tmp_path), "pivot": {"path": f"{BUILTIN}pivot"}, "baseline": False,
        "sources": [{"name": "sums", "path": f"{BUILTIN}sums"}],
        "data": {
            "responses": {"kind": "best_source", "max_new_tokens": 12}, "train": train, "validation": validation,
            "heldout": [{"path": "builtin:sums", "domain": "sums", "split": "heldout", "limit": 2}],
        },
        "objectives": [{"kind": "cross_entropy"}], "rounds": rounds,
        "training": {"learning_rate": 1e-5, "max_steps": 1, "save_strategy": "no"},
    }  # fmt: skip
    chosen = loading.parse(raw, "test")
    pipeline.run(chosen, "rounds")
    one = RoundContext.of(RunContext(chosen), 1, round_folder(chosen, 0) / "model")
    assert [example.domain for example in one.original_examples] == ["sums"] * 4
    assert {text.example.domain for text in one.written} == {"sums"}
    assert pass_gaps(RunContext(chosen), 1)["sums"] > 0.5 > pass_gaps(RunContext(chosen), 1)["sort"]
