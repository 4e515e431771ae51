"""Rows of likeness to the true token, against the definition in float64, and that nothing else counts."""

from __future__ import annotations

import dataclasses
import json

import pytest
import torch

from fusion import pipeline
from fusion.data.encode import encode
from fusion.models.loading import load_model
from fusion.sources import Similarity, Transformers
from tests.helpers import runs


@pytest.fixture(scope="module")
def likeness(tiny_source):
    """The definition: log-probabilities of every token where another is the true one, at temperature 0.1."""
    _, wanted, *_ = tiny_source
    w = load_model(wanted.ref).get_output_embeddings().weight.detach().double()
    cosine = (w @ w.T) / w.norm(dim=1)[:, None] / w.norm(dim=1)
    return (cosine / 0.1).log_softmax(-1)


def test_rows_are_a_softmax_of_cosines_to_the_true_token(tiny_source, likeness):
    _, wanted, texts, plain = tiny_source
    rows = Similarity(temperature=0.1).open(wanted).rows(texts)
    known = likeness[rows.token]
    assert torch.equal(rows.token, torch.cat([torch.tensor(text.input_ids[text.start :]) for text in texts]))
    torch.testing.assert_close(rows.logprobs.double(), known.topk(6).values, atol=1e-4, rtol=0)
    torch.testing.assert_close(rows.gold.double(), known.gather(1, rows.token[:, None])[:, 0], atol=1e-4, rtol=0)
    torch.testing.assert_close(rows.mean.double(), known.mean(-1), atol=1e-4, rtol=0)
    torch.testing.assert_close(rows.std.double(), known.std(-1, correction=0), atol=1e-4, rtol=0)
    assert torch.equal(rows.ids[:, 0], rows.token)  # nothing is more like a token than itself
    assert torch.equal(rows.prefix, plain.prefix)
    assert torch.equal(rows.example, plain.example)


def test_a_row_hangs_on_the_true_token_alone(tiny_source):
    _, wanted, texts, _ = tiny_source
    source = Similarity().open(wanted)
    other = encode(wanted.tokenizer, [{"role": "user", "content": "quite another prompt"}], "the lazy dog")
    here, there = source.rows(texts[:1]), source.rows([other])
    for name in ("logprobs", "ids", "gold", "mean", "std"):
        assert torch.equal(getattr(here, name), getattr(there, name))
    plain = Transformers().open(wanted).rows([other])
    assert not torch.equal(plain.gold, Transformers().open(wanted).rows(texts[:1]).gold)
    together = source.rows(texts)
    for token in together.token.unique():
        mine = together.logprobs[together.token == token]
        assert (mine == mine[0]).all()


def test_whole_rows_sum_to_one_and_grow_even_as_the_temperature_rises(tiny_source):
    _, wanted, texts, _ = tiny_source
    size = max(wanted.tokenizer.get_vocab().values()) + 1
    whole = dataclasses.replace(wanted, k=size)
    for temperature in (0.01, 0.05, 1e6):
        rows = Similarity(temperature=temperature).open(whole).rows(texts)
        torch.testing.assert_close(rows.logprobs.exp().sum(-1), torch.ones(len(rows)))
    torch.testing.assert_close(rows.logprobs.exp(), torch.full((len(rows), size), 1 / size))


def test_progress_hears_of_every_token_once(tiny_source):
    _, wanted, texts, _ = tiny_source
    heard = []
    Similarity().open(wanted).rows(texts, heard.append)
    assert sum(heard) == sum(len(text.input_ids) for text in texts)
    assert Similarity().identity() == {"kind": "similarity", "temperature": 0.05}


def test_a_run_learns_from_likeness_and_from_the_likeliest_alone(tmp_path):
    raw = runs.raw(tmp_path)
    raw["sources"][0]["backend"] = {"kind": "similarity"}
    raw["sources"][1]["transforms"] = [{"kind": "topk_uniform", "top_k": 3}]
    config = runs.config(
        tmp_path, sources=raw["sources"], objectives=[{"kind": "forward_kl"}], baseline=False,
        training=raw["training"] | {"max_steps": 2},
    )  # fmt: skip
    pipeline.run(config, until="train")
    log = json.loads((config.folder / "train/unified/log.json").read_text())
    assert all(0 < entry[f"loss/forward_kl/{name}"] < 1e6 for entry in log for name in ("neox", "qwen"))
