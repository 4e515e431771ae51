"""The plan of a run: against what the run's files and tokens say, and at full size without data, weights or network."""

import re

import pytest

from fusion.cache.codec import bytes_per_row
from fusion.config import loading
from fusion.config.gpus import GPUS
from fusion.models.loading import ModelRef, load_model, vocabulary_size
from fusion.plan import architecture, plan, plan_tables, trainings
from fusion.plan.memory import EngineOption
from fusion.plan.misfits import misfits, smallest_fitting_engine
from fusion.plan.table import engines_table, gpu_hours, stages_table
from fusion.runtime.console import console
from fusion.stages.context import RunContext
from tests.helpers import runs

PAPERS = ("infifusion_unified_14b", "infifusion_pairwise_14b", "infigfusion_14b")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("plan")


@pytest.fixture
def offline(monkeypatch):
    """Neither hub nor data nor tokenizer: reading any is an error."""
    monkeypatch.setattr(architecture, "_reachable", lambda ref: False)
    for name in ("train_examples", "heldout_examples", "tokenizers"):
        monkeypatch.setattr(RunContext, name, property(lambda self, name=name: pytest.fail(f"{name} was read")))


def planned(name, *overrides):
    config = loading.load(name, overrides)
    return plan(RunContext(config)), config.plan


def stage(found, name):
    return next(estimate for estimate in found.stages if estimate.stage == name)


def said(*tables, width=80):
    with console.capture() as capture:
        console.print(*tables, sep="\n", width=width)
    return capture.get()


def test_counts_are_those_of_the_tokenizers(folder):
    context = RunContext(runs.config(folder))
    found = plan(context)
    for name in context.models:
        texts = context.encoded(name)
        estimate = stage(found, f"extract {name}")
        assert estimate.examples == 16
        assert estimate.tokens == sum(len(text.input_ids) for text in texts)
        k = 1 if name == "pivot" else 10
        size = vocabulary_size(context.tokenizers[name])
        assert estimate.disk == sum(text.num_rows for text in texts) * bytes_per_row(k, "packed", size)
    assert not found.from_settings
    assert found.bundled == []


def test_hidden_states_of_sources_are_counted_on_the_disk(folder):
    plain = plan(RunContext(runs.config(folder)))
    with_states = plan(RunContext(runs.config(folder, extract={"hidden_states": True})))
    rows = sum(text.num_rows for text in RunContext(runs.config(folder)).encoded("qwen"))
    assert stage(with_states, "extract qwen").disk - stage(plain, "extract qwen").disk == rows * 32 * 2
    assert stage(with_states, "extract pivot").disk == stage(plain, "extract pivot").disk


def test_weights_of_a_training_are_those_of_the_model(folder):
    config = runs.config(folder)
    found = plan(RunContext(config))
    weights = sum(p.nbytes for p in load_model(config.pivot.ref).parameters())
    rank = stage(found, "train unified").memory
    assert (rank.weights, rank.gradients, rank.optimizer) == (weights, weights, 2 * weights)
    assert stage(found, "fuse").disk == weights


def test_modules_of_terms_are_counted_and_only_engines_that_train_them_are_offered(folder):
    own = [{"kind": "cross_entropy"}, {"kind": "hidden_projector"}, {"kind": "dual_head"}]
    changes = {"extract": {"hidden_states": True}, "plan": {"gpus": 2}}
    plain, more = (plan(RunContext(runs.config(folder, objectives=o, **changes))) for o in (own[:1], own))
    one, other = (stage(each, "train unified").memory for each in (plain, more))
    layers = 2 * 2 * (32 * 32 + 32) + 2 * (32 * 32 + 32)  # two sources: two layers, and a projector
    context = RunContext(runs.config(folder))
    frozen = sum(
        (32 + 1) * vocabulary_size(context.tokenizers[name]) + 32 for name in ("neox", "qwen")
    )  # with bias and mean
    assert other.weights - one.weights == 4 * (layers + frozen)
    assert other.gradients - one.gradients == 4 * layers
    assert other.optimizer - one.optimizer == 8 * layers
    assert {engine.kind for engine in more.engines} == {"ddp"}
    assert {"zero3", "fsdp2"} < {engine.kind for engine in plain.engines}


def test_gradients_that_are_kept_apart_are_counted_and_so_is_their_backward_pass(folder):
    aside = [{"kind": "cross_entropy"}, {"kind": "dual_head", "gradient_alignment": True}]
    plain, apart = (
        plan(RunContext(runs.config(folder, objectives=o))) for o in ([aside[0], {"kind": "dual_head"}], aside)
    )
    one, other = (stage(each, "train unified") for each in (plain, apart))
    assert other.memory.gradients == 2 * one.memory.gradients
    assert other.memory.weights == one.memory.weights
    assert 1.2 * one.flops < other.flops < 1.7 * one.flops
    assert stage(apart, "train fine-tuned").flops == stage(plain, "train fine-tuned").flops


def test_where_sources_answer_plain_fine_tuning_learns_what_the_data_have(folder):
    how = {"max_steps": -1, "num_train_epochs": 2, "per_device_train_batch_size": 4}
    raw = runs.raw(folder, strategies=["unified"], training=how)
    answered, alone = raw["data"]["train"]
    raw["data"] |= {
        "responses": {"kind": "best_source", "max_new_tokens": 8},
        "train": [answered, alone | {"response": None}],
    }
    found = plan(RunContext(runs.loading.parse(raw, "test")).planned)
    plain, fused = (stage(found, f"train {name}") for name in ("fine-tuned", "unified"))
    assert (plain.examples, plain.steps) == (8, 4)
    assert (fused.examples, fused.steps) == (16, 8)


def test_more_gpus_make_fewer_steps_of_more_examples(folder):
    epoch = {"num_train_epochs": 3, "per_device_train_batch_size": 2, "gradient_accumulation_steps": 2}
    steps = {}
    for gpus in (1, 2, 3):
        found = plan(RunContext(runs.config(folder, training=epoch, plan={"gpus": gpus})))
        steps[gpus] = stage(found, "train unified").steps
    assert steps == {1: 12, 2: 6, 3: 6}


@pytest.mark.parametrize(
    ("saving", "models"),
    [
        ({"save_strategy": "no"}, 0),
        ({"save_strategy": "epoch"}, 3),  # a new one is written before the oldest goes
        ({"save_steps": 4}, 3),
        ({"save_steps": 100}, 1),
        ({"save_steps": 1, "save_total_limit": None}, 12),
        ({"save_steps": 1, "save_total_limit": 3}, 4),
    ],
)
def test_disk_of_a_training_counts_the_checkpoints_that_lie_there_at_once(folder, saving, models):
    training = {"num_train_epochs": 3, "per_device_train_batch_size": 4, **saving}
    found = plan(RunContext(runs.config(folder, training=training)))
    one = stage(found, "fuse").disk
    assert stage(found, "train unified").disk == one + models * 3 * one  # weights and both moments


@pytest.mark.parametrize("name", PAPERS)
def test_the_papers_recipes_are_planned_without_network_data_or_weights(offline, name):
    found, given = planned(name)
    assert found.from_settings
    assert set(found.bundled) == {"pivot", "qwen", "coder", "mistral"}
    assert (given.gpus, given.gpu) == (8, "h800")
    trained = [e for e in found.stages if e.steps is not None]
    assert {e.examples for e in trained} == {130_000}
    assert {e.tokens for e in trained} == {3 * 130_000 * 4000}
    assert {e.steps for e in trained} == {3 * 1016}  # 130,000 / 128, rounded up
    assert stage(found, "extract mistral").memory.fits(GPUS["h800"].memory)
    assert found.engines[EngineOption("zero3")].fits(GPUS["h800"].memory)
    text = said(*plan_tables(found, given))
    for part in ("8 x h800", "plan.mfu, an assumption", "GPU-hours", "not counted", "few this package knows", "zero3"):
        assert part in " ".join(text.split())
    assert max(len(line.rstrip()) for line in text.splitlines()) <= 80


@pytest.mark.parametrize("width", [60, 80])
def test_no_table_of_a_plan_cuts_a_number_in_a_narrow_terminal(offline, width):
    found, given = planned("infifusion_unified_14b")
    tables = [stages_table(found, given), engines_table(found, given)]
    narrow, wide = said(*tables, width=width), said(*tables, width=300)
    assert "…" not in narrow
    assert sorted(re.findall(r"\d[\d,.]*\d", narrow)) == sorted(re.findall(r"\d[\d,.]*\d", wide))
    assert max(len(line.rstrip()) for line in narrow.splitlines()) <= width


def test_planned_gpu_hours_are_near_the_published_ones(offline):
    """Published: 145 for plain fine-tuning, 160 unified, 450 for three pairwise trainings; 520M tokens are an upper bound."""
    hours = {}
    for name in ("infifusion_unified_14b", "infifusion_pairwise_14b"):
        found, given = planned(name)
        hours |= {e.stage: gpu_hours(e.flops, given) for e in found.stages}
    reading = sum(hours[f"extract {name}"] for name in ("qwen", "coder", "mistral"))
    assert hours["train fine-tuned"] == pytest.approx(145, rel=0.15)
    assert hours["train unified"] + reading == pytest.approx(160, rel=0.25)
    pairwise = sum(hours[f"train pairwise/{name}"] for name in ("qwen", "coder", "mistral"))
    assert pairwise + reading == pytest.approx(450, rel=0.15)


def test_more_gpus_shorten_what_they_share_and_not_evaluations(offline):
    times = {}
    for gpus in (8, 16):
        found, given = planned("infifusion_unified_14b", f"plan.gpus={gpus}")
        rows = [line.split() for line in said(stages_table(found, given)).splitlines()]
        times[gpus] = {" ".join(row[:2]): row[-2:] for row in rows if row[:1] in (["train"], ["extract"], ["evaluate"])}
    assert times[8]["evaluate mistral"] == times[16]["evaluate mistral"]
    for stage in ("train unified", "extract mistral"):
        (eight, unit), (sixteen, same) = times[8][stage], times[16][stage]
        assert unit == same == "h"
        assert float(eight) == pytest.approx(2 * float(sixteen), rel=0.01)


def test_counts_said_by_hand_are_left_aside_where_data_are_to_be_counted(folder):
    config = runs.config(folder, plan={"tokens": 7, "examples": 5, "heldout": 3})
    from_settings, counted = plan(RunContext(config)), plan(RunContext(config), count=True)
    assert stage(from_settings, "extract neox").tokens == 35
    assert stage(from_settings, "evaluate neox").tokens == 21 + 3 * 4  # and answers of four tokens
    assert stage(counted, "extract neox").examples == 16
    assert stage(counted, "extract neox").tokens > 16 * 7


def test_a_response_shorter_than_the_text_makes_fewer_rows(folder):
    whole, half = (
        plan(RunContext(runs.config(folder, plan={"tokens": 8, "examples": 5, "heldout": 3, **more})))
        for more in ({}, {"response": 4})
    )
    assert stage(whole, "extract neox").disk == 2 * stage(half, "extract neox").disk


def test_a_data_set_without_a_limit_needs_a_number(folder):
    config = runs.config(folder, plan={"tokens": 8})
    with pytest.raises(ValueError, match=r"data.train\[0\] \(.*train.jsonl\) has no limit.*Set plan.examples"):
        plan(RunContext(config))
    config = runs.config(folder, plan={"tokens": 8, "examples": 4})
    with pytest.raises(ValueError, match=r"data.heldout\[0\].*Set plan.heldout"):
        plan(RunContext(config))


def test_what_does_not_fit_is_named_with_the_smallest_change_that_does(offline):
    found, given = planned("infifusion_unified_14b", "training.gradient_checkpointing=false", "engine.kind=auto")
    (sentence,) = misfits(found, given)
    assert sentence.startswith("does not fit: train fine-tuned, train unified with ddp needs 1")
    assert "a process, h800 has 80 GB, of which 10% is left free; smallest that fits: " in sentence
    have = GPUS["h800"].memory
    engine, checkpointed = smallest_fitting_engine(found, have)
    assert sentence.endswith(f"{engine} + gradient checkpointing.")
    assert checkpointed
    assert found.checkpointed[engine].fits(have)
    before = list(found.engines)[: list(found.engines).index(engine)]
    assert not any(found.checkpointed[smaller].fits(have) for smaller in before)


def test_nothing_is_said_to_be_too_large_where_no_gpu_is_named(offline):
    found, given = planned("infifusion_unified_14b", "plan.gpu=null")
    assert list(misfits(found, given)) == []
    assert "✗" not in said(*plan_tables(found, given))


def test_a_source_that_does_not_fit_is_named(offline):
    found, given = planned("infifusion_unified_14b", "plan.gpu=l40s", "extract.dtype=float32")
    extracts = [sentence for sentence in misfits(found, given) if "extract mistral" in sentence]
    assert len(extracts) == 1
    assert "extract.dtype" in extracts[0]


def test_where_nothing_fits_that_is_said(offline):
    found, given = planned("infifusion_unified_14b", "plan.gpu=l4", "training.per_device_train_batch_size=64")
    assert smallest_fitting_engine(found, GPUS["l4"].memory) is None
    assert any("nothing fits: take more or larger GPUs" in sentence for sentence in misfits(found, given))


def test_one_gpu_is_helped_by_offloading(offline):
    found, _ = planned("infifusion_unified_14b", "plan.gpus=1")
    assert next(iter(found.engines)) == EngineOption("single")
    assert smallest_fitting_engine(found, GPUS["h800"].memory) == (EngineOption("zero2", "optimizer"), False)


def test_an_unknown_gpu_is_named_with_its_neighbour():
    with pytest.raises(loading.ConfigError, match="plan.gpu: there is no GPU h900; did you mean h"):
        loading.load("quickstart", ["plan.gpu=h900"])


def test_one_gpu_is_one_process_and_several_are_not():
    assert trainings.configured_engine(loading.load("quickstart")) == EngineOption("single")
    assert trainings.configured_engine(loading.load("quickstart", ["plan.gpus=2"])) == EngineOption("ddp")


def test_a_model_whose_folder_is_here_is_not_called_bundled(folder, monkeypatch):
    found = plan(RunContext(runs.config(folder)))
    assert "few this package knows" not in said(*plan_tables(found, runs.config(folder).plan))
    assert architecture.load_architecture(ModelRef(str(runs.models(folder)["pivot"]))).bundled is False
