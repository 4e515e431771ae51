"""Rows of transformers' own models: compiled or not, in 32 or 16 bits, in batches of any size."""

import functools

import pytest
import torch

import tiny
from fusion.encode import encode
from fusion.models import ModelRef, load_tokenizer
from fusion.sources import Transformers, Wanted


@pytest.fixture(scope="module", params=["llama", "gemma2"])
def wanted(request, tmp_path_factory):
    """What to open, and the texts to read."""
    ref = ModelRef(str(tiny.folder(request.param, tmp_path_factory.mktemp("model") / request.param)))
    tokenizer = load_tokenizer(ref)
    texts = [
        encode(tokenizer, [{"role": "user", "content": f"number {i}"}], "the lazy dog " * (i % 5 + 1))
        for i in range(12)
    ]
    return functools.partial(Wanted, ref, tokenizer, 10, batch_tokens=128), texts


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
