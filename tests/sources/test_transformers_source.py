"""Rows of transformers' own models: compiled or not, in 32 or 16 bits, in batches of any size."""

import functools

import pytest
import torch

from fusion.data.encode import encode
from fusion.models import shared_prefix
from fusion.models.head import forward
from fusion.models.loading import ModelRef, load_tokenizer
from fusion.sources import RandomSampling, SourceRequest, Transformers
from tests.helpers import tiny


@pytest.fixture(scope="module", params=["llama", "gemma2"])
def wanted(request, tmp_path_factory):
    """What to open, and the texts to read."""
    ref = ModelRef(str(tiny.folder(request.param, tmp_path_factory.mktemp("model") / request.param)))
    tokenizer = load_tokenizer(ref)
    texts = [
        encode(tokenizer, [{"role": "user", "content": f"number {i}"}], "the lazy dog " * (i % 5 + 1))
        for i in range(12)
    ]
    return functools.partial(SourceRequest, ref, tokenizer, 10, batch_tokens=128), texts


def compare(rows, others, tolerance):
    for name in ("logprobs", "gold", "mean", "std"):
        torch.testing.assert_close(getattr(rows, name), getattr(others, name), atol=tolerance, rtol=0)
    assert torch.equal(rows.prefix, others.prefix)
    assert torch.equal(rows.example, others.example)


def test_a_compiled_model_gives_the_same_rows(wanted, monkeypatch):
    open_, texts = wanted
    compiled, real = [], torch.compile

    def captured(forward, dynamic):  # the graph is captured as ever and run as it is: no minute for a C++ compiler
        compiled.append(forward)
        return real(forward, dynamic=dynamic, backend="eager")

    monkeypatch.setattr(torch, "compile", captured)
    rows = Transformers().open(open_(compile=True)).rows(texts)
    assert len(compiled) == 1
    compare(rows, Transformers().open(open_()).rows(texts), 1e-5)
    assert len(compiled) == 1


@pytest.mark.slow
def test_a_model_compiled_to_machine_code_gives_the_same_rows(wanted):
    open_, texts = wanted
    compare(
        Transformers().open(open_(compile=True)).rows(texts), Transformers().open(open_()).rows(texts), tolerance=1e-5
    )


def test_bfloat16_gives_float32_rows_close_to_those_of_float32(wanted):
    open_, texts = wanted
    rows, half = Transformers().open(open_()).rows(texts), Transformers().open(open_(dtype="bfloat16")).rows(texts)
    assert half.logprobs.dtype == half.gold.dtype == torch.float32
    assert not torch.equal(rows.gold, half.gold)
    compare(rows, half, 0.15)  # 8 bits of precision on logits of a few units


def test_the_size_of_batches_changes_only_rounding(wanted):
    open_, texts = wanted
    compare(
        Transformers().open(open_()).rows(texts),
        Transformers().open(open_(batch_tokens=1)).rows(texts),
        tolerance=1e-5,
    )


LONG = "a long beginning that all of the texts have in common, such as worked examples; "
COMPILED = pytest.param({"compile": True}, marks=pytest.mark.slow)
SAMPLED = {"sampling": RandomSampling(draws=20)}


@pytest.mark.parametrize("how", [{}, {"hidden": True}, {"autocast": "bfloat16"}, SAMPLED, COMPILED])
def test_what_texts_begin_with_is_read_once(wanted, how, monkeypatch):
    open_, _ = wanted
    compiler = torch.compile
    monkeypatch.setattr(torch, "compile", lambda f, **given: compiler(f, backend="eager", **given))
    tokenizer = open_().tokenizer
    texts = [
        encode(tokenizer, [{"role": "user", "content": LONG + "ab" * i}], "the lazy dog " * (i % 3 + 1))
        for i in range(8)
    ]
    read = count_tokens(monkeypatch)
    together = Transformers().open(open_(**how)).rows(texts)
    once = sum(read)
    monkeypatch.setattr(shared_prefix, "MIN_PREFIX", 10_000)
    whole = Transformers().open(open_(**how)).rows(texts)
    assert once < 0.6 * (sum(read) - once)
    compare(together, whole, tolerance=0.15 if "autocast" in how else 1e-4)
    if "hidden" in how:
        torch.testing.assert_close(together.hidden, whole.hidden, atol=2e-3, rtol=0)  # float16


def count_tokens(monkeypatch):
    """How many tokens each forward pass reads."""
    counts, run = [], forward.run_to_head

    def counting(model, **inputs):
        counts.append(inputs["input_ids"].numel())
        return run(model, **inputs)

    monkeypatch.setattr(forward, "run_to_head", counting)
    monkeypatch.setattr(shared_prefix, "run_to_head", counting)
    return counts


def sampled(open_, texts, **sampling):
    batch = {"batch_tokens": sampling.pop("batch_tokens")} if "batch_tokens" in sampling else {}
    return Transformers().open(open_(sampling=RandomSampling(**sampling), **batch)).rows(texts)


def same_draws(one, other):
    return torch.equal(one.ids, other.ids) and torch.equal(one.sample_counts, other.sample_counts)


def test_drawn_rows_know_the_text_and_the_moments_as_others_do(wanted):
    open_, texts = wanted
    rows, drawn = Transformers().open(open_()).rows(texts), sampled(open_, texts)
    for name in ("gold", "mean", "std"):
        torch.testing.assert_close(getattr(drawn, name), getattr(rows, name), atol=1e-5, rtol=0)
    assert torch.equal(drawn.prefix, rows.prefix)
    assert torch.equal(drawn.sample_counts.sum(-1), torch.full((len(rows),), 50))


def test_a_text_is_drawn_alike_whatever_is_read_beside_it(wanted):
    open_, texts = wanted
    whole = sampled(open_, texts, seed=3)
    assert same_draws(whole, sampled(open_, texts, seed=3))
    for batch in (1, 4096):
        assert same_draws(whole, sampled(open_, texts, seed=3, batch_tokens=batch))
    alone = sampled(open_, [texts[8]], seed=3)
    assert same_draws(whole.select(whole.example == 8), alone)


def test_another_seed_and_another_text_are_drawn_otherwise(wanted):
    open_, texts = wanted
    assert not same_draws(sampled(open_, texts, seed=0), sampled(open_, texts, seed=1))
    uniform = RandomSampling().uniform(texts[:2])
    rows = min(texts[0].num_rows, texts[1].num_rows)
    assert not torch.equal(uniform[:rows], uniform[texts[0].num_rows :][:rows])


def test_draws_average_to_the_models_own_distribution(wanted):
    open_, texts = wanted
    open_all, k = functools.partial(open_), 10_000
    args = list(open_all.args)
    args[2] = k
    exact = Transformers().open(SourceRequest(*args)).rows(texts[:1])
    size = exact.k
    true = torch.zeros(len(exact), size).scatter(1, exact.ids, exact.logprobs.exp())
    total = torch.zeros_like(true)
    for seed in range(60):
        drawn = sampled(open_, texts[:1], seed=seed, draws=127)
        total.scatter_add_(1, drawn.ids.clamp(min=0), drawn.logprobs.exp())
    error = (total / 60 - true) / (true * (1 - true) / (60 * 127)).sqrt()
    assert error.abs().max() < 6
    assert error.std() == pytest.approx(1, abs=0.1)


def test_hidden_states_are_what_the_output_layer_reads(wanted):
    """The model's own logits come from them: through its last matrix, and for gemma2 its soft-capping."""
    open_, texts = wanted
    source = Transformers().open(open_(hidden=True))
    rows = source.rows(texts)
    assert rows.hidden.dtype == torch.float16
    for number in (0, 4):
        ids = torch.tensor([texts[number].input_ids])
        own = source.model(ids).logits[0, texts[number].start - 1 : -1, : source.head.vocabulary]
        mine = source.head.logits(rows.hidden[rows.example == number].float())
        torch.testing.assert_close(mine, own, atol=0.02, rtol=0.01)  # 11 bits of precision
    assert Transformers().open(open_()).rows(texts).hidden is None
