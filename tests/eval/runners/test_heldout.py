"""Held-out likelihood and answers against the model asked directly, one example at a time."""

import math

import pytest
import torch

from fusion.data.example import Example
from fusion.data.prompt_format import PromptFormat
from fusion.models.loading import ModelRef, load_model, load_tokenizer
from fusion.tokenizers import decode_text
from fusion_eval.runners import heldout
from fusion_eval.runners.heldout import HeldoutSettings, count_requests, score
from tests.helpers import tiny

TEXTS = ["the lazy dog", "naïve café 🙂\t北京", " 12 + 30 = 42", "x"]
EXAMPLES = [
    Example(({"role": "user", "content": f"number {i}: "},), text, "even" if i % 2 == 0 else "odd")
    for i, text in enumerate(TEXTS)
]


@pytest.fixture(scope="module", params=["llama", "gpt_neox", "qwen2"])
def ref(request, tmp_path_factory):
    return ModelRef(str(tiny.folder(request.param, tmp_path_factory.mktemp("heldout") / request.param)))


def run(ref, examples=EXAMPLES, **settings):
    done = []
    how = HeldoutSettings(max_new_tokens=5, **settings)
    samples = score(ref, examples, [PromptFormat()] * len(examples), how, progress=done.append)
    assert sum(done) == count_requests(examples, how)
    return samples


def test_likelihood_is_that_of_the_text_alone(ref):
    """Summed over the response's own tokens, without the end of turn, from the model's own logits."""
    model, tokenizer = load_model(ref), load_tokenizer(ref)
    size = len(tokenizer)
    for example, sample in zip(EXAMPLES, run(ref), strict=True):
        prompt = tokenizer(example.prompt)["input_ids"]
        response = tokenizer(example.response, add_special_tokens=False, split_special_tokens=True)["input_ids"]
        logits = model(torch.tensor([prompt + response])).logits[0, :, :size].log_softmax(-1)
        nats = -sum(logits[len(prompt) - 1 + i, id].item() for i, id in enumerate(response))
        assert sample.nll == pytest.approx(nats, rel=1e-4)
        assert sample.bytes == len(example.response.encode())
        assert sample.id == example.id


def test_an_answer_is_right_by_the_part_that_is_compared(ref, monkeypatch):
    written = ["3 + 4 = 7. Answer: 7", "B, the moon", " seven "]
    monkeypatch.setattr(heldout, "_answers", lambda *_: written)
    examples = [
        Example(({"role": "user", "content": "q"},), "Answer: 7", "number"),
        Example(({"role": "user", "content": "q"},), "(B)", "option"),
        Example(({"role": "user", "content": "q"},), "seven", "text"),
    ]
    domains = ("number", "option", "text")
    right = [
        [s.exact_match for s in heldout.score(ref, examples, [PromptFormat()] * 3, how, progress=lambda _: None)]
        for how in (
            HeldoutSettings(domains, compare={"number": "number", "option": "option"}),
            HeldoutSettings(domains),
        )
    ]
    assert right == [[True, True, True], [False, False, True]]


def test_a_result_is_kept_under_what_was_compared():
    assert "compare" not in HeldoutSettings(("a",)).key()
    assert HeldoutSettings(("a",), compare={"a": "number"}).key() != HeldoutSettings(("a",)).key()


def test_calibration_compares_the_likeliest_token_with_the_one_that_came(ref):
    model, tokenizer = load_model(ref), load_tokenizer(ref)
    size = len(tokenizer)
    for example, sample in zip(EXAMPLES, run(ref), strict=True):
        prompt = tokenizer(example.prompt)["input_ids"]
        response = tokenizer(example.response, add_special_tokens=False, split_special_tokens=True)["input_ids"]
        logits = model(torch.tensor([prompt + response])).logits[0, len(prompt) - 1 : -1, :size]
        confidence, likeliest = logits.softmax(-1).max(-1)
        off = [0.0] * 10
        for sure, token, came in zip(confidence.tolist(), likeliest.tolist(), response, strict=True):
            off[min(9, int(10 * sure))] += sure - (token == came)
        assert sample.calibration == pytest.approx([*off, len(response)], abs=1e-4)


def test_batches_change_no_number(ref):
    for one, other in zip(run(ref, batch_tokens=1), run(ref, batch_tokens=10_000), strict=True):
        assert one.nll == pytest.approx(other.nll, rel=1e-4)


def test_answers_are_the_models_greedy_ones_and_only_where_asked(ref):
    model, tokenizer = load_model(ref), load_tokenizer(ref)
    for example, sample in zip(EXAMPLES, run(ref, exact_match=("odd",)), strict=True):
        if example.domain == "even":
            assert sample.exact_match is None
            assert sample.answer is None
            continue
        ids = tokenizer(example.prompt, return_tensors="pt", return_token_type_ids=False)
        out = model.generate(**ids, max_new_tokens=5, do_sample=False)[0, ids["input_ids"].shape[1] :]
        assert sample.answer == decode_text(tokenizer, out.tolist())
        assert sample.exact_match == (sample.answer.strip() == example.response.strip())


def test_a_right_answer_counts_as_right(ref):
    """The model's own greedy answer, taken for the truth, is found again."""
    answer = run(ref, exact_match=("odd",))[1].answer
    example = Example(EXAMPLES[1].messages, f"  {answer} ", "odd")
    assert answer.strip()
    assert run(ref, [example], exact_match=("odd",))[0].exact_match


def test_a_text_beyond_the_models_context_is_refused(ref):
    long = Example((), "12 + 30 " * 200, "long")
    with pytest.raises(
        ValueError,
        match=r"domain long has \d+ tokens, .* takes \d+ \(max_position_embeddings\)\. Shorten it with response_chars",
    ):
        run(ref, [long])


def test_bits_per_byte_of_a_uniform_model_is_known(ref, tmp_path):
    """All logits equal: every token costs log(V) nats, V being the tokens that exist."""
    model, tokenizer = load_model(ref), load_tokenizer(ref)
    with torch.no_grad():
        model.get_output_embeddings().weight.zero_()
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    for example, sample in zip(EXAMPLES, run(ModelRef(str(tmp_path))), strict=True):
        count = len(tokenizer(example.response, add_special_tokens=False)["input_ids"])
        assert sample.nll == pytest.approx(count * math.log(len(tokenizer)), rel=1e-4)
