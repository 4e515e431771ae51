"""A run on entries drawn at random: the same cache whenever it is made, and a training that reads it."""

import json

import pytest
import torch

from fusion import pipeline, plan
from fusion.alignment.tokenizer_pair import vocabulary_map
from fusion.analysis.cache_contents import describe_cache
from fusion.cache import Cache
from fusion.config.loading import ConfigError
from fusion.data.prompt_format import PromptFormat
from fusion.stages import train
from fusion.stages.context import RunContext
from tests.helpers import runs

SAMPLED = {"sampling": {"draws": 30}, "shard_size": 5, "batch_tokens": 256}
OBJECTIVES = [{"kind": "cross_entropy", "weight": 0.5}, {"kind": "forward_kl", "weight": 0.5}]


def config(folder, name="small", objectives=OBJECTIVES, **extract):
    raw = {**SAMPLED, **extract}
    return runs.config(folder, name=name, extract=raw, objectives=objectives)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("sampled")


@pytest.fixture(scope="module")
def trained(folder):
    return pipeline.run(config(folder), "train")


def bytes_of(run):
    return {file.name: file.read_bytes() for file in (run / "cache/qwen").iterdir() if file.name != "claims"}


def test_the_same_seed_gives_the_same_cache_byte_for_byte(folder, trained):
    again = pipeline.run(config(folder, "again"), "extract")
    assert bytes_of(trained) == bytes_of(again)
    other = pipeline.run(config(folder, "other", sampling={"draws": 30, "seed": 1}), "extract")
    assert bytes_of(trained) != bytes_of(other)


def test_batches_and_shards_change_no_draw(folder, trained):
    other = pipeline.run(config(folder, "batches", shard_size=16, batch_tokens=64), "extract")
    ids = RunContext(config(folder)).ids
    one, two = (Cache(run / "cache/qwen").rows(ids) for run in (trained, other))
    assert torch.equal(one.ids, two.ids)
    assert torch.equal(one.sample_counts, two.sample_counts)


def test_the_training_reads_the_draws(trained):
    log = json.loads((trained / "train/unified/log.json").read_text())
    assert all(0 < entry["loss/forward_kl/qwen"] < 20 for entry in log)
    assert json.loads((trained / "run.json").read_text())["caches"]["qwen"]["top_k"] == 30


def test_every_row_holds_all_its_draws(folder, trained):
    rows = Cache(trained / "cache/qwen").rows(RunContext(config(folder)).ids)
    assert torch.equal(rows.sample_counts.sum(-1), torch.full((len(rows),), 30))
    assert Cache(trained / "cache/pivot").rows(RunContext(config(folder)).ids).sample_counts is None


def test_a_cache_says_that_its_entries_were_drawn(trained):
    assert describe_cache(trained / "cache/qwen")["entries a row"].startswith("30 drawn at random, at least ")
    assert describe_cache(trained / "cache/pivot")["entries a row"] == "1"


def test_a_mixture_of_drawn_sources_trains(folder, trained):
    objectives = [{"kind": "mixture"}]
    run = pipeline.run(config(folder, "mixture", objectives), "train")
    log = json.loads((run / "train/unified/log.json").read_text())
    assert all(0 < entry["loss/mixture"] < 20 for entry in log)


def test_mapped_rows_know_which_of_them_were_drawn(folder, trained):
    context = RunContext(config(folder))
    cache = Cache(trained / "cache/neox")
    mapped = vocabulary_map(
        "first_piece", context.tokenizers["neox"], context.tokenizers["pivot"], (PromptFormat(), PromptFormat())
    )
    source = train.training_source(context, "neox", cache)
    assert torch.equal(source.vocabulary_map, mapped)
    targets = train.TrainingCollator(
        context.train_examples, context.encoded("pivot"), [source], context.config.weighting
    )(range(16))["targets"]
    source = targets.sources["neox"]
    rows, drawn = source.mapped, (source.mapped.sample_counts > 0).any(-1)
    spelled = ~drawn & (rows.ids >= 0).any(-1)
    assert drawn.sum() > 0
    assert spelled.sum() > 0
    assert ((rows.ids[spelled] >= 0).sum(-1) == 1).all()  # the pivot's own token alone, spelled by the source's
    at_pivot = source.rows_at_pivot(targets.positions)
    assert torch.equal(at_pivot.sample_counts[source.pivot_index], rows.sample_counts)
    assert at_pivot.sample_counts.sum() == rows.sample_counts.sum()


@pytest.mark.parametrize(
    ("extract", "message"),
    [
        (
            {"top_k": 20},
            r"extract: top_k \(20\) keeps the largest entries and sampling draws them at random; leave one",
        ),
        ({"sampling": {"draws": 128}}, r"extract.sampling.draws: .*127"),
        ({"sampling": {"tau": 0}}, r"extract.sampling.tau: .*greater than 0"),
    ],
)
def test_a_mistake_is_named(folder, extract, message):
    with pytest.raises(ConfigError, match=message):
        config(folder, **extract)


def test_a_backend_that_cannot_draw_is_refused(folder):
    raw = runs.raw(folder, extract=SAMPLED, objectives=OBJECTIVES)
    raw["sources"][0]["backend"] = {"kind": "openai", "url": "http://here/v1", "model": "m"}
    with pytest.raises(ValueError, match="backend openai of source neox does not give; use backend transformers"):
        runs.loading.parse(raw, "test")


def test_a_term_that_reads_ranks_is_refused(folder):
    with pytest.raises(ConfigError, match=r"objectives\[0\] \(infifusion\) reads ranks, ratios"):
        config(folder, objectives=[{"kind": "infifusion"}])


def test_the_plan_counts_a_quarter_of_the_draws(folder):
    drawn = {s.stage: s for s in plan.plan(RunContext(config(folder))).stages}["extract qwen"]
    plain = {s.stage: s for s in plan.plan(RunContext(runs.config(folder, name="plain"))).stages}["extract qwen"]
    assert 0 < drawn.disk < plain.disk  # 8 entries of 2 to 3 bytes, against 10 with their values


def test_a_configuration_with_draws_reads_back_what_it_writes(folder):
    written = runs.loading.dump(config(folder))
    (folder / "again.yaml").write_text(written)
    assert runs.loading.load(str(folder / "again.yaml"), []) == config(folder)
