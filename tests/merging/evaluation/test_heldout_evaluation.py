"""Models on held-out examples: against float64, against the evaluation of a run, and read again where nothing changed."""

import math
from contextlib import contextmanager

import pytest
import torch

from fusion.data.example import Example
from fusion.data.prompt_format import PromptFormat
from fusion.merging.evaluation.heldout_evaluation import HeldoutEvaluation, format_of
from fusion.models.loading import ModelRef, load_model, load_tokenizer
from fusion_eval.results import Sample
from fusion_eval.runners.heldout import HeldoutSettings, score
from fusion_eval.statistics.comparison import summarise
from tests.helpers import tiny

EXAMPLES = [
    Example(({"role": "user", "content": f"number {i}: "},), text, "even" if i % 2 == 0 else "odd")
    for i, text in enumerate(["the lazy dog", "naïve café 🙂\t北京", " 12 + 30 = 42", "x", "a quick fox"])
]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return ModelRef(str(tiny.folder("llama", tmp_path_factory.mktemp("evaluation") / "model")))


@contextmanager
def loaded(ref, calls):
    calls.append(ref)
    yield ref


def evaluate(evaluation, ref, out, identity="one"):
    calls, units = [], []
    result = evaluation.evaluate(
        "merged", identity, lambda: loaded(ref, calls), out=out, progress=lambda total: units.append
    )
    return result, len(calls), sum(units)


def test_bits_per_byte_are_those_of_a_slow_float64_reference(model, tmp_path):
    result, _, _ = evaluate(HeldoutEvaluation(EXAMPLES), model, tmp_path)
    network, tokenizer = load_model(model, "float64"), load_tokenizer(model)
    bits, size = {"even": [], "odd": []}, {"even": 0, "odd": 0}
    for example in EXAMPLES:
        prompt = tokenizer(example.prompt)["input_ids"]
        response = tokenizer(example.response, add_special_tokens=False, split_special_tokens=True)["input_ids"]
        for i, token in enumerate(response):
            logits = network(torch.tensor([prompt + response[:i]])).logits[0, -1, : len(tokenizer)]
            bits[example.domain].append(-(logits[token] - logits.logsumexp(0)).item() / math.log(2))
        size[example.domain] += len(example.response.encode())
    scores = summarise(result)
    for domain, found in bits.items():
        assert scores[domain]["bits_per_byte"].value == pytest.approx(sum(found) / size[domain], rel=1e-5)
    mean = sum(sum(bits[domain]) / size[domain] for domain in bits) / 2
    assert scores["mean"]["bits_per_byte"].value == pytest.approx(mean, rel=1e-5)


def test_results_are_those_of_a_run_on_the_same_examples(model, tmp_path):
    settings = HeldoutSettings(exact_match=["odd"], max_new_tokens=4)
    result, _, units = evaluate(HeldoutEvaluation(EXAMPLES, settings), model, tmp_path)
    plain = score(model, EXAMPLES, [PromptFormat()] * 5, settings, progress=lambda units: None)
    assert [Sample.model_validate(sample.model_dump()) for sample in plain] == result.samples
    assert units == 5 + 2


def test_a_result_is_read_again_unless_model_examples_domains_or_settings_changed(model, tmp_path):
    evaluation = HeldoutEvaluation(EXAMPLES)
    first, calls, _ = evaluate(evaluation, model, tmp_path)
    assert calls == 1
    again, calls, _ = evaluate(evaluation, model, tmp_path)
    assert (calls, again) == (0, first)
    relabelled = [Example(e.messages, e.response, "one") for e in EXAMPLES]
    changed = [HeldoutEvaluation(EXAMPLES[:4]), HeldoutEvaluation(relabelled)]
    changed += [HeldoutEvaluation(EXAMPLES, HeldoutSettings(["odd"])), HeldoutEvaluation(EXAMPLES, name="validation")]
    changed += [HeldoutEvaluation(EXAMPLES, prompt_format=PromptFormat(answer_prefix=" "))]
    assert [evaluate(each, model, tmp_path)[1] for each in changed] == [1] * 5
    assert evaluate(evaluation, model, tmp_path, identity="other")[1] == 1
    assert evaluate(evaluation, model, tmp_path)[1] == 0


def test_tools_and_plain_text_reach_the_prompt_format():
    tools = ({"type": "function", "function": {"name": "add"}},)
    message = ({"role": "user", "content": "1 + 1"},)
    assert format_of(Example(message, "2", "d", tools=tools), PromptFormat()).tools == tools
    assert format_of(Example(message, "2", "d", template="plain"), PromptFormat()).template == "plain"
    assert format_of(Example((), "text", "d"), PromptFormat(answer_prefix="x")).answer_prefix is None


def test_an_example_longer_than_the_context_is_refused_by_tokenizer_and_configuration_alone(model):
    long = Example((), "dog " * 300, "d", origin="dev.jsonl, row 7")
    with pytest.raises(ValueError, match=r"dev\.jsonl, row 7: an example of domain d has \d+ tokens, and .* takes 256"):
        HeldoutEvaluation([*EXAMPLES, long]).count_tokens(model)
    counted = HeldoutEvaluation(EXAMPLES).count_tokens(model)
    assert counted > sum(len(example.response.split()) for example in EXAMPLES)
