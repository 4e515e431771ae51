"""A run with a source behind a server: extracted, weighed and trained on, never loaded."""

import json

import pytest

from fusion import pipeline
from fusion.cache import Cache
from fusion.plan import plan
from fusion.stages.context import RunContext
from tests.helpers import runs, serving, tiny

OBJECTIVES = [{"kind": "cross_entropy", "weight": 0.5}, {"kind": "forward_kl", "weight": 0.5}]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("run")


def served(folder, url, **changes):
    """A run whose second source is behind `url`, and whose folder holds nothing but its tokenizer."""
    raw = runs.raw(folder, objectives=OBJECTIVES, weighting={"kind": "gold_posterior"}, **changes)
    tokenizer = folder / "tokenizer alone"
    tiny.TOKENIZERS["qwen2"](tiny.TEXTS).save_pretrained(tokenizer)
    backend = {"kind": "openai", "url": url, "model": "big", "logprobs_api": "prompt_logprobs", "concurrency": 2}
    raw["sources"][1] = {"name": "qwen", "path": str(tokenizer), "backend": backend}
    return runs.loading.parse(raw, "test")


def test_a_served_source_is_learned_from_and_never_loaded(folder):
    runs.models(folder)
    with serving.serve(serving.Server(folder / "qwen")) as url:
        config = served(folder, url)
        estimates = {e.stage: e for e in plan(RunContext(config)).stages}
        run = pipeline.run(config)
    assert estimates["extract qwen"].memory.total == 0
    assert estimates["extract qwen"].disk > 0
    cache = Cache(run / "cache/qwen")
    assert cache.known_fields.gold == cache.known_fields.rows
    assert cache.known_fields.moments == 0
    assert cache.key["backend"]["model"] == "big"
    record = json.loads((run / "run.json").read_text())
    assert (record["models"]["qwen"]["parameters"], record["models"]["qwen"]["model_type"]) == (None, "openai")
    assert all(row["gold_source"] < 0 for row in record["helping"])
    log = json.loads((run / "train/unified/log.json").read_text())
    assert all("loss/forward_kl/qwen" in entry for entry in log)
    assert (run / "eval/neox/heldout.json").exists()
    assert not (run / "eval/qwen").exists()
    assert (run / "report.html").exists()


def test_another_model_behind_the_same_address_is_not_the_same_source(folder):
    runs.models(folder)
    with serving.serve(serving.Server(folder / "qwen")) as url:
        pipeline.run(served(folder, url, name="other"), until="extract")
    config = served(folder, "http://127.0.0.1:9/v1", name="other")
    assert RunContext(config).fingerprints["qwen"] == RunContext(config).fingerprints["qwen"]
    with pytest.raises(ValueError, match=r"cache/qwen was made from something else: backend \(url: "):
        pipeline.run(config, until="extract")
