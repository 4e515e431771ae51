"""Settings of rounds that cannot work, or would do nothing, are refused with place, value, what is allowed and the way out."""

import re

import pytest

from fusion.config import loading
from tests.helpers import runs

KL, TEXT = {"kind": "forward_kl"}, {"kind": "cross_entropy", "weight": 0.1}
ROUNDS = {"objectives": [KL, TEXT], "prompts": 4, "max_completion_length": 16}
TESTS = {"check": {"kind": "tests", "allow_code_execution": True}, "tests": "{response}"}

FUNCTION = {"check": {"kind": "function", "path": "reward.py", "name": "reward", "columns": ["domain"]}}

WEAKER = {"weaker": {"path": "another/model"}}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("checks")


def raw(folder, rounds=None, train=None, validation=None, sources=None, responses=None, **changes):
    """A configuration with rounds, in which parts of rounds, data sets and the first source are changed."""
    found = runs.raw(folder, rounds=ROUNDS | (rounds or {}), **changes)
    for number, more in enumerate(train or ()):
        found["data"]["train"][number] |= more
    if validation is not None:
        held = found["data"]["heldout"][0]["path"]
        found["data"]["validation"] = [{"path": held, "domain": "d0", **each} for each in validation]
    found["sources"][0] |= sources or {}
    found["data"] |= {"responses": responses} if responses else {}
    return found


MISTAKES = {
    "no round": ({"rounds": {"count": 0}}, r"rounds.count: .* greater than or equal to 1, got 0"),
    "no prompt": ({"rounds": {"prompts": 0}}, r"rounds.prompts: .* greater than 0"),
    "no answer": ({"rounds": {"num_generations": 0}}, r"rounds.num_generations: .* equal to 1, got 0"),
    "no token": ({"rounds": {"max_completion_length": 0}}, r"rounds.max_completion_length: .* greater than 0"),
    "no answer to validate": ({"rounds": {"validation_generations": 0}}, r"rounds.validation_generations: .* got 0"),
    "less than none replayed": ({"rounds": {"replay": -1}}, r"rounds.replay: .* equal to 0, got -1"),
    "no term": ({"rounds": {"objectives": []}}, r"rounds.objectives: List should have at least 1 item"),
    "no such choice": ({"rounds": {"keep": "worst"}}, r"rounds.keep: Input should be 'best' or 'last', got 'worst'"),
    "a key of another program": ({"rounds": {"max_new_tokens": 9}}, r"unknown key rounds.max_new_tokens; allowed are count"),
    "no such argument": ({"rounds": {"training": {"learning_rat": 1}}}, r"rounds.training: learning_rat .* learning_rate\?"),
    "a source is called rounds": ({"sources": {"name": "rounds"}}, r"no source may be called rounds"),
    "one file for all rounds": (
        {"rounds": {"rollouts": "rollouts.jsonl"}}, r"rounds.rollouts is rollouts.jsonl, one file for 3 .* write \{round\}"),
    "a floor of nothing": ({"rounds": {"gap_floor": 0.5}}, r"rounds.gap_floor is for domain_shares: gap; leave it out"),
    "a gap to nobody": (
        {"rounds": {"domain_shares": "gap"}}, r"domain_shares is gap, .* data.responses is reference: no source answers. Set"),
    "a gap of one domain": (
        {"rounds": {"domain_shares": "gap"}, "train": [{}, {"domain": "d0"}], "evaluation": {}, "responses": "best_source"},
        r"domain_shares is gap, .* data.train has one, d0; leave it out"),
    "nothing counts": (
        {"rounds": {"objectives": [KL | {"weight": 0}]}}, r"rounds.objectives: every weight is 0.* give one more than 0"),
    "nobody learns what is replayed": (
        {"rounds": {"objectives": [KL]}}, r"rounds.replay is 0.25, .* set it to 0, or add cross_entropy"),
    "weights of sources that are not read": (
        {"rounds": {"objectives": [TEXT], "weighting": {"kind": "mean"}}}, r"rounds.weighting \(mean\) .* leave it out"),
    "shares that are yet to be found": (
        {"rounds": {"weighting": {"kind": "learned"}}}, r"rounds.weighting: learned .* set it as the run's weighting"),
    "shares of too many": (
        {"rounds": {"weighting": {"kind": "learned", "shares": {"*": [1, 2, 3]}}}},
        r"rounds.weighting \(learned\).shares.\* has 3 numbers, one is needed for each of neox, qwen"),
    "sums that are not known": (
        {"rounds": {"weighting": {"kind": "power_sum", "gamma": 0.5}}}, r"rounds.weighting \(power_sum\) .* set tail"),
    "scaled rewards that nothing reads": (
        {"rounds": {"scale_rewards": False}}, r"rounds.scale_rewards is for objectives that read rewards.* leave it out"),
    "a group of one": (
        {"rounds": {"objectives": [{"kind": "group_reward"}, TEXT], "num_generations": 1}}, r"generations is 1, .* Raise it"),
    "replay of nothing": (
        {"rounds": {"objectives": [KL, TEXT | {"part": "replay"}], "replay": 0}},
        r"rounds.objectives\[1\] \(cross_entropy\) is part: replay, and rounds.replay is 0, .* leave the objective out"),
    "replay that no term is on": (
        {"rounds": {"objectives": [KL, TEXT | {"part": "right_rollouts"}]}}, r"rounds.replay is 0.25, .* set it to 0, or add"),
    "a ratio of two precisions": (
        {"rounds": {"objectives": [{"kind": "policy_gradient"}, TEXT]}, "adapter": {"kind": "qlora"}},
        r"rounds.objectives have policy_gradient, .* adapter.kind qlora .* use lora, or objectives"),
    "validated on nothing": (
        {"rounds": {"validation_generations": 2}}, r"rounds.validation_generations .* data.validation has none; leave it out"),
    "watched on nothing": (
        {"rounds": {"training": {"eval_strategy": "epoch"}}}, r"rounds.training.eval_strategy .* leave out eval_strategy"),
    "longer than is read": (
        {"rounds": {"max_completion_length": 5000}}, r"max_completion_length is 5000, .* 1024 tokens .* lower it"),
    "more entries than are kept": (
        {"rounds": {"objectives": [{"kind": "gld", "top_k": 50}, TEXT]}}, r"rounds.objectives\[0\] \(gld\) reads 50 entries"),
    "whole rows": ({"rounds": {"objectives": [{"kind": "uld"}, TEXT]}}, r"rounds.objectives\[0\] \(uld\) needs whole rows"),
    "hidden states": (
        {"rounds": {"objectives": [TEXT, {"kind": "affinity"}]}}, r"rounds.objectives\[1\] \(affinity\) .*hidden_states to"),
    "other answers": (
        {"rounds": {"objectives": [TEXT, {"kind": "optimal_transport", "other_answers": True}]},
         "extract": {"hidden_states": True}},
        r"rounds.objectives\[1\] \(optimal_transport\) with other_answers .* set other_answers to false"),
    "a source that is not there": (
        {"rounds": {"objectives": [TEXT, {"kind": "aligndistil", "expert": "neox", "opposite": "lumi"}]}},
        r"rounds.objectives\[1\] \(aligndistil\) names source lumi; the sources are neox, qwen"),
    "spans without bytes": (
        {"rounds": {"objectives": [TEXT, {"kind": "span_likelihood"}]}, "objectives": [TEXT], "alignment": "dtw"},
        r"rounds.objectives\[1\] \(span_likelihood\) .* use alignment: prefix"),
    "entries that a transform does not leave": (
        {"rounds": {"objectives": [TEXT, {"kind": "infifusion"}]}, "objectives": [KL | {"top_k": 5}],
         "sources": {"transforms": [{"kind": "topk_uniform", "top_k": 5}]}},
        r"\(topk_uniform\) leaves 5 entries of each row, rounds.objectives\[1\] \(infifusion\) reads 10"),
    "two precisions": (
        {"rounds": {"training": {"fp16": True}}, "dtype": "bfloat16"}, r"rounds.training.fp16 .* set one of the two"),
    "two ways to accumulate": (
        {"rounds": {"training": {"gradient_accumulation_steps": 2}}, "engine": {"global_batch_size": 8}},
        r"leave out rounds.training.gradient_accumulation_steps"),
    "weights of few bits": (
        {"quantization_aware_training": {"kind": "int4"}}, r"kind int4: every round .* a run of its own"),
    "a module beside an adapter": (
        {"rounds": {"objectives": [TEXT, {"kind": "dual_head"}]}, "adapter": {"kind": "lora"}},
        r"rounds.objectives\[1\] \(dual_head\) trains a module .* leave out the adapter or the term"),
    "rows of another program": (
        {"sources": {"backend": {"kind": "imported"}}}, r"neox has backend imported: .* transformers, or leave out"),
    "pairwise models that are not made": (
        {"rounds": {"learn_from": "pairwise"}, "strategies": ["unified"]}, r"learn_from is pairwise, .* add pairwise there"),
    "pairwise models that nothing reads": (
        {"rounds": {"learn_from": "pairwise", "objectives": [TEXT]}}, r"learn_from is pairwise, and none .* leave it out"),
    "a source where rounds keep the pivot's rows": ({"sources": {"name": "reference"}}, r"called reference in a run"),
    "a relative that nothing reads": (
        {"sources": WEAKER}, r"sources.neox.weaker is for objectives .* leave it out, or add policy_gradient"),
    "a relative of who does not read": (
        {"sources": WEAKER, "rounds": {"learn_from": "pairwise"}}, r"weaker is read beside .* leave one of them out"),
    "relatives of some": (
        {"sources": WEAKER, "rounds": {"objectives": [{"kind": "policy_gradient"}, TEXT]}},
        r"sources.neox.weaker is set, and there is none for qwen: .* Name a relative for every source .*, or for none"),
    "a limit on what nothing clips": (
        {"rounds": {"max_clip_ratio": 0.1}}, r"rounds.max_clip_ratio is for objectives that clip, .* such as policy_gradient"),
    "no prompts": ({"train": [{"as_raw_text": True}]}, r"data.train\[0\] has no prompts, .* leave it out, or rounds"),
    "an empty prompt": ({"train": [{"prompt": ""}]}, r"data.train\[0\] has no prompts, .* leave it out, or rounds"),
    "what sources find likely": (
        {"train": [{"check": {"kind": "likelihood", "min_logprob_per_byte": -1}}]}, r"check likelihood .* final_answer"),
    "a majority of nobody": (
        {"train": [{"check": {"kind": "agreement"}}]}, r"check agreement .* or set data.responses: best_source"),
    "tests that are not there": (
        {"train": [{"check": {"kind": "tests"}}]}, r"data.train\[0\].check tests runs data.train\[0\].tests, which is not set"),
    "tests that may not run": (
        {"train": [{"check": {"kind": "tests"}, "tests": "{response}"}]}, r"set allow_code_execution: true there"),
    "validation without tests": (
        {"train": [TESTS], "validation": [{}]}, r"of domain d0 .* data.validation\[0\].tests is not set"),
    "validation by a function without its columns": (
        {"train": [FUNCTION], "validation": [{}]}, r"which gets the columns domain; set .*check to the same"),
    "validation by a check of its own": (
        {"validation": [{"check": {"kind": "final_answer"}}]},
        r"data.validation\[0\].check is another \(ended and final_answer\); leave it out"),
    "validation by the same function with another threshold": (
        {"train": [FUNCTION], "validation": [{"check": FUNCTION["check"] | {"at_least": 0.9}}]},
        r"check is another \(function with at_least: 0.5 and with at_least: 0.9\); make it the same$"),
    "validation by one function of two": (
        {"train": [FUNCTION, {"domain": "d0", "check": FUNCTION["check"] | {"path": "mine2.py"}}], "validation": [{}]},
        r"there are different checks \(function with path: .* and with path: mine2.py\); give that domain one check"),
    "tests that are never run": (
        {"validation": [{"tests": "{response}"}]}, r"ended, which runs no tests; leave out data.validation\[0\].tests"),
    "validation in another domain": (
        {"validation": [{"domain": "d7"}]}, r"data.validation\[0\].domain is d7, .* are d0, d1; name one of these, or leave"),
    "validation by two checks": (
        {"train": [{}, {"domain": "d0", "check": {"kind": "final_answer"}}], "validation": [{}], "evaluation": {}},
        r"data.validation\[0\]: .* different checks \(ended and final_answer\); give that domain one check"),
}  # fmt: skip


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_refused_at_its_place_with_the_way_out(folder, name):
    changes, sentence = MISTAKES[name]
    with pytest.raises(ValueError, match="test: ") as refused:
        loading.parse(raw(folder, **changes), "test")
    lines = [line for line in str(refused.value).splitlines() if re.search(sentence, line)]
    assert len(lines) == 1, refused.value


RIGHT = {
    "as they are": {},
    "no source": {"rounds": {"objectives": [TEXT]}},
    "rewards": {"rounds": {"objectives": [{"kind": "group_reward"}, TEXT | {"part": "replay"}], "scale_rewards": False}},
    "texts of another program": {"rounds": {"rollouts": "rollouts/{round}.jsonl"}},
    "one file of one round": {"rounds": {"rollouts": "rollouts.jsonl", "count": 1}},
    "prompts by gap": {"rounds": {"domain_shares": "gap", "gap_floor": 0}, "responses": "best_source"},
    "no replay": {"rounds": {"objectives": [KL], "replay": 0}},
    "a transform that rounds alone see": {"objectives": [TEXT], "sources": {"transforms": [{"kind": "logit_swap"}]}},
    "a map that rounds alone read": {"objectives": [TEXT], "vocabulary_map": "exact"},
    "tests of validation prompts": {"train": [TESTS], "validation": [{"tests": "{response}"}]},
    "validation by a function": {"train": [FUNCTION], "validation": [FUNCTION]},
    "pairwise models": {
        "rounds": {"learn_from": "pairwise"}, "strategies": ["pairwise"], "sources": {"backend": {"kind": "imported"}},
    },
    "an adapter": {"adapter": {"kind": "lora"}},
    "rows that nobody reads": {
        "rounds": {"objectives": [TEXT]}, "sources": {"backend": {"kind": "imported"}},
    },
}  # fmt: skip


@pytest.mark.parametrize("name", RIGHT)
def test_what_works_is_let_through(folder, name):
    assert loading.parse(raw(folder, **RIGHT[name]), "test").rounds is not None


def test_a_mistake_of_the_first_training_is_not_said_of_rounds_too(folder):
    with pytest.raises(ValueError, match="test: ") as refused:
        loading.parse(raw(folder, dtype="bfloat16", training={"fp16": True}), "test")
    assert "rounds" not in str(refused.value)


def test_a_relative_without_rounds_is_refused(folder):
    without = raw(folder, sources=WEAKER)
    del without["rounds"]
    with pytest.raises(ValueError, match=r"sources.neox.weaker is read in rounds, and there are none; leave it out"):
        loading.parse(without, "test")
