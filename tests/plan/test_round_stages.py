"""The plan of rounds: its stages are those of run.json by name, and what they take follows from the settings."""

import re

import pytest

from fusion.cache import Cache
from fusion.cache.codec import bytes_per_row
from fusion.config import loading
from fusion.models.loading import vocabulary_size
from fusion.plan import architecture, plan
from fusion.plan.misfits import misfits
from fusion.plan.table import stages_table
from fusion.runtime.artifacts import write_json
from fusion.runtime.console import console
from fusion.runtime.run_file import RunFile
from fusion.stages.context import RunContext
from fusion.stages.rounds import sequence
from fusion.stages.rounds.read import reader_names
from tests.helpers import runs

ROUNDS = {
    "count": 2, "prompts": 5, "num_generations": 3, "max_completion_length": 20, "replay": 0.2, "validation_generations": 2,
    "objectives": [{"kind": "forward_kl"}, {"kind": "cross_entropy", "weight": 0.1}],
    "training": {"per_device_train_batch_size": 3, "max_steps": -1, "num_train_epochs": 2},
}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("plan")


def config(folder, validation=True, rounds=ROUNDS, **changes):
    raw = runs.raw(folder, rounds=rounds, **changes)
    if validation:
        kept = runs.write_data(folder, "validation.jsonl", 4, start=200)
        raw["data"]["validation"] = [{"path": kept, "domain": "d0"}]
    return loading.parse(raw, "test")


@pytest.fixture(scope="module")
def context(folder):
    return RunContext(config(folder))


@pytest.fixture(scope="module")
def planned(context):
    return plan(context)


def stage(found, name):
    return next(estimate for estimate in found.stages if estimate.stage == name)


def test_stages_have_the_names_that_the_record_gives_them(context, planned, monkeypatch):
    monkeypatch.setattr(sequence, "readers", lambda one: reader_names(one.config, one.rounds))
    monkeypatch.setattr(sequence, "read_one", lambda one, name: (Cache.__new__(Cache), False))
    monkeypatch.setattr(sequence, "score_round", lambda *_: ([], False))
    for name in ("write_texts", "judge_texts", "train_one", "training_source"):
        monkeypatch.setattr(sequence, name, lambda *_, **__: False)
    monkeypatch.setattr(sequence.RoundContext, "learning", None)
    monkeypatch.setattr(sequence.RoundContext, "written", [])
    monkeypatch.setattr(sequence, "describe_texts", lambda *_: [])
    monkeypatch.setattr(sequence, "training_source", lambda one, name, cache: next(iter(one.config.sources)))
    write_json(context.config.folder / "run.json", {"name": "small", "created": "2026"})
    sequence.validate(context, 0)
    for number in (1, 2):
        sequence.go_round(context, number)
        sequence.validate(context, number)
    recorded = [each.name for each in RunFile.model_validate(context.record.read()).stages]
    estimated = [each.stage for each in planned.stages if each.round is not None]
    assert len(estimated) == 1 + 2 * 6
    assert estimated == [name for name in recorded if not name.endswith(": check")]


def test_the_pivot_writes_texts_as_long_as_they_may_get(context, planned):
    texts = context.encoded("pivot")
    prompt = (texts.lengths.sum() - texts.rows.sum()) / len(texts)
    written = stage(planned, "round 1: write")
    assert (written.examples, written.tokens) == (5, round(5 * prompt) + 5 * 3 * 20)
    validated = stage(planned, "round 0: validate")
    assert (validated.examples, validated.tokens) == (4, round(4 * prompt) + 4 * 2 * 20)


def test_readers_read_every_text_with_its_prompt_in_tokens_of_their_own(context, planned):
    pivot = context.encoded("pivot").rows.mean()
    for name in ("pivot", "neox"):
        texts, read = context.encoded(name), stage(planned, f"round 2: {name} reads")
        prompt = (texts.lengths.sum() - texts.rows.sum()) / len(texts)
        assert read.examples == 15
        assert read.tokens == pytest.approx(15 * (prompt + 20 * texts.rows.mean() / pivot), abs=15)
    size = vocabulary_size(context.tokenizers["pivot"])
    assert stage(planned, "round 1: pivot reads").disk == 15 * 20 * bytes_per_row(1, "float32", size)


def test_a_round_is_trained_on_its_texts_and_replayed_examples_for_its_own_epochs(context, planned):
    trained, read = stage(planned, "round 1: train"), stage(planned, "round 1: pivot reads")
    texts = context.encoded("pivot")
    assert trained.examples == 15 + 3
    assert trained.steps == 2 * 6
    assert trained.tokens == pytest.approx(2 * (read.tokens + 3 * texts.lengths.mean()), abs=2)
    assert stage(planned, "train unified").steps == 4


def test_rounds_on_their_own_rewards_need_no_source_to_read(folder):
    alone = plan(RunContext(config(folder, rounds={**ROUNDS, "objectives": [{"kind": "cross_entropy"}]})))
    names = [each.stage for each in alone.stages]
    assert "round 1: pivot reads" in names
    assert "round 1: neox reads" not in names


def test_what_another_program_writes_is_not_counted(folder, planned):
    names = [each.stage for each in planned.stages]
    elsewhere = plan(RunContext(config(folder, rounds=ROUNDS | {"rollouts": "{round}.jsonl"})))
    left = [each.stage for each in elsewhere.stages]
    assert left == [name for name in names if name not in ("round 1: write", "round 2: write")]


def test_pairwise_models_read_as_the_pivot_does(folder):
    merged = {"strategies": ["pairwise"], "rounds": {**ROUNDS, "learn_from": "pairwise"}}
    found = plan(RunContext(config(folder, **merged)))
    read, pivot = stage(found, "round 1: neox reads"), stage(found, "round 1: pivot reads")
    assert (read.tokens, read.flops) == (pivot.tokens, pivot.flops)


def test_relatives_of_sources_read_with_the_size_that_they_have(folder):
    policy = {**ROUNDS, "objectives": [{"kind": "policy_gradient", "beta": 0.5}, {"kind": "cross_entropy"}]}
    sources = runs.raw(folder)["sources"]
    sources[0]["weaker"] = {"path": sources[1]["path"]}  # of another size
    sources[1]["weaker"] = {"path": sources[0]["path"]}
    found = plan(RunContext(config(folder, rounds=policy, sources=sources)))
    read, its = stage(found, "round 1: neox-weaker reads"), stage(found, "round 1: neox reads")
    assert (read.tokens, read.disk) == (its.tokens, its.disk)
    assert read.memory.weights == stage(found, "round 1: qwen reads").memory.weights != its.memory.weights
    assert stage(found, "round 2: reference reads").tokens == stage(found, "round 2: pivot reads").tokens


def test_without_validation_examples_nothing_is_validated(folder):
    rounds = {name: value for name, value in ROUNDS.items() if name != "validation_generations"}
    names = [each.stage for each in plan(RunContext(config(folder, validation=False, rounds=rounds))).stages]
    assert "round 1: train" in names
    assert not any("validate" in name for name in names)
    assert "evaluate rounds" in names


def printed(table):
    with console.capture() as capture:
        console.print(table, width=80)
    return capture.get()


def test_many_rounds_make_no_longer_table_and_add_up(folder, planned, monkeypatch):
    monkeypatch.setattr(architecture, "_reachable", lambda ref: False)
    for name in ("train_examples", "original_examples", "heldout_examples", "validation_examples", "tokenizers"):
        monkeypatch.setattr(RunContext, name, property(lambda self, name=name: pytest.fail(f"{name} was read")))
    counted = {"tokens": 30, "response": 20, "examples": 16, "heldout": 6, "gpu": "h100"}
    many = config(folder, rounds={**ROUNDS, "count": 9}, plan=counted)
    many.data.validation[0].__dict__["limit"] = 4
    found = plan(RunContext(many))
    shown = printed(stages_table(found, many.plan))
    lines = [line.split()[:5] for line in shown.splitlines() if line.startswith("rounds ")]
    assert [line[:3] for line in lines] == [
        ["rounds", "0-9:", "validate"], ["rounds", "1-9:", "write"], ["rounds", "1-9:", "pivot"],
        ["rounds", "1-9:", "neox"], ["rounds", "1-9:", "qwen"], ["rounds", "1-9:", "train"],
    ]  # fmt: skip
    assert lines[1][3:] == ["45", f"{9 * stage(found, 'round 1: write').tokens:,}"]
    assert re.search(r"All rounds together: \d+\.\d% of\s+the FLOPs", " ".join(shown.split()))
    assert len(list(misfits(found, many.plan))) == 0
