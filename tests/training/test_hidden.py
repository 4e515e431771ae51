"""Objectives that look at hidden states, from the cache to a model on disk: the term falls and what comes out is ordinary.

Modules that terms own are trained with the pivot, resumed with it, and gone from what is written, also in two processes.
"""

import dataclasses
import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, TrainerCallback

from fusion import pipeline
from fusion.cache import Cache
from fusion.models.head import hidden_states
from fusion.models.loading import ModelRef
from fusion.objectives import Affinity, DualHead, HiddenProjector, OptimalTransport, OutputLayer
from fusion.stages import extract, train
from fusion.stages.context import RunContext
from fusion.training import auxiliary_modules
from tests.helpers import runs, spread, tiny

STATES = {"extract": {"top_k": 10, "shard_size": 5, "batch_tokens": 256, "hidden_states": True}}
TRAINING = {"max_steps": 12, "learning_rate": 3e-3, "save_strategy": "no", "per_device_train_batch_size": 16}
KINDS = [
    {"kind": "affinity"},
    {"kind": "affinity", "sketch": 8, "fresh": False},
    {"kind": "span_relations"},
    {"kind": "optimal_transport"},
    {"kind": "hidden_projector", "disparity": 0.9},
    {"kind": "dual_head"},
    {"kind": "dual_head", "loss": "kl"},
    {"kind": "matcher"},
]
OWNING = [
    {"kind": "optimal_transport"},
    {"kind": "dual_head"},
    {"kind": "hidden_projector", "weight": 0.0},  # so without a module
    {"kind": "affinity", "sketch": 4},  # draws anew at each step
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hidden")
    pipeline.run(runs.config(folder, **STATES), until="extract")
    return folder


def trained(folder, name, *objectives, **training):
    """The folder of a training on the same caches, and its log."""
    context = RunContext(
        runs.config(
            folder,
            **STATES,
            objectives=[{"kind": "cross_entropy", "weight": 0.1}, *objectives],
            training=TRAINING | training,
        )
    )
    caches = {source.name: Cache(context.config.folder / "cache" / source.name) for source in context.config.sources}
    sources = [train.training_source(context, source, cache) for source, cache in caches.items()]
    train.train_one(context, name, sources, list(caches))
    place = context.config.folder / "train" / name
    return place, json.loads((place / "log.json").read_text())


def assert_ordinary(folder, place):
    model, info = AutoModelForCausalLM.from_pretrained(place / "model", output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    before = load_file(folder / "pivot/model.safetensors")
    after = load_file(place / "model/model.safetensors")
    assert after.keys() == before.keys()
    assert not all(torch.equal(weight, before[name]) for name, weight in after.items())
    return model


@pytest.mark.parametrize("objective", KINDS, ids=repr)
def test_the_term_falls_and_the_exported_model_is_an_ordinary_one(folder, objective):
    place, log = trained(folder, f"falls-{KINDS.index(objective)}", objective)
    for name in ("neox", "qwen"):
        values = [entry[f"loss/{objective['kind']}/{name}"] for entry in log]
        assert sum(values[-3:]) < 0.9 * sum(values[:3])
    assert_ordinary(folder, place)


class KilledError(RuntimeError):
    pass


class Kill(TrainerCallback):
    def on_step_end(self, args, state, control, **_):
        if state.global_step == 3:
            raise KilledError


def test_a_training_with_modules_of_its_own_is_resumed_where_it_was_killed(folder, monkeypatch):
    often = {"max_steps": 6, "save_strategy": "steps", "save_steps": 2, "save_total_limit": None}
    whole, log = trained(folder, "whole", *OWNING, **often)
    with monkeypatch.context() as patch:
        patch.setattr(train, "training_bar", lambda _: [Kill()])
        with pytest.raises(KilledError):
            trained(folder, "killed", *OWNING, **often)
    (checkpoint,) = (folder / "runs/small/train/killed").glob("checkpoint-*")
    kept = {
        name: weight
        for name, weight in load_file(checkpoint / "model.safetensors").items()
        if auxiliary_modules.NAME in name
    }
    assert {name.split(".", 1)[1] for name in kept} == {
        "1.neox.weight", "1.qwen.weight",
        *(f"2.{source}.projector.{part}" for source in ("neox", "qwen") for part in ("weight", "bias")),
    }  # fmt: skip
    again, resumed = trained(folder, "killed", *OWNING, **often)
    assert [entry["loss"] for entry in resumed] == [entry["loss"] for entry in log]
    mine, theirs = (load_file(place / "model/model.safetensors") for place in (again, whole))
    assert all(torch.equal(weight, theirs[name]) for name, weight in mine.items())


def test_modules_are_trained_and_both_sources_have_their_own(folder):
    place, _ = trained(folder, "modules", *OWNING, max_steps=4, save_strategy="steps", save_steps=2)
    late = load_file(place / "checkpoint-4/model.safetensors")
    names = [name for name in late if auxiliary_modules.NAME in name]
    assert len(names) == 6
    assert not torch.equal(*(late[f"{auxiliary_modules.NAME}.1.{source}.weight"] for source in ("neox", "qwen")))
    start = torch.eye(32)  # both widths are the same
    assert all(not torch.equal(late[name], start) for name in names if name.endswith("weight"))


def test_a_model_with_modules_answers_as_one_without_and_loses_them_again(folder):
    model, plain = (AutoModelForCausalLM.from_pretrained(folder / "pivot") for _ in range(2))
    auxiliary_modules.attach_modules(
        model, torch.nn.ModuleDict({"0": torch.nn.ModuleDict({"a": torch.nn.Linear(3, 4)})})
    )
    assert any(auxiliary_modules.NAME in name for name, _ in model.named_parameters())
    ids = torch.arange(9)[None]
    assert torch.equal(model(ids).logits, plain(ids).logits)
    auxiliary_modules.detach_modules(model)
    auxiliary_modules.detach_modules(model)  # nothing to take out any more
    assert model.state_dict().keys() == plain.state_dict().keys()


def test_learning_from_one_source_makes_modules_for_it_alone(folder):
    context = RunContext(
        runs.config(folder, **STATES, objectives=OWNING, training=TRAINING | {"max_steps": 1, "save_strategy": "steps"})
    )
    caches = {name: Cache(context.config.folder / "cache" / name) for name in ("neox", "qwen")}
    train.train_one(
        context, "one", [train.training_source(context, name, cache) for name, cache in caches.items()], ["qwen"]
    )
    place = context.config.folder / "train/one"
    kept = {name for name in load_file(place / "checkpoint-1/model.safetensors") if auxiliary_modules.NAME in name}
    assert kept == {
        f"{auxiliary_modules.NAME}.{name}"
        for name in ("0.qwen.weight", "1.qwen.projector.weight", "1.qwen.projector.bias")
    }
    assert_ordinary(folder, place)


@pytest.fixture(scope="module")
def sources(folder):
    context = RunContext(runs.config(folder, **STATES))
    return [
        train.training_source(context, name, Cache(context.config.folder / "cache" / name)) for name in ("neox", "qwen")
    ]


def test_modules_are_the_same_whatever_was_drawn_before_and_disturb_nothing(sources):
    terms = [Affinity(), OptimalTransport(), HiddenProjector()]
    torch.manual_seed(1)
    first = auxiliary_modules.build_modules(terms, sources, 24, dtype="float32", seed=5)
    drawn = torch.rand(1)
    torch.manual_seed(1)
    assert torch.equal(torch.rand(1), drawn)
    second = auxiliary_modules.build_modules(terms, sources[::-1], 24, dtype="float32", seed=5)
    assert first.state_dict().keys() == second.state_dict().keys()
    assert all(torch.equal(weight, second.state_dict()[name]) for name, weight in first.state_dict().items())
    assert auxiliary_modules.modules_of(first, 0, ["neox"]) == {}
    assert auxiliary_modules.modules_of(first, 1, ["neox"])["neox"].weight.shape == (24, 32)
    assert not torch.equal(
        first["2"]["neox"].first.weight,
        auxiliary_modules.build_modules(terms, sources, 24, dtype="float32", seed=6)["2"]["neox"].first.weight,
    )


def test_a_source_whose_name_has_dots_has_a_module(sources):
    dotted = dataclasses.replace(sources[0], name="a.b-1.5")
    made = auxiliary_modules.build_modules([HiddenProjector()], [dotted], 24, dtype="float32", seed=0)
    assert auxiliary_modules.modules_of(made, 0, ["a.b-1.5"])["a.b-1.5"] is not None


def test_nothing_of_a_dual_head_reaches_the_pivots_own_head(folder, sources):
    """Gradients on its weights are those of cross-entropy alone, to the bit."""
    model = AutoModelForCausalLM.from_pretrained(folder / "pivot")
    term, rows = DualHead(), sources[0].cache.rows([next(iter(sources[0].cache._location))])
    module = auxiliary_modules.build_modules([term], sources[:1], 32, dtype="float32", seed=0)["0"]["neox"]
    hidden = hidden_states(model, input_ids=torch.arange(len(rows))[None])[0]
    term(dataclasses.replace(rows, hidden=hidden), rows, module=module).sum().backward()
    assert model.lm_head.weight.grad is None
    assert model.model.norm.weight.grad.abs().max() > 0
    assert module.projector.weight.grad.abs().max() > 0


def test_the_output_layer_of_a_source_makes_its_logits(tmp_path):
    """With scale and bias; and of soft-capped logits there is none."""
    for kind in ("granite", "cohere", "qwen2"):
        ref = ModelRef(str(tiny.folder(kind, tmp_path / kind)))
        model = AutoModelForCausalLM.from_pretrained(ref.path)
        layer = auxiliary_modules.read_output_layer(ref, 250, "float32")
        ids = torch.arange(9)[None]
        mine = hidden_states(model, input_ids=ids)[0] @ layer.weight.T
        torch.testing.assert_close(mine, model(ids).logits[0, :, :250], atol=1e-4, rtol=1e-4)
    ref = ModelRef(str(tiny.folder("gemma2", tmp_path / "gemma2")))
    with pytest.raises(ValueError, match=r"gemma2 does more to its logits than a matrix and a bias"):
        auxiliary_modules.read_output_layer(ref, 250, "float32")
    with pytest.raises(ValueError, match=r"The source's weights are not here"):
        auxiliary_modules.read_output_layer(None, 250, "float32")
    assert isinstance(layer, OutputLayer)


@pytest.mark.slow
def test_two_processes_train_as_one(folder):
    """With modules and a frozen head, also where no term looks at logits."""
    alone = [{"kind": "affinity"}, {"kind": "hidden_projector"}]
    changes = {"both": [{"kind": "cross_entropy"}, *OWNING], "states": alone}
    shared = {name: {**STATES, "objectives": objectives} for name, objectives in changes.items()}
    short = {"max_steps": 5}
    for name, each in shared.items():
        spread.train(folder, f"one-{name}", training=short, **each)
    two = [{"place": f"two-{name}", "training": spread.HALF | short, **each} for name, each in shared.items()]
    spread.spread(folder, 2, *two)
    for name in shared:
        mine, theirs = (spread.log(folder, f"{count}-{name}") for count in ("two", "one"))
        for entry, expected in zip(mine, theirs, strict=True):
            losses = {key for key in expected if key.startswith("loss")}
            assert {key: entry[key] for key in losses} == pytest.approx(
                {key: expected[key] for key in losses}, rel=1e-3
            )
        mine, theirs = (load_file(folder / f"{count}-{name}/model/model.safetensors") for count in ("two", "one"))
        assert mine.keys() == theirs.keys()
        for key, weight in mine.items():
            torch.testing.assert_close(weight, theirs[key], atol=3e-5, rtol=0)


def test_what_is_wrong_with_a_head_is_said_before_anything_is_trained(folder, tmp_path):
    basis = tmp_path / "basis.safetensors"
    head = {"kind": "dual_head", "head": str(basis)}
    config = runs.config(folder, **STATES, name="small", objectives=[{"kind": "cross_entropy"}, head])
    caches = {name: Cache(config.folder / "cache" / name) for name in ("neox", "qwen")}
    with pytest.raises(ValueError, match=r"basis.safetensors is no safetensors file that can be read"):
        extract.refuse_unknown(RunContext(config), caches)
    save_file({"basis": torch.randn(5, 8)}, basis)
    with pytest.raises(
        ValueError, match=r"has shape \[5, 8\]; it should have a row for each of the source's \d+ tokens"
    ):
        extract.refuse_unknown(RunContext(config), caches)
    save_file({"basis": torch.randn(1000, 8)}, basis)
    extract.refuse_unknown(RunContext(config), caches)
    capped = ModelRef(str(tiny.folder("gemma2", tmp_path / "gemma2")))
    with pytest.raises(ValueError, match=r"gemma2 does more to its logits than a matrix and a bias"):
        auxiliary_modules.check_modules([DualHead()], capped, 250)
    auxiliary_modules.check_modules([DualHead(weight=0.0), DualHead(head=str(basis))], capped, 250)


def test_another_basis_in_the_same_file_is_another_training(folder, tmp_path):
    basis = tmp_path / "basis.safetensors"
    save_file({"basis": torch.randn(1000, 8)}, basis)
    place, log = trained(folder, "basis", {"kind": "dual_head", "head": str(basis), "loss": "kl"}, max_steps=1)
    assert log[0]["loss/dual_head/qwen"] > 0
    assert_ordinary(folder, place)
    save_file({"basis": torch.randn(1000, 8)}, basis)
    with pytest.raises(ValueError, match="objectives"):
        trained(folder, "basis", {"kind": "dual_head", "head": str(basis), "loss": "kl"}, max_steps=1)
