"""A plan counts what is read: what prompts begin with once a shard, as models read it, and answers where they are written."""

import pytest

from fusion.models.loading import load_model
from fusion.models.shared_prefix import prefix_groups
from fusion.plan import plan
from fusion.plan.counts import training_counts
from fusion.plan.flops import Counts
from fusion.plan.response_costs import generation_counts, reading_counts
from fusion.stages.context import RunContext
from tests.helpers import runs

SHOTS = {domain: f"{domain} the lazy dog: a quick fox\n12 + 30: it is 42\n" * 4 + "\n" for domain in ("d0", "d1")}


@pytest.fixture(scope="module")
def context(tmp_path_factory):
    """A run whose source neox has worked examples of each domain; shards of five texts."""
    raw = runs.raw(tmp_path_factory.mktemp("shared"))
    raw["sources"][0]["shots"] = SHOTS
    return RunContext(runs.loading.parse(raw, "test"))


def read(context, name):
    """Tokens that a model reads of all shards, and of them those of beginnings that are read once."""
    model, tokens, squares = load_model(context.models[name].ref), 0, 0
    ids, size = sorted(context.ids), context.config.extract.shard_size
    for begin in range(0, len(ids), size):
        texts = [context.encoded(name)[context.ids.index(id)] for id in ids[begin : begin + size]]
        for group, shared in prefix_groups(model, [t.input_ids for t in texts], [t.start - 1 for t in texts]):
            prefix = shared.length if shared else 0
            lengths = [len(texts[n].input_ids) for n in group]
            tokens += prefix + sum(length - prefix for length in lengths)
            squares += prefix**2 + sum((length - prefix) * length for length in lengths)
    return tokens, squares


@pytest.mark.parametrize(("name", "shares"), [("neox", True), ("qwen", False), ("pivot", False)])
def test_tokens_and_attention_are_those_of_what_models_read(context, name, shares):
    counts = training_counts(context, name, from_settings=False, once=True)
    assert (counts.tokens, counts.squared_lengths) == read(context, name)
    lengths = [len(text.input_ids) for text in context.encoded(name)]
    assert counts.whole() == Counts(16, sum(lengths), sum(n**2 for n in lengths), counts.rows, max(lengths))
    assert (counts.tokens < 0.6 * sum(lengths)) == shares
    assert training_counts(context, name, from_settings=False) == counts.whole()


def test_a_backend_that_reads_each_text_whole_is_counted_so(context, monkeypatch):
    monkeypatch.setattr(type(context.backend("neox")), "shares_prefixes", False)
    counts = training_counts(context, "neox", from_settings=False, once=True)
    assert counts.tokens == sum(len(text.input_ids) for text in context.encoded("neox"))


TEXTS = Counts(
    10, 10 * 60 - 9 * 30, 0, 10 * 20, 80, shared_tokens=9 * 30
)  # prompts of 40, of which 27 are not read on average


def test_answers_have_prompts_whose_beginning_is_read_once():
    whole = generation_counts(TEXTS.whole(), 5, 2, 8)
    once = generation_counts(TEXTS, 5, 2, 8)
    assert (whole.tokens, once.tokens) == (5 * 40 + 5 * 2 * 8, 5 * 13 + 5 * 2 * 8)
    assert once.longest == whole.longest == 48
    assert once.whole() == whole
    assert once.squared_lengths == 5 * 2 * 48 * (48 - 27)
    assert reading_counts(TEXTS, 5, 8).tokens == 5 * (13 + 8)


def test_sums_and_parts_keep_what_is_shared():
    twice = TEXTS + TEXTS
    assert twice.scaled(10) == TEXTS
    assert twice.whole() == TEXTS.whole() + TEXTS.whole()


def evaluated(folder, **evaluation):
    found = plan(RunContext(runs.config(folder, evaluation=evaluation)))
    return next(estimate for estimate in found.stages if estimate.stage == "evaluate pivot")


def test_answers_to_held_out_examples_are_counted_where_they_are_asked_for(tmp_path):
    none, one, both = (evaluated(tmp_path, exact_match=d, max_new_tokens=50) for d in ([], ["d0"], ["d0", "d1"]))
    assert one.tokens - none.tokens >= 3 * 50
    assert both.tokens - none.tokens == pytest.approx(2 * (one.tokens - none.tokens), rel=0.05)
    assert both.flops > one.flops > none.flops
    assert one.memory.activations > none.memory.activations
    assert (one.examples, one.disk) == (none.examples, none.disk)


def test_from_settings_answers_are_those_of_the_data_sets_that_are_asked_for(tmp_path):
    raw = runs.raw(tmp_path, plan={"tokens": 30, "response": 20, "examples": 16})
    for number, data in enumerate(raw["data"]["heldout"]):
        data["limit"] = 2 + number
    tokens = []
    for heldout, domains in ((None, []), (None, ["d1"]), (9, ["d1"]), (9, ["d0", "d1"])):
        config = runs.loading.parse(raw | {"evaluation": {"exact_match": domains, "max_new_tokens": 4}}, "test")
        config = config.model_copy(update={"plan": config.plan.model_copy(update={"heldout": heldout})})
        found = next(each for each in plan(RunContext(config)).stages if each.stage == "evaluate pivot")
        tokens.append(found.tokens)
    assert tokens == [5 * 30, 5 * 30 + 3 * 14, 9 * 30 + 3 * 14, 9 * 30 + 5 * 14]
