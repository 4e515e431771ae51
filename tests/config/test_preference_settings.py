"""Settings of preferences that cannot be: each mistake is said with its way out."""

from __future__ import annotations

import pytest

from fusion.config.loading import ConfigError
from tests.helpers import runs

DPO = {"objectives": [{"kind": "dpo"}]}
ANSWERED = {"kind": "best_source", "max_new_tokens": 5}
FINAL = {"kind": "final_answer", "compare": "text"}
ROUNDS = {"objectives": [{"kind": "group_reward"}], "replay": 0.0}


def config(folder, preferences=DPO, responses=ANSWERED, check=FINAL, **changes):
    raw = runs.raw(folder, **({} if preferences is None else {"preferences": preferences}), **changes)
    if responses is not None:
        raw["data"]["responses"] = responses
    for data in raw["data"]["train"]:
        data |= {"check": check}
    return runs.loading.parse(raw, "test")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("settings")


def test_the_result_of_a_run_with_preferences_is_theirs(folder):
    chosen = config(folder, rounds=ROUNDS)
    assert chosen.results == ["unified", "rounds", "preferences"]
    assert (chosen.fused, chosen.before_preferences, chosen.chosen) == ("preferences", "rounds", "unified")
    assert config(folder).before_preferences == "unified"


MISTAKES = {
    "nobody writes any; let sources answer": {"responses": None, "check": {"kind": "ended"}},
    "no answer that ended is wrong; choose a check": {"check": {"kind": "ended"}},
    "nothing that compares two answers; add dpo": {
        "preferences": {"objectives": [{"kind": "dpo", "weight": 0}, {"kind": "cross_entropy", "part": "chosen"}]}
    },
    r"preferences.objectives\[1\] \(cross_entropy\) would teach wrong answers as well as right ones; set part: chosen": {
        "preferences": {"objectives": [{"kind": "dpo"}, {"kind": "cross_entropy"}]}
    },
    r"preferences.objectives\[0\] \(forward_kl\) would teach wrong answers as well as right ones; leave it out": {
        "preferences": {"objectives": [{"kind": "forward_kl"}, {"kind": "dpo"}]}
    },
    r"preferences.objectives\[0\] \(wrpo\) compares .* add rounds": {"preferences": {"objectives": [{"kind": "wrpo"}]}},
    r"\(wrpo\) compares two answers of the pivot .*writes one to each \(rounds.num_generations is 1\); raise that": {
        "preferences": {"objectives": [{"kind": "wrpo"}]}, "rounds": {
            "objectives": [{"kind": "forward_kl"}], "replay": 0.0, "num_generations": 1, "count": 1,
        },
    },
    "wrpo's pairs are the pivot's own anyway; leave it out": {
        "preferences": {"objectives": [{"kind": "wrpo"}], "same_writer": True}, "rounds": ROUNDS,
    },
    "leave out preferences.training.gradient_accumulation_steps": {
        "preferences": DPO | {"training": {"gradient_accumulation_steps": 2}}, "engine": {"global_batch_size": 8},
    },
    "preferences.training.eval_strategy says when validation examples are read": {
        "preferences": DPO | {"training": {"eval_strategy": "epoch"}},
    },
    r"objectives\[0\] \(dpo\) is about right and wrong answers .* belongs under preferences.objectives": {
        "preferences": None, "objectives": [{"kind": "dpo"}],
    },
    r"objectives\[0\] \(cross_entropy\) with part: chosen is about right and wrong answers": {
        "preferences": None, "objectives": [{"kind": "cross_entropy", "part": "chosen"}],
    },
    r"rounds.objectives\[0\] \(infifpo\) is about right and wrong answers": {
        "preferences": None, "rounds": {"objectives": [{"kind": "infifpo"}], "replay": 0.0},
    },
}  # fmt: skip


@pytest.mark.parametrize("says", MISTAKES)
def test_a_mistake_is_refused_with_the_way_out(folder, says):
    with pytest.raises(ConfigError, match=says):
        config(folder, **MISTAKES[says])


def test_rows_that_were_made_elsewhere_cannot_be_read_again(folder):
    sources = runs.raw(folder)["sources"]
    sources[0]["backend"] = {"kind": "imported"}
    how = ANSWERED | {"sources": ["qwen"]}
    with pytest.raises(ConfigError, match=r"\(infifpo\) lets sources read answers .* source neox were made elsewhere"):
        config(folder, {"objectives": [{"kind": "infifpo"}]}, how, sources=sources)
    assert config(folder, DPO, how, sources=sources).preferences is not None


def test_no_source_is_called_like_the_result(folder):
    sources = runs.raw(folder)["sources"]
    sources[0]["name"] = "preferences"
    with pytest.raises(ConfigError, match="no source may be called preferences"):
        config(folder, sources=sources)
