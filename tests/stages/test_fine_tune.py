"""Sources that are fine-tuned on the data before they teach: what is trained, what then teaches, and what is said of it."""

from __future__ import annotations

import json

import pytest
import torch

from fusion import pipeline
from fusion.cache import Cache
from fusion.config import fine_tuning
from fusion.config.loading import ConfigError
from fusion.data.example import Example
from fusion.data.folds import assign_folds, prompt_key
from fusion.models.loading import ModelRef, load_model, model_fingerprint
from fusion.plan import plan
from fusion.report.model_card import model_card
from fusion.stages.context import RunContext
from tests.helpers import runs


def config(folder, name="tuned", how=None, **changes):
    """The first source is fine-tuned, the second is as it came."""
    sources = runs.raw(folder)["sources"]
    sources[0]["fine_tune"] = how or {}
    return runs.config(folder, name=name, sources=sources, **changes)


def nats(model, context, name):
    """Of the training responses, in a source's own tokens."""
    total = 0.0
    for text in context.encoded(name):
        ids = torch.tensor([text.input_ids])
        logp = model(ids).logits[0, :-1].log_softmax(-1)
        total -= logp.gather(1, ids[0, 1:, None])[text.start - 1 :].sum().item()
    return total


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("fine_tune")


@pytest.fixture(scope="module")
def run(folder):
    return pipeline.run(config(folder), until="evaluate")


@torch.no_grad()
def test_the_source_is_trained_on_the_responses_and_its_rows_are_those_of_the_trained_one(folder, run):
    context = RunContext(config(folder))
    before, after = (load_model(ref) for ref in (runs_ref(folder, "neox"), context.models["neox"].ref))
    assert nats(after, context, "neox") < nats(before, context, "neox") - 1
    rows = Cache(run / "cache" / "neox").rows([context.train_examples[0].id])
    text = context.encoded("neox")[0]
    ids = torch.tensor([text.input_ids])
    expected = after(ids).logits[0, text.start - 1 : -1].log_softmax(-1)
    found = expected.gather(1, ids[0, text.start :, None]).squeeze(1)
    torch.testing.assert_close(rows.gold.float(), found, atol=0.05, rtol=0)  # caches keep rows packed


def runs_ref(folder, name):
    return next(source.ref for source in runs.config(folder).sources if source.name == name)


def test_it_learns_what_a_pivot_in_its_place_would(folder, run):
    """The baseline of a run whose pivot it is, with the same seed and settings."""
    raw = runs.raw(folder)
    swapped = {
        "pivot": {"path": raw["sources"][0]["path"]},
        "sources": [{"name": "other", "path": raw["pivot"]["path"]}],
    }
    other = pipeline.run(runs.config(folder, name="swapped", **swapped), until="train")
    ours, theirs = run / "train" / "sources" / "neox" / "model", other / "train" / "fine-tuned" / "model"
    weights = [load_model(ModelRef(str(path))).state_dict() for path in (ours, theirs)]
    assert weights[0].keys() == weights[1].keys()
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_the_other_source_stays_as_it_came(folder, run):
    context = RunContext(config(folder))
    assert context.models["qwen"].path == runs.raw(folder)["sources"][1]["path"]
    assert not (run / "train" / "sources" / "qwen").exists()
    assert Cache(run / "cache" / "qwen").key["model"] == model_fingerprint(runs_ref(folder, "qwen"))


def test_a_second_run_has_nothing_to_do(folder, run):
    pipeline.run(config(folder), until="extract")
    stages = {stage["name"]: stage for stage in json.loads((run / "run.json").read_text())["stages"]}
    assert stages["fine-tune neox"]["skipped"]
    assert stages["extract neox"]["skipped"]
    assert "fine-tune qwen" not in stages


def test_other_settings_are_refused_where_it_was_made_already(folder, run):
    with pytest.raises(ValueError, match="learning_rate"):
        pipeline.run(config(folder, how={"training": {"learning_rate": 1e-3}}))


def test_its_own_settings_win_over_those_of_the_run(folder):
    how = {"training": {"max_steps": 2}, "seed": 7}
    given = config(folder, how=how, seed=3)
    alone = fine_tuning(given, given.sources[0])
    assert (alone.training["max_steps"], alone.training["learning_rate"], alone.seed) == (2, 1e-2, 7)
    assert [objective.kind for objective in alone.objectives] == ["cross_entropy"]
    assert fine_tuning(config(folder, seed=3), given.sources[1]).seed == 3


def test_the_pivot_itself_may_teach_when_it_is_fine_tuned_first(folder):
    raw = runs.raw(folder)
    source = {"name": "self", "path": raw["pivot"]["path"]}
    run = pipeline.run(runs.config(folder, name="self", sources=[source | {"fine_tune": {}}]), until="train")
    assert (run / "train" / "unified" / "done.json").exists()


def test_what_is_not_fine_tuned_yet_cannot_teach(folder):
    with pytest.raises(ValueError, match="Source neox has fine_tune and was not fine-tuned yet"):
        RunContext(config(folder, name="early")).models  # noqa: B018


def test_a_plan_counts_it_before_anything_is_made(folder):
    stages = {stage.stage: stage for stage in plan(RunContext(config(folder, name="planned"))).stages}
    tuned, plain = stages["fine-tune neox"], stages["train fine-tuned"]
    assert (tuned.examples, tuned.steps) == (plain.examples, plain.steps)
    assert tuned.flops > 0
    assert tuned.disk > 0
    assert next(iter(stages)) == "fine-tune neox"


def test_the_card_says_so(run):
    assert "neox" in (card := model_card(run))
    assert card.count("fine-tuned on the training data first") == 1


@pytest.fixture(scope="module")
def crossed(folder):
    """Two models, each trained without one half, and the run they teach in."""
    given = config(folder, name="crossed", how={"folds": 2})
    return given, pipeline.run(given, until="train")


def test_each_part_is_left_out_of_one_training(crossed):
    context = RunContext(crossed[0])
    trained = [
        {example.id for example in alone.train_examples}
        for alone in context.fine_tunings(context.config.sources[0]).values()
    ]
    every = {example.id for example in context.train_examples}
    assert trained[0] | trained[1] == every
    assert all(0 < len(each) < len(every) for each in trained)
    left = [every - each for each in trained]
    assert not left[0] & left[1]
    for domain in {example.domain for example in context.train_examples}:
        sizes = [
            sum(example.domain == domain for example in context.train_examples if example.id in each) for each in left
        ]
        assert abs(sizes[0] - sizes[1]) <= 1


@torch.no_grad()
def test_each_example_is_read_by_the_model_that_was_not_trained_on_it(crossed):
    context = RunContext(crossed[0])
    cache, texts = Cache(crossed[1] / "cache" / "neox"), context.encoded("neox")
    refs = [model.ref for model in context.fold_models(context.config.sources[0])]
    for ref, alone in zip(refs, context.fine_tunings(context.config.sources[0]).values(), strict=True):
        model, known = load_model(ref), {example.id for example in alone.train_examples}
        for example, text in zip(context.train_examples, texts, strict=True):
            logp = model(torch.tensor([text.input_ids])).logits[0, text.start - 1 : -1].log_softmax(-1)
            said = logp.gather(1, torch.tensor(text.input_ids[text.start :])[:, None]).squeeze(1)
            kept = cache.rows([example.id]).gold.float()
            same = torch.allclose(kept, said, atol=0.05)  # caches keep rows packed
            assert same == (example.id not in known)


def test_the_other_parts_are_in_the_key_of_the_cache_and_a_second_run_has_nothing_to_do(crossed):
    given, run = crossed
    first, second = (model_fingerprint(model.ref) for model in RunContext(given).fold_models(given.sources[0]))
    assert (Cache(run / "cache" / "neox").key["model"], Cache(run / "cache" / "neox").key["parts"]) == (first, [second])
    pipeline.run(given, until="train")
    stages = {stage["name"]: stage for stage in json.loads((run / "run.json").read_text())["stages"]}
    tuned = [name for name in stages if name.startswith("fine-tune ")]
    assert tuned == ["fine-tune neox/without-0", "fine-tune neox/without-1"]
    assert all(stages[name]["skipped"] for name in [*tuned, "extract neox", "train unified"])


def test_a_plan_counts_each_part_on_the_others_and_both_models_in_memory(folder):
    one, two = (
        {stage.stage: stage for stage in plan(RunContext(config(folder, name="planned", how=how))).stages}
        for how in ({}, {"folds": 2})
    )
    halves = [two[f"fine-tune neox/without-{part}"].examples for part in range(2)]
    assert sum(halves) == one["fine-tune neox"].examples
    assert two["extract neox"].memory.weights == 2 * one["extract neox"].memory.weights
    assert two["extract qwen"].memory == one["extract qwen"].memory


def test_more_parts_than_prompts_are_refused(folder):
    with pytest.raises(ValueError, match=r"fine_tune.folds is 1000, and the training data have \d+ different prompts"):
        pipeline.run(config(folder, name="many", how={"folds": 1000}))


def test_responses_to_one_prompt_stay_together_and_text_without_prompt_is_split():
    asked = [Example(({"role": "user", "content": f"{n}?"},), answer, "d") for n in range(4) for answer in "ab"]
    raw = [Example((), text, "d", template="plain") for text in "cdef"]
    found = assign_folds([*asked, *raw], 2)
    assert [found[prompt_key(example)] for example in asked] == [0, 0, 1, 1, 0, 0, 1, 1]
    assert [found[prompt_key(example)] for example in raw] == [0, 1, 0, 1]


def test_a_source_whose_weights_are_elsewhere_is_refused(folder):
    sources = runs.raw(folder)["sources"]
    sources[0] |= {"fine_tune": {}, "backend": {"kind": "openai", "url": "http://127.0.0.1:1/v1", "model": "m"}}
    with pytest.raises(ConfigError, match="source neox has fine_tune, and its weights are not here"):
        runs.config(folder, sources=sources)


def test_several_models_beside_each_other_are_refused_where_one_takes_the_gpu(folder):
    sources = runs.raw(folder)["sources"]
    sources[0] |= {"fine_tune": {"folds": 2}, "backend": {"kind": "vllm"}}
    with pytest.raises(ConfigError, match="source neox has fine_tune.folds 2: so many models read side by side"):
        runs.config(folder, sources=sources)
    sources[0] |= {"fine_tune": {}}
    runs.config(folder, sources=sources, objectives=[{"kind": "cross_entropy"}])


def test_prompts_without_responses_are_nothing_to_train_on(folder):
    raw = runs.raw(folder)
    raw["sources"][0]["fine_tune"] = {}
    data = raw["data"] | {
        "train": [each | {"response": None} for each in raw["data"]["train"]],
        "responses": "every_source",
    }
    with pytest.raises(ConfigError, match="no data set in data.train has responses to train it on"):
        runs.config(folder, sources=raw["sources"], data=data)


def test_unknown_training_arguments_are_refused_as_those_of_the_run_are(folder):
    with pytest.raises(ConfigError, match="learning_rat is not a TrainingArgument"):
        config(folder, how={"training": {"learning_rat": 1}})


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"path": "model.gguf"}, "engine.kind zero3 loads what it trains in shards, which model.gguf cannot be"),
        ({"fine_tune": {"adapter": {"kind": "qlora"}}}, r"\(sources.neox.fine_tune.adapter.kind qlora\)"),
    ],
)
def test_what_the_engine_cannot_train_is_refused_as_for_the_pivot(folder, changes, said):
    sources = runs.raw(folder)["sources"]
    sources[0] = {"fine_tune": {}, **sources[0], **changes}
    with pytest.raises(ConfigError, match=said):
        runs.config(folder, sources=sources, engine={"kind": "zero3"})
