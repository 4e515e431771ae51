"""Preferences of a tiny run: judged answers become pairs, who is asked reads them, and the pivot learns from them last."""

from __future__ import annotations

import dataclasses
import json
import math
import shutil
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file

from fusion import pipeline
from fusion.cache import Cache
from fusion.models.head import Head, hidden_states
from fusion.models.loading import ModelRef, load_model
from fusion.report.run_contents import read_run
from fusion.runtime.artifacts import write_text
from fusion.stages import train
from fusion.stages.context import RunContext
from fusion.stages.preferences import learn, pairs
from fusion.stages.preferences.answers import JudgedAnswer
from fusion.stages.preferences.context import PreferenceContext
from fusion.stages.respond import answers
from fusion.tokenizers import vocabulary_bytes
from fusion.training.loss import Loss
from tests.helpers import runs

ANSWERED = {"kind": "best_source", "max_new_tokens": 5, "truncated": "keep", "fallback": "reference"}
FINAL = {"kind": "final_answer", "compare": "text"}
PREFERENCES = {
    "objectives": [
        {"kind": "dpo", "beta": 1.0}, {"kind": "infifpo"}, {"kind": "cross_entropy", "part": "chosen", "weight": 0.1},
    ],
    "training": {"max_steps": 8, "per_device_train_batch_size": 6, "learning_rate": 1e-3, "save_steps": 3},
}  # fmt: skip


def config(folder, name, check, file=None, **changes):
    raw = runs.raw(folder, name=name, store=str(folder / "store"), strategies=["unified"], baseline=False, **changes)
    raw["data"]["responses"] = ANSWERED
    for data in raw["data"]["train"]:
        data |= {"check": check} | ({"path": file} if file else {})
    return runs.loading.parse(raw, "test")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("preferences")


@pytest.fixture(scope="module")
def references(folder):
    """Training data of which neox answers a third rightly, qwen another, and nobody the last: their file, and who was right."""
    context = RunContext(config(folder, "plain", {"kind": "ended"}))
    pipeline.run(context.config, "respond")
    written = {name: answers.answer_store(context, name).read() for name in ("neox", "qwen")}
    rows, right = [], {}
    for number, example in enumerate(context.original_examples):
        who = ("neox", "qwen", "nobody")[number % 3]
        text = written[who][example.prompt_id][0][0].strip() if who in written else "nobody's"
        right[example.prompt_id] = who
        rows.append({"prompt": example.prompt, "response": text, "domain": int(example.domain[1:])})
    write_text(folder / "references.jsonl", "\n".join(json.dumps(row) for row in rows))
    return str(folder / "references.jsonl"), right


@pytest.fixture(scope="module")
def run(folder, references):
    """A finished run, up to its preferences."""
    chosen = config(folder, "small", FINAL, references[0], preferences=PREFERENCES)
    pipeline.run(chosen, "preferences")
    return RunContext(chosen)


@pytest.fixture(scope="module")
def last(run):
    return PreferenceContext.of(run)


def test_each_pair_is_a_right_and_a_wrong_answer_to_one_prompt(run, last, references):
    written = {name: answers.answer_store(run, name).read() for name in ("neox", "qwen")}
    others = {"neox": "qwen", "qwen": "neox"}
    assert len(last.pairs) == sum(who in others for who in references[1].values())
    for pair in last.pairs:
        chosen, rejected = (last.train_examples[number] for number in (pair.chosen, pair.rejected))
        who = references[1][chosen.prompt_id]
        assert rejected.prompt_id == chosen.prompt_id
        assert chosen.response == written[who][chosen.prompt_id][0][0]
        assert rejected.response == written[others[who]][chosen.prompt_id][0][0]


def test_run_json_counts_the_pairs_and_holds_one_of_each_domain(run, last):
    found = read_run(run.config.folder).run.preferences
    pairs = [tuple(last.train_examples[n].response for n in (pair.chosen, pair.rejected)) for pair in last.pairs]
    assert sum(each.pairs for each in found) == len(pairs)
    assert {each.domain for each in found} == {"d0", "d1"}
    for each in found:
        assert (each.chosen, each.rejected) in pairs
        assert {each.chosen_by, each.rejected_by} == {"neox", "qwen"}


def test_before_the_first_step_nothing_has_moved_and_sources_say_what_their_caches_add_up_to(last):
    spec = train._training_spec(last, [], [], last.preferences.objectives, None)
    assert len(spec.collator) == len(last.pairs)
    numbers = range(len(last.pairs))
    batch = spec.collator(numbers)
    targets = batch.pop("targets")
    known = targets.preferences
    assert [info.part for info in targets.examples].count("rejected") == len(known.rejected)
    model = load_model(ModelRef(last.config.pivot.path), "float32", "cpu")
    head = Head.from_model(model, len(vocabulary_bytes(last.tokenizers["pivot"])))
    with torch.inference_mode():
        loss = Loss(head, spec.objectives, torch.nn.ModuleDict())
        terms = {term.name: term for term in loss(hidden_states(model, **batch), targets, loss.counts(targets))}
    assert terms["dpo"].mean.item() == pytest.approx(math.log(2), abs=1e-4)
    assert terms["dpo"].metrics["dpo/margins"].item() == pytest.approx(0, abs=1e-3)
    infifpo = terms["infifpo"].metrics["infifpo/margins"].item()
    assert infifpo <= 0, "with clipping the sources are at least as sure of what is right"
    for name in ("neox", "qwen"):
        model = load_model(last.models[name].ref, "float32", "cpu")
        for number, logprob in enumerate(known.source_logprobs[name][:4].tolist()):
            encoded = last.encoded(name)[last.ids.index(targets.examples[number].id)]
            ids = torch.tensor([encoded.input_ids])
            said = model(input_ids=ids).logits[0, :-1].log_softmax(-1).gather(1, ids[0, 1:, None])[:, 0]
            # the end of an answer may be said in several tokens, and is at least as likely as one of them
            *before, end = said[encoded.start - 1 :].tolist()
            assert logprob >= sum(before) + end - 1e-3
            assert known.source_tokens[name][number] == len(encoded.input_ids) - encoded.start


def test_an_answer_that_does_not_fit_in_a_readers_tokens_is_in_no_pair(last):
    example = last.train_examples[0]
    half = dataclasses.replace(example, response=" ".join([example.response] * 2000))
    assert pairs._reads(last, "neox", example)
    assert not pairs._reads(last, "neox", half)
    prompt = JudgedAnswer(example, frozenset({"neox"}), True), JudgedAnswer(half, frozenset({"neox"}), False)
    assert [each.example for each in pairs._readable(last, prompt)] == [example]
    assert pairs._readable(last, prompt[:1]) == [], "with nothing wrong there is nothing to read"


def test_a_source_that_does_not_know_every_token_is_refused_before_the_pivot_trains(last, monkeypatch):
    known = Cache(last.config.folder / "cache" / "neox").known_fields
    blind = dataclasses.replace(known, gold=known.gold - 3)
    monkeypatch.setattr(learn, "Cache", lambda _: SimpleNamespace(known_fields=blind))
    with pytest.raises(ValueError, match=r"^preferences.objectives\[1\] \(infifpo\) .* 3 of \d+ rows of source neox"):
        learn.refuse_unread(last)


def test_the_pivot_learns_which_answers_are_right_and_is_the_result(run):
    log = json.loads((run.config.folder / "preferences/train/unified/log.json").read_text())
    assert log[0]["dpo/margins"] == pytest.approx(0, abs=1e-3)
    assert log[-1]["dpo/margins"] > 0.1
    assert log[-1]["dpo/accuracies"] > log[0]["dpo/accuracies"]
    fused = load_file(run.config.folder / "fused/model.safetensors")
    made, before = (
        load_file(run.config.folder / place / "model/model.safetensors")
        for place in ("preferences/train/unified", "train/unified")
    )
    assert all(torch.equal(fused[name], made[name]) for name in made)
    assert any(not torch.equal(before[name], made[name]) for name in made)
    assert run.config.results == ["unified", "preferences"]


def test_a_finished_run_does_nothing_again(run):
    files = [*(run.config.folder / "preferences").rglob("*.safetensors")]
    before = {file: file.stat().st_mtime_ns for file in files}
    pipeline.run(run.config, "preferences")
    assert {file: file.stat().st_mtime_ns for file in files} == before
    stages = {stage["name"]: stage["skipped"] for stage in run.record.read()["stages"]}
    assert [stages[f"preferences: {name}"] for name in ("pair", "pivot reads", "neox reads", "train")] == [True] * 4


def test_a_killed_training_ends_with_the_same_weights(run, monkeypatch):
    from transformers import TrainerCallback

    class Stop(TrainerCallback):
        def on_step_begin(self, args, state, control, **_):
            if state.global_step == 4:
                raise KeyboardInterrupt

    place = run.config.folder / "preferences/train/unified"
    straight = load_file(place / "model/model.safetensors")
    for made in place.iterdir():
        if made.name not in ("key.json", "lock"):
            shutil.rmtree(made) if made.is_dir() else made.unlink()
    with monkeypatch.context() as patch:
        patch.setattr(train, "training_bar", lambda title: [Stop()])
        with pytest.raises(KeyboardInterrupt):
            pipeline.run(run.config, "preferences")
    assert (place / "checkpoint-3").exists()
    assert not (place / "model").exists()
    pipeline.run(run.config, "preferences")
    again = load_file(place / "model/model.safetensors")
    assert all(torch.equal(again[name], weight) for name, weight in straight.items())


def test_where_nobody_is_right_the_run_stops_before_it_trains(folder):
    never = [{"prompt": f"number {i}: ", "response": "nobody's", "domain": i % 2} for i in range(16)]
    write_text(folder / "never.jsonl", "\n".join(map(json.dumps, never)))
    nobody = config(folder, "nobody", FINAL, str(folder / "never.jsonl"), preferences=PREFERENCES)
    with pytest.raises(ValueError, match="no prompt has both: of 16 prompts all answers to 0 pass their check"):
        pipeline.run(nobody, "preferences")
    assert not (nobody.folder / "train").exists()


def test_where_no_writer_is_both_right_and_wrong_the_run_stops_with_how_many_are_right(folder, references):
    alone = config(
        folder, "alone", FINAL, references[0],
        preferences={"objectives": [{"kind": "dpo"}], "same_writer": True},
        training={"max_steps": 1, "save_strategy": "no"},
    )  # fmt: skip
    with pytest.raises(
        ValueError, match=r"no pair .* that all can read. Right and wrong answers: \d+ and \d+ in d0, \d+ and \d+ in d1"
    ):
        pipeline.run(alone, "preferences")
