"""A run that learns from the answers that fit its pivot: what the pivot reads, what is chosen, kept and planned."""

import json
import math

import pytest
import torch

from fusion import pipeline
from fusion.config.loading import ConfigError
from fusion.data.encode import encode
from fusion.models.loading import load_model
from fusion.plan import plan
from fusion.responses import TOO_LONG
from fusion.sources.transformers_source import TransformersSource
from fusion.stages.context import RunContext
from fusion.stages.respond import answers, reads
from tests.helpers import runs

SAMPLED = {"kind": "best_source", "max_new_tokens": 5, "truncated": "keep", "samples": 2, "temperature": 1.0}


def config(folder, name="fitting", prefer="least_rsr", max_length=1024, sources=2, **how):
    raw = runs.raw(folder, name=name, store=str(folder / "store"))
    raw["sources"] = raw["sources"][:sources]
    raw["data"] |= {"responses": SAMPLED | {"prefer": prefer} | how, "max_length": max_length}
    return runs.loading.parse(raw, "test")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("fitting")


@pytest.fixture(scope="module")
def fitting(folder):
    return RunContext(config(folder, name=pipeline.run(config(folder), "respond").name))


def fits_of(context):
    """What the pivot made of each answer, with its prompt, writer and text."""
    prompts, fits = {e.prompt_id: e for e in context.original_examples}, reads.score_store(context, "pivot").read()
    for name in context.responding.sources:
        for id, samples in answers.answer_store(context, name).read().items():
            for (text, _), fit in zip(samples, fits[id][name], strict=True):
                yield prompts[id], name, text, fit


def slowly(model, tokenizer, example, text):
    """Both numbers from the whole distribution at each token of the response."""
    encoded, size = encode(tokenizer, example.messages, text), len(text.encode())
    logprobs = model(torch.tensor([encoded.input_ids])).logits[0, :, : len(tokenizer)].log_softmax(-1)
    nats, ranks = 0.0, 0
    for number, prefix in enumerate(encoded.prefix):
        if prefix < size:
            row, token = logprobs[encoded.start - 1 + number], encoded.input_ids[encoded.start + number]
            nats, ranks = nats + row[token].item(), ranks + min(1 + int((row > row[token]).sum()), 100)
    return nats / size, ranks / -nats


def test_the_pivot_reads_every_answer_of_every_source_as_a_slow_loop_does(fitting):
    model, tokenizer = load_model(fitting.models["pivot"].ref), fitting.tokenizers["pivot"]
    read = list(fits_of(fitting))
    assert len(read) == 16 * 2 * 2
    assert {name for _, name, _, _ in read} == {"neox", "qwen"}
    for example, _, text, fit in read:
        expected = pytest.approx(slowly(model, tokenizer, example, text), rel=1e-4) if text else None
        assert fit == expected


@pytest.mark.parametrize("prefer", ["likeliest", "least_rsr"])
def test_what_is_learned_from_fits_best_whichever_source_wrote_it(folder, fitting, prefer):
    made = config(folder, name=prefer, prefer=prefer)
    pipeline.run(made, "respond")
    context, best = RunContext(made), {}
    for example, _, text, fit in fits_of(context):
        if text.strip():
            value = -fit[0] if prefer == "likeliest" else fit[1]
            best[example.prompt_id] = min(best.get(example.prompt_id, (math.inf, "")), (value, text))
    assert {e.prompt_id: e.response for e in context.train_examples} == {id: text for id, (_, text) in best.items()}
    chosen = {c["source"] for c in json.loads((made.folder / "run.json").read_text())["responses"] if c["chosen"]}
    assert chosen == {"neox", "qwen"}


def test_answers_and_reads_serve_either_preference_and_nothing_is_read_twice(folder, fitting, monkeypatch):
    monkeypatch.setattr(answers, "source_request", None)
    made = config(folder, name="shared", prefer="likeliest")
    pipeline.run(made, "respond")
    stages = {s["name"]: s["skipped"] for s in json.loads((made.folder / "run.json").read_text())["stages"]}
    assert stages["read responses pivot"]
    with pytest.raises(ValueError, match=r"responses/chosen was made from something else: .*prefer: .*likeliest"):
        pipeline.run(config(folder, name="shared", prefer="first"), "respond")


def test_a_reading_that_was_stopped_goes_on_where_it_was(folder, fitting, monkeypatch):
    store = reads.score_store(fitting, "pivot")
    first, whole, read, rows = store.missing(), store.read(), [], TransformersSource.rows
    (store.folder / "done.json").unlink()
    next(store.folder.glob("shard-00001-*")).unlink()

    def counted(self, texts, *rest):
        read.extend(texts)
        return rows(self, texts, *rest)

    monkeypatch.setattr(TransformersSource, "rows", counted)
    assert reads.score_answers(fitting, "pivot")
    assert first == []
    assert 0 < len(read) <= len(store.shard_ids(1)) * 4
    assert reads.score_store(fitting, "pivot").read() == whole


def test_few_answers_at_once_change_nothing(folder, fitting, monkeypatch):
    monkeypatch.setattr(reads, "READ_AT_ONCE", 3)
    texts = [(e, text) for e, name, text, _ in fits_of(fitting) if name == "neox"]
    source = fitting.backend("pivot").open(answers.source_request(fitting, "pivot", 100))
    found = reads._scores(fitting, "pivot", source, texts)
    for fit, (_, _, _, expected) in zip(found, fits_of(fitting), strict=False):
        assert list(fit) == pytest.approx(expected, rel=1e-5)


def test_an_answer_beyond_what_the_pivot_would_learn_fits_least(folder, fitting):
    read = [(e, text) for e, _, text, _ in fits_of(fitting) if text]
    lengths = [len(encode(fitting.tokenizers["pivot"], e.messages, text).input_ids) for e, text in read]
    limit = sorted(lengths)[len(lengths) // 2]
    made = config(folder, name="short", max_length=limit)
    pipeline.run(made, "respond")
    fits = [tuple(fit) for *_, fit in fits_of(RunContext(made)) if fit is not None]
    assert [fit == TOO_LONG for fit in fits] == [length > limit for length in lengths]
    assert 0 < fits.count(TOO_LONG) < len(fits)
    (made.folder / "responses/pivot-reads").unlink()  # as the message about it says; it is a link into the store
    with pytest.raises(ValueError, match="responses/chosen was made from something else: reads"):
        pipeline.run(config(folder, name="short", max_length=limit + 1), "respond")


def test_a_plan_counts_what_the_pivot_reads(folder):
    stages = {stage.stage: stage for stage in plan(RunContext(config(folder, name="planned"))).stages}
    read = stages["read responses pivot"]
    assert (read.examples, read.flops is not None) == (16 * 2 * 2, True)
    assert read.tokens > 16 * 2 * 2 * 5
    without = plan(RunContext(config(folder, name="planned", prefer="first"))).stages
    assert "read responses pivot" not in {stage.stage for stage in without}


@pytest.mark.parametrize(("changes", "message"), [
    ({"samples": 1, "sources": 1}, "prefer is least_rsr, and there is one answer to each prompt to choose from: one source"),
    ({"samples": 1, "keep": "all"}, "to choose from: keep: all takes the best source's, and samples is 1; raise samples"),
    ({"prefer": "least_rrs"}, "least_rsr"),
])  # fmt: skip
def test_a_preference_with_nothing_to_prefer_is_refused(folder, changes, message):
    with pytest.raises(ConfigError, match=message):
        config(folder, **changes)


def test_a_preference_with_something_to_prefer_is_not(folder):
    assert config(folder, samples=1).data.responses.prefer == "least_rsr"
    assert config(folder, sources=1).data.responses.prefer == "least_rsr"
    assert config(folder, keep="all").data.responses.prefer == "least_rsr"


def test_no_source_takes_the_name_of_the_pivot_s_reads(folder):
    raw = runs.raw(folder)
    raw["sources"][0]["name"] = "Pivot-reads"
    with pytest.raises(ConfigError, match="no source may be called Pivot-reads: what Pivot makes of answers is kept"):
        runs.loading.parse(raw, "test")
