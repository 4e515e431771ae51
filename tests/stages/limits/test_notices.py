"""Limits that many answers would not fit into are said before anybody answers."""

import json

from fusion.stages.context import RunContext
from fusion.stages.limits.notices import notices
from tests.helpers import runs

ROUNDS = {"objectives": [{"kind": "forward_kl"}], "replay": 0, "max_completion_length": 8}


def said(folder, evaluated=64, **changes):
    raw = runs.raw(folder, evaluation={"exact_match": ["d0"], "max_new_tokens": evaluated})
    raw["data"]["responses"] = {"kind": "best_source", "max_new_tokens": 64} | changes.pop("responses", {})
    raw["data"]["train"] += changes.pop("train", [])
    return list(notices(RunContext(runs.loading.parse(raw | changes, "test"))))


def test_references_that_do_not_fit_are_counted_by_domain(tmp_path):
    assert said(tmp_path) == []
    short = said(tmp_path, responses={"max_new_tokens": 3})
    assert [line.partition(" references")[0] for line in short] == ["d0: 8 of 8", "d1: 8 of 8"]
    assert "longer than 3 tokens of the pivot, the longest has " in short[0]
    assert short[0].endswith("data.responses.max_new_tokens: answers as long are left out.")
    kept = said(tmp_path, responses={"max_new_tokens": 3, "truncated": "keep"})
    assert kept[0].endswith("answers as long are cut.")
    (measured,) = said(tmp_path, evaluated=3)
    assert measured.endswith("evaluation.max_new_tokens: answers as long are cut, and count as wrong.")


def test_rounds_say_how_many_prompts_there_are(tmp_path):
    (more,) = said(tmp_path, rounds=ROUNDS | {"prompts": 100})
    assert more == "rounds.prompts is 100, and data.train has 16: every round has all of them."
    repeated = [{"path": str(tmp_path / "train.jsonl"), "domain": "d0", "where": {"domain": 0}, "limit": 2}]
    (twice,) = said(tmp_path, rounds=ROUNDS | {"prompts": 4}, train=repeated)
    assert twice == "2 of 18 training examples repeat a prompt: rounds judge answers by the first of it."


def test_references_without_what_is_compared_are_counted_and_the_first_is_shown(tmp_path):
    rows = [{"prompt": f"q{n}\n", "completion": text} for n, text in enumerate(["It is 7.", "Paris", "x", "(3, 4)"])]
    (tmp_path / "mixed.jsonl").write_text("\n".join(map(json.dumps, rows)))
    mixed = {"path": str(tmp_path / "mixed.jsonl"), "domain": "d0"}
    said_of = [*said(tmp_path, train=[mixed | {"check": {"kind": "final_answer"}}]), *said(tmp_path, train=[mixed])]
    assert said_of == [
        "d0: 3 of 4 references have no number, such as 'Paris', so no answer to them passes. Choose compare: text where "
        "answers are not numbers, or mend these."
    ]
    raw = runs.raw(tmp_path, evaluation={"exact_match": ["d0"], "compare": "option"})
    raw["data"]["heldout"] = [mixed]
    (measured,) = notices(RunContext(runs.loading.parse(raw, "test")))
    assert measured.startswith(
        "d0: 4 of 4 references have no option, such as 'It is 7.', so no answer to them counts as right."
    )


def test_answers_right_behind_plain_prompts_are_said_once_for_each_model_and_domain(tmp_path):
    rows = [{"prompt": "Capital of France?", "response": "Paris"}, {"prompt": "Capital of Peru?", "response": "Lima"}]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    raw = runs.raw(tmp_path, evaluation={})
    raw["data"]["train"] = [{"path": str(tmp_path / "rows.jsonl"), "domain": "capitals"}]
    raw["sources"][0]["answer_prefix"] = " "
    raw["sources"][1]["answer_prefix"] = ""
    (found,) = notices(RunContext(runs.loading.parse(raw, "test")))
    assert found.startswith(
        "capitals: pivot reads an answer right behind its prompt, such as 'Capital of France?Paris', for it"
    )
    assert r'answer_prefix: "\n", or "" if this is meant' in found
    raw["data"]["train"][0]["prompt"] = "{prompt} "
    assert list(notices(RunContext(runs.loading.parse(raw, "test")))) == []
