"""A run in which one source answers the prompts without a reference: the best of their domain, as prompts with one tell."""

import json
import re

import pytest

from fusion import pipeline
from fusion.config.loading import ConfigError
from fusion.plan import plan
from fusion.runtime.artifacts import write_text
from fusion.stages.context import RunContext
from fusion.stages.respond import answers, unlabelled
from tests.helpers import runs

BEST = {"kind": "best_source", "max_new_tokens": 5, "truncated": "keep", "keep": "all", "unlabelled": "best"}
WRITERS = {"d0": "neox", "d1": "qwen"}
"""Who wrote the references of a domain."""
LABELLED = 3
"""Rows with a reference in each domain of eight."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """With references.jsonl, whose responses are what a source answers."""
    folder = tmp_path_factory.mktemp("unlabelled")
    asked = runs.raw(folder, name="asked")
    asked["data"]["responses"] = BEST | {"unlabelled": "all"}
    context, rows = RunContext(runs.loading.parse(asked, "test")), []
    for name in WRITERS.values():
        answers.generate_answers(context, name)
    for example in context.original_examples:
        (text, _ended), *_ = answers.answer_store(context, WRITERS[example.domain]).read()[example.prompt_id]
        rows.append({"prompt": example.prompt, "response": text, "domain": example.domain})
    write_text(folder / "references.jsonl", "".join(f"{json.dumps(row)}\n" for row in rows))
    return folder


def raw(folder, name="alone", check=None, **how):
    values = runs.raw(folder, name=name, strategies=["unified"])
    file = {"path": str(folder / "references.jsonl"), "prompt": "{prompt}"}
    known = {"check": {"kind": "final_answer", "compare": "text"}, "limit": LABELLED, "response": "{response}"}
    bare = {"check": check or {"kind": "ended"}, "skip": LABELLED, "response": None}
    domains = [file | {"domain": domain, "where": {"domain": domain}} for domain in WRITERS]
    values["data"] |= {
        "responses": BEST | how,
        "train": [domain | part for part in (known, bare) for domain in domains],
    }
    return values


def config(folder, **changes):
    return runs.loading.parse(raw(folder, **changes), "test")


def test_the_best_source_of_a_domain_answers_the_rest_alone_and_as_if_all_had(folder, capsys):
    made = pipeline.run(config(folder), "respond")
    context, every = RunContext(config(folder)), config(folder, name="every", unlabelled="all")
    assert unlabelled.best_sources(context) == WRITERS
    assert "5 prompts of d1 without a reference: answered by qwen" in capsys.readouterr().out
    for name, written in unlabelled.all_answers(context).items():
        labelled, rest = ([e for e in context.original_examples if bool(e.response) is has] for has in (True, False))
        asked = [*labelled, *(example for example in rest if WRITERS[example.domain] == name)]
        assert written.keys() == {example.prompt_id for example in asked}
    pipeline.run(every, "respond")
    assert context.train_examples == RunContext(every).train_examples
    counts = json.loads((made / "run.json").read_text())["responses"]
    assert [(c["source"], c["domain"], c["prompts"], c["answers"], c["judged"], c["chosen"]) for c in counts] == [
        ("neox", "d0", 8, 8, 3, 8), ("neox", "d1", 3, 3, 3, 0), ("qwen", "d0", 3, 3, 3, 0), ("qwen", "d1", 8, 8, 3, 8),
    ]  # fmt: skip
    assert [c["passed"] for c in counts if c["chosen"]] == [3, 3]


def test_a_second_time_nothing_is_asked_and_nothing_ranked(folder, monkeypatch):
    made = pipeline.run(config(folder, name="again"), "respond")
    monkeypatch.setattr(answers, "source_request", None)
    monkeypatch.setattr(unlabelled, "judge_answers", None)
    pipeline.run(config(folder, name="again"), "respond")
    stages = {s["name"]: s["skipped"] for s in json.loads((made / "run.json").read_text())["stages"]}
    assert list(stages) == [
        "respond neox", "respond qwen", "rank sources", "respond neox, unlabelled", "respond qwen, unlabelled",
        "choose responses",
    ]  # fmt: skip
    assert all(stages.values())


def test_where_no_answer_passes_the_rest_of_a_domain_is_left_out_and_that_is_said(folder, capsys):
    values = raw(folder, name="weak")
    values["data"]["train"][1]["response"] = "{response} and more"
    made = runs.loading.parse(values, "test")
    pipeline.run(made, "respond")
    assert unlabelled.best_sources(RunContext(made)) == {"d0": "neox"}
    said = "5 prompts of d1 without a reference: left out, for no answer of any source passes in this domain"
    assert said in " ".join(capsys.readouterr().out.split())
    assert {example.domain for example in RunContext(made).train_examples} == {"d0"}


def test_where_no_answer_passes_at_all_another_check_is_no_contradiction(folder, capsys):
    strict = raw(folder, name="strict")
    for data in strict["data"]["train"][:2]:
        data["response"] = "{response} and more"
    with pytest.raises(ValueError, match=r"nothing to learn from: .*where the data has .* and more'"):
        pipeline.run(runs.loading.parse(strict, "test"), "respond")
    pipeline.run(config(folder, name="strict"), "respond")
    assert unlabelled.best_sources(RunContext(config(folder, name="strict"))) == WRITERS


def test_prompts_that_the_best_source_answers_need_no_check_for_eligibility(folder):
    """Whoever answers them has been right elsewhere, and nobody else is asked."""
    values = raw(folder, name="eligible") | {
        "weighting": {"kind": "eligibility"},
        "objectives": [{"kind": "cross_entropy", "use_remaining_weight": True}, {"kind": "forward_kl"}],
    }
    made = runs.loading.parse(values, "test")
    pipeline.run(made, "respond")
    context = RunContext(made)
    of_rest = [example for example in context.original_examples if not example.response]
    names = [source.name for source in made.sources]
    assert of_rest
    for example in of_rest:
        expected = tuple(float(name == WRITERS[example.domain]) for name in names)
        assert context.eligibility[example.prompt_id] == expected


def test_answers_that_were_cut_are_counted_where_none_passes(folder, capsys):
    made = config(folder, name="cut", truncated="leave_out", max_new_tokens=1)
    with pytest.raises(ValueError, match="There is nothing to learn from"):
        pipeline.run(made, "respond")
    said = r"d1 without a reference: left out, .* in this domain \((\d) of 6 were empty or cut at max_new_tokens = 1\)"
    (lost,) = re.findall(said, " ".join(capsys.readouterr().out.split()))
    assert int(lost) > 0


def test_the_plan_counts_the_rest_once(folder):
    values = raw(folder, name="planned")
    values["data"]["validation"] = [values["data"]["heldout"][0] | {"limit": 1}]
    values["data"]["heldout"][0]["skip"] = 1
    alone = {s.stage: s for s in plan(RunContext(runs.loading.parse(values, "test"))).stages}
    every = {s.stage: s for s in plan(RunContext(config(folder, name="planned", unlabelled="all"))).stages}
    assert [alone[f"respond {name}"].examples for name in WRITERS.values()] == [2 * LABELLED] * 2
    assert alone["respond, unlabelled"].examples == 16 - 2 * LABELLED
    assert every["respond neox"].examples == every["respond qwen"].examples == 16
    assert "respond, unlabelled" not in every
    assert alone["train unified"].examples == every["train unified"].examples == 16


def test_a_plan_from_settings_alone_counts_the_same(folder):
    values = raw(folder, name="planned") | {"plan": {"tokens": 20, "heldout": 12}}
    for data in values["data"]["train"][2:]:
        data["limit"] = 5
    found = {s.stage: s.examples for s in plan(RunContext(runs.loading.parse(values, "test"))).stages}
    assert (found["respond neox"], found["respond, unlabelled"]) == (6, 10)


@pytest.mark.parametrize(("changes", "message"), [
    ({"check": {"kind": "agreement"}}, r"data.train\[2\].check agreement compares answers of several sources"),
    ({"check": {"kind": "likelihood", "min_logprob_per_byte": -1}}, r"data.train\[2\].check likelihood compares answers"),
    ({"prefer": "likeliest"}, "prefer: likeliest chooses among answers of several sources"),
])  # fmt: skip
def test_what_one_answer_cannot_be_compared_with_is_refused(folder, changes, message):
    with pytest.raises(ConfigError, match=message):
        config(folder, **changes)


def test_a_domain_without_a_reference_is_refused_before_anybody_answers(folder):
    values = raw(folder, name="unknown")
    values["data"]["train"][3]["domain"] = "d2"
    with pytest.raises(ValueError, match=r"no prompt of domain d2 has a reference to tell the best source by"):
        pipeline.run(runs.loading.parse(values, "test"), "respond")
    assert not (folder / "runs/unknown/responses/neox").exists()
