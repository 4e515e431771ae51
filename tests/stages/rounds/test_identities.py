"""What must come out of a round whatever the models are: a source that is the pivot has nothing to say."""

import dataclasses
import json
import shutil

import pytest
import torch

from fusion import pipeline
from fusion.cache import Cache
from fusion.config import loading
from fusion.config.models import BUILTIN, WeakerModel
from fusion.models.head import Head
from fusion.models.loading import ModelRef, load_model
from fusion.quickstart import MODELS
from fusion.stages.context import RunContext
from fusion.stages.rounds.context import RoundContext
from fusion.stages.rounds.kept import round_folder
from fusion.stages.train import training_source
from fusion.tokenizers import vocabulary_bytes
from fusion.training import TrainingCollator
from fusion.training.loss import Loss

SUMS = {"path": "builtin:sums", "domain": "sums", "check": {"kind": "final_answer", "compare": "text"}}
SORT = {"path": "builtin:sort", "domain": "sort", "check": {"kind": "final_answer", "compare": "text"}}


@pytest.fixture(scope="module")
def one(tmp_path_factory):
    """Round 1 of a run whose first training changes nothing, with the pivot itself as a source under another name."""
    folder = tmp_path_factory.mktemp("identities")
    shutil.copytree(MODELS["pivot"], folder / "itself")
    config = json.loads((folder / "itself/config.json").read_text())
    (folder / "itself/config.json").write_text(json.dumps(config | {"named": "otherwise"}))
    raw = {
        "name": "identities", "runs": str(folder), "seed": 3,
        "pivot": {"path": f"{BUILTIN}pivot"},
        "sources": [{"name": "itself", "path": str(folder / "itself")}, 
            {"name": "lumi", "path": f"{BUILTIN}lumi"},
            {"name": "sums", "path": f"{BUILTIN}sums"},
        ],
        "data": {
            "train": [data | {"split": "fusion", "limit": 12} for data in (SUMS, SORT)],
            "heldout": [{"path": "builtin:sums", "domain": "sums", "split": "heldout", "limit": 2}],
        },
        "extract": {"top_k": "all", "value_format": "float32"},
        "objectives": [{"kind": "cross_entropy"}],
        "baseline": False,
        "training": {"learning_rate": 0.0, "max_steps": 1, "save_strategy": "no"},
        "rounds": {
            "count": 1, "prompts": 12, "num_generations": 2, "max_completion_length": 16, "replay": 0.25,
            "objectives": [
                {"kind": "forward_kl"}, {"kind": "reverse_kl"}, {"kind": "policy_gradient"}, {"kind": "group_reward"},
                {"kind": "cross_entropy", "part": "replay"},
            ],
        },
    }  # fmt: skip
    chosen = loading.parse(raw, "test")
    relative = WeakerModel(path=f"{BUILTIN}sums")
    # refused in a configuration, where it is for all sources or for none; here each signal is looked at by itself
    *others, last = chosen.sources
    chosen = chosen.model_copy(update={"sources": [*others, last.model_copy(update={"weaker": relative})]})
    pipeline.run(chosen, "rounds")
    run = RunContext(chosen)
    return RoundContext.of(run, 1, round_folder(chosen, 0) / "model").learning


def losses(one, names, numbers=None):
    """Each term of the loss before the first step, over some examples."""
    read = one.config.folder / "cache"
    sources = [training_source(one, name, Cache(read / name)) for name in names]
    objectives = one.objectives(learns_from_sources=True)
    data = one.rollout_data(sources, objectives)
    collator = TrainingCollator(one.train_examples, one.encoded("pivot"), sources, one.weighting, rollouts=data)
    batch = collator(range(len(one.train_examples)) if numbers is None else numbers)
    model, targets = load_model(ModelRef(one.config.pivot.path), "float32", "cpu"), batch.pop("targets")
    head = Head.from_model(model, len(vocabulary_bytes(one.tokenizers["pivot"])))
    with torch.no_grad():
        hidden = model.model(**batch).last_hidden_state
        loss = Loss(head, objectives, torch.nn.ModuleDict())
        return {term.name: term.mean.item() for term in loss(hidden, targets, loss.counts(targets), 0)}


def written_alike(one):
    """Numbers of the texts that the pivot wrote as its tokenizer would: the others are read in other tokens."""
    own = dataclasses.replace(one, with_replay=False)
    pairs = zip(own.encoded("pivot"), own.encoded("itself"), strict=True)
    return [n for n, (pivot, read) in enumerate(pairs) if read.input_ids[: len(pivot.input_ids)] == pivot.input_ids]


def test_a_source_that_is_the_pivot_has_nothing_to_say(one):
    alike = written_alike(one)
    assert len(alike) > 0.8 * len(one.written)
    found = losses(one, ["itself", "lumi"], alike)
    for kind in ("forward_kl", "reverse_kl", "policy_gradient"):
        assert found[f"{kind}/itself"] == pytest.approx(0, abs=1e-4 if kind == "policy_gradient" else 1e-6)
        assert abs(found[f"{kind}/lumi"]) > 1e-3


def test_a_source_that_is_its_own_weaker_relative_has_no_signal(one):
    found = losses(one, ["sums", "lumi"])
    assert found["policy_gradient/sums"] == 0
    assert found["forward_kl/sums"] > 1e-3
    assert abs(found["policy_gradient/lumi"]) > 1e-3


def test_signals_of_a_domain_have_no_mean_and_tell_how_much_can_be_compared(one):
    sources = [training_source(one, "lumi", Cache(one.config.folder / "cache/lumi"))]
    scales = one.rollout_data(sources, one.objectives(learns_from_sources=True)).scales["lumi"]
    assert scales.domains.keys() == {"sums", "sort"}
    for signal in scales.domains.values():
        assert signal.mean < 0  # minus a KL divergence
        assert 0.9 < signal.comparable <= 1  # one tokenizer of both
        assert signal.spans > 30
    assert all(1 / 4 <= factor <= 4 for factor in scales.factors(["sums", "sort"]).tolist())
    assert scales.means(["no such domain"]).tolist() == [0]


def test_the_order_of_sources_changes_nothing(one):
    assert losses(one, ["lumi", "itself"]) == pytest.approx(losses(one, ["itself", "lumi"]))
