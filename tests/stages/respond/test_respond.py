"""A run that learns from what its sources write: asked, checked, chosen, kept, resumed."""

import json
from concurrent.futures import ThreadPoolExecutor, wait

import pytest
import torch

from fusion import pipeline
from fusion.config.loading import ConfigError
from fusion.data.encode import encode, encode_prompt
from fusion.models.loading import load_model
from fusion.plan import plan
from fusion.runtime.artifacts import OtherInputsError
from fusion.runtime.console import silence
from fusion.sources.transformers_source import TransformersGenerator
from fusion.stages import extract
from fusion.stages.context import CHOSEN, RunContext
from fusion.stages.respond import answers, choose, reads
from fusion.tokenizers import decode_text
from tests.helpers import runs

WRITTEN = {"kind": "best_source", "max_new_tokens": 5, "truncated": "keep"}


def config(folder, name="answered", check=None, how=WRITTEN, response="{response}", **changes):
    raw = runs.raw(folder, name=name, **changes)
    raw["data"]["responses"] = how
    for data in raw["data"]["train"]:
        data |= {"check": check or {"kind": "ended"}, "response": response}
    return runs.loading.parse(raw, "test")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("answered")


@pytest.fixture(scope="module")
def answered(folder):
    return pipeline.run(config(folder), "respond")


def answers_of(context, name):
    return answers.answer_store(context, name).read()


def test_every_prompt_is_answered_by_every_source(folder, answered):
    context = RunContext(config(folder))
    for name in ("neox", "qwen"):
        found = answers_of(context, name)
        assert found.keys() == {example.prompt_id for example in context.original_examples}
        model, tokenizer = load_model(context.models[name].ref), context.tokenizers[name]
        for example in context.original_examples[:3]:
            ids = torch.tensor([encode_prompt(tokenizer, example.messages).ids])
            out = model.generate(ids, max_new_tokens=5, do_sample=False)[0, ids.shape[1] :]
            assert found[example.prompt_id][0][0] == decode_text(tokenizer, out.tolist())


def test_what_is_learned_from_is_what_the_best_source_wrote(folder, answered):
    context = RunContext(config(folder))
    first = answers_of(context, "neox")
    assert [e.prompt_id for e in context.train_examples] == [
        e.prompt_id for e in context.original_examples
    ]  # all pass, so the first source is the best
    assert all(
        e.response == first[e.prompt_id][0][0] != asked.response
        for e, asked in zip(context.train_examples, context.original_examples, strict=True)
    )
    record = json.loads((answered / "run.json").read_text())["responses"]
    assert [(c["source"], c["domain"], c["prompts"], c["passed"], c["chosen"]) for c in record] == [
        ("neox", "d0", 8, 8, 8), ("neox", "d1", 8, 8, 8), ("qwen", "d0", 8, 8, 0), ("qwen", "d1", 8, 8, 0),
    ]  # fmt: skip


def test_progress_of_what_is_gone_on_with_counts_what_is_there(folder):
    context, heard = RunContext(config(folder, name="resumed")), []
    pipeline.run(context.config, "extract")
    kept, cache = answers.answer_store(context, "qwen"), extract.cache_writer(context, "qwen")
    for file in ("done.json", kept._file(1).name):
        (kept.folder / file).unlink()
    for file in ("manifest.json", cache._file(1).name):
        (cache.folder / file).unlink()
    with silence(heard.append):
        pipeline.run(context.config, "extract")
    assert heard[0] == "answers of qwen, 11 of 16 prompts"  # shards of 5
    for said in ("answers of qwen, ", "rows of qwen, "):
        counts = [line.removeprefix(said).split()[:3:2] for line in heard if line.startswith(said)]
        (first, total), (last, _) = counts[0], counts[-1]
        assert 0 < int(first) < int(last) == int(total)


def test_two_starts_that_answer_together_choose_one_after_the_other(folder, answered, monkeypatch):
    chosen, waits = answered / "responses/chosen", []
    (chosen / "done.json").unlink()
    context, claim = RunContext(config(folder)), choose.claim_artifact

    def slow_claim(*arguments):
        if not waits:
            waits.append(pool.submit(choose.choose_responses, RunContext(config(folder))))
            assert not wait(waits, timeout=1).done
        return claim(*arguments)

    monkeypatch.setattr(choose, "claim_artifact", slow_claim)
    with ThreadPoolExecutor() as pool:
        assert choose.choose_responses(context)
        assert not waits[0].result()
    assert (chosen / "key.json").exists()
    assert (chosen / "done.json").exists()


def test_a_second_time_nothing_is_asked(folder, answered, monkeypatch):
    monkeypatch.setattr(answers, "source_request", None)
    pipeline.run(config(folder), "respond")
    stages = {s["name"]: s["skipped"] for s in json.loads((answered / "run.json").read_text())["stages"]}
    assert stages == {"respond neox": True, "respond qwen": True, "choose responses": True}


def test_a_run_that_was_stopped_asks_only_what_is_missing(folder, answered, monkeypatch):
    context = RunContext(config(folder, name="stopped"))
    kept = answers.answer_store(context, "neox")
    for number in range(kept.shards - 1):
        kept.write(number, [[["kept", True]] for _ in kept.shard_ids(number)])
    asked, whole = [], TransformersGenerator.generate

    def counted(self, prompts, *rest):
        asked.extend(prompts)
        return whole(self, prompts, *rest)

    monkeypatch.setattr(TransformersGenerator, "generate", counted)
    answers.generate_answers(context, "neox")
    assert len(asked) == len(kept.shard_ids(kept.shards - 1))
    assert [["kept", True]] in answers_of(context, "neox").values()


def test_a_whole_run_trains_on_the_answers_with_all_sources_rows(folder):
    made = pipeline.run(config(folder, name="whole", strategies=["unified"]))
    context = RunContext(config(folder, name="whole", strategies=["unified"]))
    assert json.loads((made / "run.json").read_text())["data"]["train"] == {"d0": 8, "d1": 8}
    log = json.loads((made / "train/unified/log.json").read_text())
    assert all(entry["loss/forward_kl/qwen"] > 0 for entry in log)
    assert extract.cache_writer(context, "qwen").ids == sorted({example.id for example in context.train_examples})
    assert "written by neox" in (made / "fused/README.md").read_text()
    assert "Responses" in (made / "report.html").read_text()


def test_another_training_of_the_same_answers_shares_them_in_a_store(folder, tmp_path):
    store = str(tmp_path / "store")
    first = pipeline.run(config(folder, name="one", store=store), "respond")
    second = pipeline.run(config(folder, name="two", store=store, seed=7), "respond")
    assert (first / "responses/neox").resolve() == (second / "responses/neox").resolve()
    other = pipeline.run(config(folder, name="three", store=store, how=WRITTEN | {"max_new_tokens": 4}), "respond")
    assert (first / "responses/neox").resolve() != (other / "responses/neox").resolve()


def test_every_source_gives_its_own_examples(folder):
    how = {"kind": "every_source", "max_new_tokens": 5, "truncated": "keep", "samples": 2, "temperature": 1.0}
    pipeline.run(config(folder, name="every", how=how), "respond")
    context = RunContext(config(folder, name="every", how=how))
    of = {name: answers_of(context, name) for name in ("neox", "qwen")}
    assert all(len(samples) == 2 for found in of.values() for samples in found.values())
    expected = {(id, samples[0][0]) for found in of.values() for id, samples in found.items() if samples[0][0].strip()}
    assert expected <= {(e.prompt_id, e.response) for e in context.train_examples}


def test_prompts_need_no_responses_of_their_own(folder):
    made = config(folder, name="unlabelled", response=None)
    pipeline.run(made, "respond")
    assert [e.response for e in RunContext(made).original_examples] == [""] * 16
    assert all(e.response for e in RunContext(made).train_examples)


def test_the_other_sources_read_what_is_to_be_likely(folder):
    check = {"kind": "likelihood", "min_logprob_per_byte": -9}
    made = config(folder, name="read", check=check)
    pipeline.run(made, "respond")
    context = RunContext(made)
    found = reads.score_store(context, "qwen").read()
    model, tokenizer = load_model(context.models["qwen"].ref), context.tokenizers["qwen"]
    for example in context.train_examples[:4]:
        text = encode(tokenizer, example.messages, example.response)
        logits = model(torch.tensor([text.input_ids])).logits[0, :, : len(tokenizer)].log_softmax(-1)
        size = len(example.response.encode())
        inside = [n for n, prefix in enumerate(text.prefix) if prefix < size]
        nats = sum(logits[text.start - 1 + n, text.input_ids[text.start + n]].item() for n in inside)
        assert found[example.prompt_id] == {"neox": [pytest.approx(nats / size, rel=1e-4)]}


def test_the_source_that_finds_the_references_likeliest_writes_all_answers_of_an_open_ended_domain(folder):
    raw = runs.raw(folder, name="references")
    raw["data"]["responses"] = WRITTEN | {"keep": "all"}
    known = raw["data"]["train"][0] | {"domain": "d", "limit": 3, "check": {"kind": "knows_reference"}}
    bare = raw["data"]["train"][1] | {"domain": "d", "response": None}
    raw["data"]["train"] = [known, bare | {"check": {"kind": "agreement", "compare": "text", "share": 0.9}}]
    made = runs.loading.parse(raw, "test")
    pipeline.run(made, "respond")
    context, likelihood = RunContext(made), {}
    for name in ("neox", "qwen"):
        found = reads.score_store(context, name).read()
        likelihood[name] = [_nats_a_byte(context, name, example) for example in context.original_examples[:3]]
        asked = [found[example.prompt_id] for example in context.original_examples]
        read = [{reads.REFERENCES: [pytest.approx(each, rel=1e-4)]} for each in likelihood[name]]
        assert asked == [*read, *[{reads.REFERENCES: []}] * (len(asked) - 3)]
    wins = sum(neox > qwen for neox, qwen in zip(*likelihood.values(), strict=True))
    best = answers_of(context, "neox" if wins > 3 - wins else "qwen")
    assert [e.response for e in context.train_examples] == [
        best[e.prompt_id][0][0] for e in context.original_examples if best[e.prompt_id][0][0].strip()
    ]
    assert {stage.stage: stage for stage in plan(context).stages}["read responses qwen"].examples == 3


def _nats_a_byte(context, name, example):
    """Log-probability of the data's own response under a model, from the whole distribution at each token."""
    model, tokenizer = load_model(context.models[name].ref), context.tokenizers[name]
    text, size = encode(tokenizer, example.messages, example.response), len(example.response.encode())
    logits = model(torch.tensor([text.input_ids])).logits[0, :, : len(tokenizer)].log_softmax(-1)
    inside = [n for n, prefix in enumerate(text.prefix) if prefix < size]
    return sum(logits[text.start - 1 + n, text.input_ids[text.start + n]].item() for n in inside) / size


def test_nothing_that_passes_is_an_error_with_the_counts(folder):
    made = config(folder, name="strict", check={"kind": "final_answer"})
    said = r"For example, neox answered '.*', where the data has '.*'\. If that is right, choose another check"
    message = rf"nothing to learn from: 0 of 8 answers of neox in d0.*{said}.*responses.fallback"
    with pytest.raises(ValueError, match=message):
        pipeline.run(made, "respond")
    again = config(folder, name="strict", check={"kind": "final_answer"}, how=WRITTEN | {"fallback": "reference"})
    pipeline.run(again, "respond")
    assert [e.response for e in RunContext(again).train_examples] == [
        e.response for e in RunContext(again).original_examples
    ]


def test_answers_that_are_cut_off_are_left_out_unless_they_are_wanted(folder):
    made = config(folder, name="cut", how=WRITTEN | {"truncated": "leave_out", "fallback": "reference"})
    pipeline.run(made, "respond")
    ended = {
        id
        for n in ("neox", "qwen")
        for id, [[text, end]] in answers_of(RunContext(made), n).items()
        if end and text.strip()
    }
    kept = {
        e.prompt_id
        for e, asked in zip(RunContext(made).train_examples, RunContext(made).original_examples, strict=True)
        if e.response != asked.response
    }
    assert kept == ended


def test_another_way_to_answer_is_refused_once_for_all_sources(folder, answered):
    made = config(folder, how=WRITTEN | {"max_new_tokens": 4})
    with pytest.raises(OtherInputsError, match="max_new_tokens: 5 there, 4 here") as refused:
        pipeline.run(made, "respond")
    assert [path.name for path in refused.value.paths] == ["neox", "qwen"]
    assert made.folder / "responses/chosen" in refused.value.following


def test_another_check_is_told_from_what_was_chosen_before(folder, answered):
    with pytest.raises(ValueError, match="responses/chosen was made from something else: checks"):
        pipeline.run(config(folder, check={"kind": "agreement", "compare": "text"}), "respond")


def test_without_answers_there_is_nothing_to_train_on(folder):
    context = RunContext(config(folder, name="fresh"))
    with pytest.raises(ValueError, match=rf"{CHOSEN}/examples.jsonl is not there.*Run `fusion respond` first"):
        context.train_examples  # noqa: B018


def test_held_out_prompts_are_refused_whatever_their_response(folder):
    raw = runs.raw(folder, name="shared")
    raw["data"]["responses"] = WRITTEN
    raw["data"]["train"].append({**raw["data"]["heldout"][0], "response": "another {response}"})
    made = runs.loading.parse(raw, "test")
    with pytest.raises(ValueError, match="held-out examples ask what is also in the training data"):
        RunContext(made).heldout_examples  # noqa: B018


def test_the_plan_counts_what_is_written_at_most(folder):
    context = RunContext(config(folder, name="planned"))
    stages = {stage.stage: stage for stage in plan(context).stages}
    for name in ("neox", "qwen"):
        prompts = {
            e.prompt_id: len(encode_prompt(context.tokenizers[name], e.messages).ids) for e in context.original_examples
        }
        found = stages[f"respond {name}"]
        assert (found.examples, found.tokens) == (16, sum(prompts.values()) + 16 * 5)
    assert stages["train unified"].examples == 16
    every = config(
        folder, name="planned", how={"kind": "every_source", "samples": 2, "temperature": 1.0, "max_new_tokens": 5}
    )
    twice = {stage.stage: stage for stage in plan(RunContext(every)).stages}
    assert twice["respond neox"].tokens == stages["respond neox"].tokens + 16 * 5
    assert twice["train unified"].examples == 32
    read = config(folder, name="planned", check={"kind": "likelihood", "min_logprob_per_byte": -1})
    assert {stage.stage: stage for stage in plan(RunContext(read)).stages}["read responses qwen"].examples == 16


@pytest.mark.parametrize(("changes", "message"), [
    ({"how": "reference", "response": None}, r"data.train\[0\] has prompts alone.*data.responses: best_source"),
    ({"how": WRITTEN | {"sources": ["neox", "absent"]}}, "data.responses.sources names absent; sources are neox, qwen"),
    ({"check": {"kind": "final_answer"}, "response": None}, r"data.train\[0\].check final_answer compares with the response"),
    ({"check": {"kind": "tests"}}, r"data.train\[0\].check tests runs data.train\[0\].tests, which is not set"),
    ({"how": WRITTEN | {"samples": 2}}, "2 samples at temperature 0 are all the same"),
    ({"how": "best_sorce"}, "data.responses.kind: there is no best_sorce; did you mean best_source"),
])  # fmt: skip
def test_what_cannot_be_is_refused_when_it_is_read(folder, changes, message):
    with pytest.raises(ConfigError, match=message):
        config(folder, **changes)


def test_more_that_cannot_be(folder):
    raw = runs.raw(folder)
    raw["data"]["responses"] = "best_source"
    assert runs.loading.parse(raw, "test").data.responses.kind == "best_source"
    raw["data"]["train"][0] |= {"check": {"kind": "tests"}, "tests": "{response}"}
    with pytest.raises(ConfigError, match="set allow_code_execution: true there"):
        runs.loading.parse(raw, "test")
    raw["data"]["train"][0] |= {"check": {"kind": "likelihood", "min_logprob_per_byte": -1}, "tests": None}
    with pytest.raises(ConfigError, match="asks the other sources, and there is one source only"):
        runs.loading.parse({**raw, "sources": raw["sources"][:1]}, "test")
    sources = [raw["sources"][0], {**raw["sources"][1], "backend": {"kind": "imported"}}]
    with pytest.raises(ConfigError, match="source qwen has backend imported, which writes no answers"):
        runs.loading.parse({**raw, "sources": sources}, "test")
    raw["data"]["train"][0] |= {"check": {"kind": "ended"}, "as_raw_text": True}
    with pytest.raises(ConfigError, match=r"data.train\[0\] is as_raw_text: it has no prompts"):
        runs.loading.parse(raw, "test")
    raw["data"]["heldout"][0]["response"] = None
    with pytest.raises(ConfigError, match=r"data.heldout\[0\] has prompts alone \(response: null\); give responses"):
        runs.loading.parse(raw, "test")


def test_the_baseline_learns_from_the_data_s_own_responses(folder):
    plain = pipeline.run(config(folder, name="plain", how="reference", strategies=["unified"]), "train")
    made = pipeline.run(config(folder, name="against", strategies=["unified"]), "train")
    read = [json.loads((run / "train/fine-tuned/log.json").read_text()) for run in (plain, made)]
    assert read[0] == read[1]
    counted = [json.loads((run / "run.json").read_text())["data"]["fine_tuned"] for run in (plain, made)]
    assert counted == [{}, {"d0": 8, "d1": 8}]
    other = [json.loads((run / "train/unified/log.json").read_text()) for run in (plain, made)]
    assert other[0][0]["loss/cross_entropy"] != other[1][0]["loss/cross_entropy"]
    unlabelled = RunContext(config(folder, name="unlabelled", response=None))
    assert unlabelled.baseline_context is unlabelled


def test_the_easiest_are_those_of_the_data_s_own_responses(folder):
    raw = runs.raw(folder)
    raw["data"] |= {"responses": WRITTEN, "easiest_fraction": 0.5}
    with pytest.raises(ConfigError, match="data.easiest_fraction is for the data's own responses"):
        runs.loading.parse(raw, "test")


def test_where_all_answers_are_cut_the_error_says_so_and_what_keeps_them(folder):
    made = config(folder, name="all-cut", how=WRITTEN | {"max_new_tokens": 1, "truncated": "leave_out"})
    message = (
        r"32 of 32 answers were left out before any check, for they are empty or were cut at max_new_tokens = 1: .*"
        r"data.responses.truncated: keep"
    )
    with pytest.raises(ValueError, match=message):
        pipeline.run(made, "respond")
