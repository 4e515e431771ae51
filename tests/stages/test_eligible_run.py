"""A run in which only sources that answered a prompt rightly teach it: who did is kept, named by the training, and weighed."""

from __future__ import annotations

import json

import pytest

from fusion import pipeline
from fusion.config.loading import ConfigError
from fusion.plan import plan
from fusion.responses import PASSES
from fusion.runtime.artifacts import write_text
from fusion.stages import train
from fusion.stages.context import CHOSEN, RunContext
from fusion.stages.respond import answers
from tests.helpers import runs

ANSWERED = {"kind": "best_source", "max_new_tokens": 5, "truncated": "keep", "fallback": "reference"}
FINAL = {"kind": "final_answer", "compare": "text"}
ELIGIBLE = {"kind": "product", "factors": [{"kind": "gold_posterior", "level": "example"}, {"kind": "eligibility"}]}


def raw(folder, name, *, check=FINAL, how=ANSWERED, file=None, weighting=ELIGIBLE, **changes):
    made = runs.raw(folder, name=name, weighting=weighting, store=str(folder / "store"), strategies=["unified"])
    made["data"]["responses"] = how
    for data in made["data"]["train"]:
        data |= {"check": check} | ({"path": file} if file else {})
    return made | {"baseline": False} | changes


def config(folder, name, **changes):
    return runs.loading.parse(raw(folder, name, **changes), "test")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("eligible")


@pytest.fixture(scope="module")
def references(folder):
    """Training data of which neox answers a third rightly, qwen another, and nobody the last, by prompt id; and their file."""
    context = RunContext(config(folder, "plain", check={"kind": "ended"}, weighting={"kind": "sum"}))
    pipeline.run(context.config, "respond")
    neox, qwen = (answers.answer_store(context, name).read() for name in ("neox", "qwen"))
    rows, right = [], {}
    for number, example in enumerate(context.original_examples):
        id, who = example.prompt_id, number % 3
        text = (neox[id][0][0], qwen[id][0][0], "nobody's")[who]
        assert neox[id][0][0].strip() != qwen[id][0][0].strip()
        assert text.strip()
        right[id] = ((1.0, 0.0), (0.0, 1.0), (0.0, 0.0))[who]
        rows.append({"prompt": example.prompt, "response": text.strip(), "domain": int(example.domain[1:])})
    write_text(folder / "references.jsonl", "\n".join(json.dumps(row) for row in rows))
    return str(folder / "references.jsonl"), right


@pytest.fixture(scope="module")
def extracted(folder, references):
    return pipeline.run(config(folder, "eligible", file=references[0]), "extract")


@pytest.fixture
def context(folder, references, extracted):
    return RunContext(config(folder, "eligible", file=references[0]))


def test_who_answered_rightly_is_kept_beside_the_chosen_examples(context, references, extracted):
    assert context.eligibility == references[1]
    assert PASSES in json.loads((extracted / CHOSEN / "done.json").read_text())["files"]
    assert {example.prompt_id for example in context.train_examples} == set(references[1])


def test_only_a_source_that_answered_rightly_has_weight_in_a_batch(context, references):
    sources = [train.training_source(context, name, cache) for name, cache in caches_of(context).items()]
    spec = train._training_spec(context, sources, ["neox", "qwen"], context.config.objectives, None)
    targets = spec.collator(range(16))["targets"]
    seen = set()
    for number, example in enumerate(context.train_examples):
        weights = []
        for source in targets.sources.values():
            inside = targets.positions.example[source.pairs.pivot] == number
            assert inside.any()
            weights.append(source.weight[inside].unique().tolist())
        expected = references[1][example.prompt_id]
        assert weights == [[pytest.approx(share, abs=1e-6)] for share in expected]
        seen.add(expected)
    assert len(seen) == 3


def caches_of(context):
    return {name: pipeline.Cache(context.config.folder / "cache" / name) for name in ("neox", "qwen")}


def test_what_each_source_counts_is_told_before_training(extracted):
    rows = json.loads((extracted / "run.json").read_text())["helping"]
    assert len(rows) == 4
    assert all(0 < row["weight"] < 1 for row in rows)


def test_a_training_is_named_by_who_was_eligible_and_another_is_told_from_it(context):
    sources = [train.training_source(context, name, cache) for name, cache in caches_of(context).items()]
    rest = (sources, ["neox", "qwen"], context.config.objectives)
    key = train._training_key(context, *rest)
    changed = RunContext(context.config)
    vars(changed)["eligibility"] = context.eligibility | {context.train_examples[0].prompt_id: (0.5, 0.0)}
    other = train._training_key(changed, *rest)
    assert {name for name in key if key[name] != other[name]} == {"eligibility"}
    assert "eligibility" not in train._training_key(context, [], [], context.config.objectives)


def test_a_file_that_is_lost_is_made_again_the_same(context, extracted):
    file = extracted / CHOSEN / PASSES
    before = file.read_bytes()
    file.unlink()
    pipeline.run(context.config, "respond")
    assert file.read_bytes() == before


def test_a_plan_needs_no_answers_and_a_training_does(folder, references):
    fresh = RunContext(config(folder, "fresh", file=references[0]))
    assert {stage.stage for stage in plan(fresh).stages} >= {"respond neox", "train unified"}
    with pytest.raises(ValueError, match=rf"{PASSES} is not there"):
        fresh.eligibility  # noqa: B018


@pytest.mark.parametrize(("changes", "message"), [
    ({"how": "reference", "check": {"kind": "ended"}}, r"\(eligibility\) .* data.responses is reference: no source answers"),
    ({"check": {"kind": "ended"}}, r"data.train\[0\].check is ended, which none fails; choose another, such as agreement"),
    (
        {"how": ANSWERED | {"sources": ["neox"]}, "check": {"kind": "agreement"}},
        r"data.train\[0\].check agreement asks for 2 sources that agree, and 1 answer \(neox\), so that no answer passes",
    ),
    (
        {"how": ANSWERED | {"sources": ["neox"]}, "strategies": ["pairwise"], "result": "pairwise"},
        r"pairwise learns from source qwen alone, which answers nothing .* or use strategies: \[unified\]",
    ),
])  # fmt: skip
def test_where_nothing_could_be_right_or_wrong_it_is_refused_with_the_way_out(folder, changes, message):
    for weighting in (ELIGIBLE, {"kind": "eligibility"}):
        with pytest.raises(ConfigError, match=message):
            config(folder, "refused", weighting=weighting, **changes)


def test_a_source_that_answers_nothing_may_be_there_and_counts_only_where_all_do(folder):
    some = ANSWERED | {"sources": ["neox"]}
    assert config(folder, "some", how=some).weighting.required_eligibility
    pairs = {"strategies": ["pairwise"], "result": "pairwise"}
    otherwise = {"kind": "eligibility", "otherwise": "all"}
    assert config(folder, "some", how=some, weighting=otherwise, **pairs).strategies == ["pairwise"]
