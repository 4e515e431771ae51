"""Two answers to one prompt, a short one and one with a chain of thought: which rows a term sees, and a training with it."""

import json

import pytest
import torch

from fusion import pipeline
from fusion.cache import Cache
from fusion.config import loading
from fusion.stages import extract, train
from fusion.stages.context import RunContext
from fusion.training import TrainingCollator
from tests.helpers import runs

TRANSPORT = {"kind": "optimal_transport", "other_answers": True}


def raw(folder, *objectives, prompts=6, **changes):
    """Prompts with both answers, as two data sets of one file, and one prompt with a single answer."""
    rows = [{"q": f"{i} + {i}?", "a": str(2 * i), "thought": f"well, {i} twice, so {2 * i}"} for i in range(prompts)]
    (folder / "sums.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    (folder / "alone.jsonl").write_text(json.dumps({"q": "who?", "a": "me"}))
    data = {"path": str(folder / "sums.jsonl"), "prompt": "{q}"}
    given = runs.raw(
        folder,
        name="answers",
        extract={"hidden_states": True, "shard_size": 5},
        objectives=[{"kind": "cross_entropy", "weight": 0.2}, *objectives],
        training={"max_steps": 12, "learning_rate": 3e-3, "save_strategy": "no", "per_device_train_batch_size": 13},
        **changes,
    )
    given["data"]["train"] = [
        {**data, "domain": "short", "response": "{a}"},
        {**data, "domain": "long", "response": "{thought}"},
        {"path": str(folder / "alone.jsonl"), "domain": "short", "prompt": "{q}", "response": "{a}"},
    ]
    return given


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("answers")
    pipeline.run(loading.parse(raw(folder, TRANSPORT), "test"), "extract")
    return folder


@pytest.fixture
def context(folder):
    return RunContext(loading.parse(raw(folder, TRANSPORT), "test"))


def sources(context):
    place = context.config.folder / "cache"
    return [train.training_source(context, name, Cache(place / name)) for name in ("neox", "qwen")]


def test_each_example_meets_the_sources_states_of_the_other_answer(context):
    learned = sources(context)
    others = train._other_answers(context, context.config.objectives)
    collator = TrainingCollator(
        context.train_examples, context.encoded("pivot"), learned, context.weighting, other_answers=others
    )
    numbers = [7, 12, 0, 4]  # a thought, the prompt with one answer, two short answers
    partners = [1, None, 6, 10]
    for source in learned:
        found = collator(numbers)["targets"].sources[source.name].other_answer
        assert found.example.unique().tolist() == [0, 2, 3]
        for place, partner in enumerate(partners):
            if partner is not None:
                there = source.cache.rows([context.train_examples[partner].id], hidden=True)
                mine = found.select(found.example == place)
                assert torch.equal(mine.hidden, there.hidden)
                assert torch.equal(mine.prefix, there.prefix)


def test_where_no_term_asks_or_nobody_answers_otherwise_there_are_no_rows(context):
    learned, others = sources(context), train._other_answers(context, context.config.objectives)
    for given, numbers in ((None, [0, 7]), (others, [12])):
        collator = TrainingCollator(
            context.train_examples, context.encoded("pivot"), learned, context.weighting, other_answers=given
        )
        targets = collator(numbers)["targets"].to("cpu")
        assert all(len(source.other_answer) == 0 for source in targets.sources.values())
    assert train._other_answers(context, context.config.objectives[:1]) is None


@pytest.mark.slow
def test_the_term_falls_and_is_another_than_that_of_the_same_answers_alone(folder):
    logs = {}
    for name, term in (("across", TRANSPORT), ("same", {"kind": "optimal_transport"})):
        this = RunContext(loading.parse(raw(folder, term), "test"))
        learned = sources(this)
        train.train_one(this, name, learned, [source.name for source in learned])
        logs[name] = json.loads((this.config.folder / "train" / name / "log.json").read_text())
    for source in ("neox", "qwen"):
        values = [entry[f"loss/optimal_transport/{source}"] for entry in logs["across"]]
        assert sum(values[-3:]) < 0.95 * sum(values[:3])
        assert values[0] != logs["same"][0][f"loss/optimal_transport/{source}"]


def test_data_in_which_every_prompt_has_one_answer_is_refused_before_anything_is_extracted(folder):
    given = raw(folder, TRANSPORT) | {"name": "lone"}
    given["data"]["train"] = given["data"]["train"][1:]
    with pytest.raises(
        ValueError, match=r"objectives\[1\] \(optimal_transport\) .* each of the 7 training examples has a"
    ):
        pipeline.run(loading.parse(given, "test"), "extract")
    assert not (folder / "runs/lone/cache").exists()
    silent = [{"kind": "cross_entropy"}, {**TRANSPORT, "weight": 0}]
    extract.refuse_lone_answers(RunContext(loading.parse({**given, "objectives": silent}, "test")))
