"""The head against dense logits of the model itself, for plain, soft-capped, scaled and padded heads."""

import contextlib
import dataclasses

import pytest
import torch

from fusion.core.rows import Positions
from fusion.data.batching import pad_texts
from fusion.data.encode import Encoded
from fusion.models.head import Head, hidden_states, self_check
from tests.helpers import tiny

KINDS = list(tiny.SHAPES)


def about(token: torch.Tensor):
    zeros = torch.zeros_like(token)
    return Positions(token=token, prefix=zeros, example=zeros)


@pytest.mark.parametrize("kind", KINDS)
def test_the_head_gives_the_models_own_logits(kind):
    model = tiny.model(kind)
    Head.from_model(model, 300).check_against_model(model)
    ids = torch.arange(11)[None]
    logits = Head.from_model(model, 300).logits(hidden_states(model, input_ids=ids)[0])
    torch.testing.assert_close(logits, model(input_ids=ids).logits[0])


PRECISIONS = {
    "float32": (torch.float32, None),
    "bfloat16": (torch.bfloat16, None),
    "float16": (torch.float16, None),
    "autocast to bfloat16": (torch.float32, torch.bfloat16),
    "autocast to float16": (torch.float32, torch.float16),
}


def in_precision(name, model):
    """The model, and the context it runs in, as Trainer with bf16 or fp16, or a load in 16 bits, would run it."""
    dtype, autocast = PRECISIONS[name]
    return model.to(dtype), torch.autocast("cpu", autocast) if autocast else contextlib.nullcontext()


def with_logits(model, size):
    """The model with an output layer whose largest logits are about `size`, as real ones reach 30 to 100."""
    model.tie_weights = lambda *_, **__: None
    layer = torch.nn.Linear(32, 300, bias=False)
    with torch.no_grad():
        layer.weight.copy_(model.get_output_embeddings().weight)
        model.set_output_embeddings(layer)
        hidden = hidden_states(model, input_ids=torch.arange(50)[None])
        layer.weight.mul_(size / layer(hidden).abs().max())
    return model


@pytest.mark.parametrize("size", [1, 30, 100, 300])
@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("kind", KINDS)
def test_a_head_is_its_models_however_large_its_logits_and_in_every_precision(kind, precision, size):
    model, context = in_precision(precision, with_logits(tiny.model(kind), size))
    with context:
        Head.from_model(model, 300).check_against_model(model)


WRONG = [
    ("gemma2", {"softcap": None}),
    ("llama", {"softcap": 300.0}),
    ("granite", {"scale": 1.0}),
    ("cohere", {"scale": 1.0}),
    ("llama", {"scale": 1.02}),
]


@pytest.mark.parametrize("size", [1, 30, 300])
@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize(("kind", "change"), WRONG)
def test_a_head_that_does_something_unknown_is_refused(kind, change, precision, size):
    model, context = in_precision(precision, with_logits(tiny.model(kind), size))
    wrong = dataclasses.replace(Head.from_model(model, 300), **change)
    with context, pytest.raises(ValueError, match="does something to its logits besides a scale and soft-capping"):
        wrong.check_against_model(model)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_bias_added_behind_the_output_layer_is_refused(precision):
    model, context = in_precision(precision, with_logits(tiny.model("llama"), 100))
    forward, bias = model.forward, torch.randn(300)

    def biased(*args, **kwargs):
        outputs = forward(*args, **kwargs)
        outputs.logits = outputs.logits + bias
        return outputs

    model.forward = biased
    with context, pytest.raises(ValueError, match="its own logit is"):
        Head.from_model(model, 300).check_against_model(model)


def test_a_model_that_never_calls_its_output_layer_is_refused():
    model = tiny.model("llama")
    aside = torch.nn.Linear(32, 300, bias=False)
    model.get_output_embeddings = lambda: aside
    with pytest.raises(ValueError, match="must be called once, with a state for every position"):
        hidden_states(model, input_ids=torch.arange(5)[None])


def test_a_bias_in_the_head_counts():
    model = tiny.model("gpt_neox")
    biased = torch.nn.Linear(32, 300)
    biased.weight = model.get_output_embeddings().weight
    model.set_output_embeddings(biased)
    Head.from_model(model, 300).check_against_model(model)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("chunk", [1, 7, 64])
def test_chunks_change_neither_rows_nor_gradients(kind, chunk):
    torch.manual_seed(1)
    model = tiny.model(kind, 257).double()
    hidden, token, ask = (
        torch.randn(23, 32, dtype=torch.float64),
        torch.randint(250, (23,)),
        torch.randint(-1, 250, (23, 4)),
    )

    def outcome(chunk):
        model.zero_grad()
        x = hidden.clone().requires_grad_()
        rows, asked = Head.from_model(model, 250, chunk).rows(x, about(token), 9, ask)
        values = [rows.logprobs, rows.gold, rows.mean, rows.std, asked * (ask >= 0)]
        sum((value * (i + 1)).sin().sum() for i, value in enumerate(values)).backward()
        return [*values, rows.ids, x.grad, *(p.grad.clone() for p in model.get_output_embeddings().parameters())]

    for chunked, dense in zip(outcome(chunk), outcome(1000), strict=True):
        torch.testing.assert_close(chunked, dense)


def test_rows_are_what_dense_logits_say():
    torch.manual_seed(2)
    model, token = tiny.model("gemma2", 131).double(), torch.randint(120, (17,))
    hidden = torch.randn(17, 32, dtype=torch.float64)
    head = Head.from_model(model, 120)
    rows, _ = head.rows(hidden, about(token), 10)
    logits = head.logits(hidden)
    assert logits.shape == (17, 120)  # the 11 padded ids take no part
    logprobs = logits.log_softmax(-1)
    torch.testing.assert_close(rows.logprobs, logprobs.sort(-1, descending=True).values[:, :10])
    torch.testing.assert_close(logprobs.gather(1, rows.ids), rows.logprobs)
    torch.testing.assert_close(rows.gold, logprobs[torch.arange(17), token])
    torch.testing.assert_close(rows.mean, logprobs.mean(-1))
    torch.testing.assert_close(rows.std, logprobs.std(-1, correction=0))


def test_only_one_chunk_of_logits_is_kept_for_the_backward_pass():
    model, kept = tiny.model("llama", 300), []
    head = Head.from_model(model, 300, chunk=4)
    hidden = torch.randn(400, 32, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.numel()) or t, lambda t: t):
        head.rows(hidden, about(torch.zeros(400, dtype=torch.long)), 10)
    assert sum(kept) < 400 * 300 / 2  # all that is kept for 100 chunks is less than half of the logits


def test_more_entries_than_the_vocabulary_gives_the_whole_vocabulary():
    rows, _ = Head.from_model(tiny.model("llama", 30), 30).rows(
        torch.randn(3, 32), about(torch.zeros(3, dtype=torch.long)), 99
    )
    torch.testing.assert_close(rows.logprobs.exp().sum(-1), torch.ones(3))


def test_no_rows_give_no_rows():
    rows, asked = Head.from_model(tiny.model("llama"), 300).rows(
        torch.randn(0, 32), about(torch.zeros(0, dtype=torch.long)), 5
    )
    assert len(rows) == 0
    assert asked.shape == (0, 0)


def test_a_row_predicts_the_token_after_it_and_prompt_and_padding_take_no_part():
    model = tiny.model("llama", 300)
    texts = [Encoded([5, 6, 7, 8, 9], 2, [0, 1, 2], False), Encoded([1, 2], 1, [0], False)]
    inputs, at, rows = pad_texts(texts, "cpu", pad_id=3)
    assert rows.token.tolist() == [7, 8, 9, 2]
    assert at.tolist() == [1, 2, 3, 5]
    hidden = hidden_states(model, **inputs).flatten(0, 1)[at]
    got = Head.from_model(model, 300).rows(hidden, rows, 3)[0].gold
    alone = [model(input_ids=torch.tensor([text.input_ids])).logits[0].log_softmax(-1) for text in texts]
    expected = [alone[0][1, 7], alone[0][2, 8], alone[0][3, 9], alone[1][0, 2]]
    torch.testing.assert_close(got, torch.stack(expected), atol=1e-5, rtol=1e-5)


def test_a_bug_of_ours_while_the_model_computes_is_not_blamed_on_the_model(monkeypatch):
    model = tiny.model("llama")
    head = Head.from_model(model, 300)
    monkeypatch.setattr(self_check, "_probes", lambda *_: {}["absent"])
    with pytest.raises(KeyError, match="absent"):
        head.check_against_model(model)


def test_weights_that_are_not_finite_are_named():
    model = tiny.model("llama")
    head = Head.from_model(model, 300)
    with torch.no_grad():
        model.model.layers[1].mlp.up_proj.weight[3, 4] = float("nan")
    with pytest.raises(ValueError, match=r"not finite numbers; so are values of model.layers.1.mlp.up_proj.weight"):
        head.check_against_model(model)
