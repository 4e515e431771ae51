"""Likelihoods against lm-eval's own path and a loop in float64; nothing but speed depends on what is shared."""

import random
from dataclasses import replace

import pytest
import torch
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM

from fusion.models.loading import ModelRef, load_model
from fusion_eval.runners import shared_prefix
from fusion_eval.runners.shared_prefix import ContinuationRequest, ContinuationScorer, common_length, group_by_prefix
from fusion_eval.runners.shared_prefix_lm import SharedPrefixLM
from tests.architectures.chain import save_tiny_model
from tests.helpers import tiny

CLOSE = 1e-7  # in float64; attention that is not fused takes its softmax in float32 all the same
WORDS = [
    "the",
    "quick",
    "brown",
    "fox",
    "jumps",
    "over",
    "lazy",
    "dog",
    "how",
    "much",
    "is",
    "12",
    "+",
    "30",
    "it",
    "42",
]


def words(draw, n):
    return " ".join(draw.choice(WORDS) for _ in range(n))


def requests(seed=0):
    """Contexts with and without a common beginning, of several lengths; choices of one token and of several; no context."""
    draw = random.Random(seed)
    header = words(draw, 45)
    texts = [f"{header} {words(draw, 1 + i)}" if i % 2 else words(draw, 3 + i) for i in range(9)]
    pairs = [(text, f" {words(draw, 1 + n % 4)}") for text in texts for n in range(4)]
    pairs += [("", "lazy dog"), (header, " the"), (header, " fox jumps"), (words(draw, 300), " dog")]
    return [Instance("loglikelihood", {}, pair, i) for i, pair in enumerate(pairs)]


@pytest.mark.parametrize("kind", tiny.SHAPES)
def test_it_agrees_with_lm_eval_in_float64_to_the_last_digits(kind, tmp_path):
    fast = SharedPrefixLM(
        ModelRef(str(tiny.folder(kind, tmp_path))), dtype="float64", device="cpu", batch_tokens=500, batch_size=4
    )
    own = HFLM(fast.model, tokenizer=fast.tokenizer, batch_size=4, backend="causal")
    mine, theirs = (lm.loglikelihood(requests(), disable_tqdm=True) for lm in (fast, own))
    assert fast.scorer.share_prefixes
    torch.testing.assert_close(
        torch.tensor([nats for nats, _ in mine], dtype=torch.float64),
        torch.tensor([nats for nats, _ in theirs], dtype=torch.float64), rtol=CLOSE, atol=CLOSE,
    )  # fmt: skip
    assert [greedy for _, greedy in mine] == [greedy for _, greedy in theirs]


def test_it_agrees_with_lm_eval_in_float32_to_1e_5_and_on_running_text(tmp_path):
    fast = SharedPrefixLM(
        ModelRef(str(tiny.folder("llama", tmp_path))), dtype="float32", device="cpu", batch_tokens=500, batch_size=4
    )
    own = HFLM(fast.model, tokenizer=fast.tokenizer, batch_size=4, backend="causal")
    mine, theirs = (lm.loglikelihood(requests(), disable_tqdm=True) for lm in (fast, own))
    assert [nats for nats, _ in mine] == pytest.approx([nats for nats, _ in theirs], abs=1e-5, rel=1e-6)
    texts = [Instance("loglikelihood_rolling", {}, (words(random.Random(n), 20 * n),), n) for n in (1, 30, 2)]
    mine, theirs = (lm.loglikelihood_rolling(texts, disable_tqdm=True) for lm in (fast, own))
    assert mine == pytest.approx(theirs, rel=1e-6)


def test_the_likeliest_continuation_is_called_greedy(tmp_path):
    model = tiny.model("llama")
    context = (5, 9, 30)
    best = model(input_ids=torch.tensor([context])).logits[0, -1].argmax().item()
    found = dict(
        ContinuationScorer.from_model(model).score(
            [ContinuationRequest(context, (best,)), ContinuationRequest(context, ((best + 1) % 300,))]
        )
    )
    assert [found[0].is_greedy, found[1].is_greedy] == [True, False]


def asked_of(seed, count=6, header=40, vocabulary=300):
    draw = random.Random(seed)

    def tokens(n):
        return tuple(draw.randrange(vocabulary) for _ in range(n))

    start = tokens(header)
    return [ContinuationRequest(start + tokens(1 + 3 * i), tokens(1 + i % 3)) for i in range(count) for _ in range(2)]


def scores(scorer, asked):
    found = dict(scorer.score(asked))
    return torch.tensor([found[i].logprob for i in range(len(asked))], dtype=torch.float64)


def by_hand(model, asked):
    """One text at a time, logits of all positions."""
    sums = []
    for context, continuation in asked:
        logits = model(input_ids=torch.tensor([context + continuation])).logits[0].log_softmax(-1)
        at = range(len(context) - 1, len(context) + len(continuation) - 1)
        sums.append(sum(logits[place, token].item() for place, token in zip(at, continuation, strict=True)))
    return torch.tensor(sums, dtype=torch.float64)


@pytest.mark.parametrize("window", [7, 16, 45, 64])
def test_a_sliding_window_sees_no_padding(window):
    model = tiny.model("gemma2").double()
    model.config.sliding_window = model.model.config.sliding_window = window
    for layer in model.model.layers:
        if getattr(layer.self_attn, "sliding_window", None) is not None:
            layer.self_attn.sliding_window = window
    scorer = ContinuationScorer.from_model(model, batch_tokens=300)
    assert scorer.window == window
    asked = asked_of(0)
    torch.testing.assert_close(scores(scorer, asked), by_hand(model, asked), rtol=CLOSE, atol=CLOSE)


@pytest.mark.parametrize("kind", ["llama", "gemma2"])
def test_reading_texts_whole_gives_the_same(kind):
    model = tiny.model(kind).double()
    scorer, asked = ContinuationScorer.from_model(model, batch_tokens=300), asked_of(1)
    whole = replace(scorer, share_prefixes=False)
    torch.testing.assert_close(scores(whole, asked), scores(scorer, asked), rtol=CLOSE, atol=CLOSE)


@pytest.mark.parametrize("batch_tokens", [1, 100, 10_000])
def test_batches_and_order_change_nothing(batch_tokens):
    model = tiny.model("qwen2").double()
    asked = asked_of(2)
    order = random.Random(0).sample(range(len(asked)), len(asked))
    there = scores(ContinuationScorer.from_model(model, batch_tokens), [asked[i] for i in order])
    torch.testing.assert_close(there, by_hand(model, asked)[order], rtol=CLOSE, atol=CLOSE)


def test_chunks_of_the_head_change_nothing(monkeypatch):
    model, asked = tiny.model("llama").double(), asked_of(3, count=40)
    before = scores(ContinuationScorer.from_model(model), asked)
    monkeypatch.setattr(shared_prefix, "LOGITS_IN_MEMORY", 1)
    torch.testing.assert_close(scores(ContinuationScorer.from_model(model), asked), before, rtol=1e-12, atol=1e-12)


def read_tokens(model, asked, shares):
    """Tokens that went through the model's layers, padding included."""
    read = []
    scorer = replace(ContinuationScorer.from_model(model), share_prefixes=shares)  # which checks the head
    hook = model.model.embed_tokens.register_forward_hook(lambda _m, inputs, _o: read.append(inputs[0].numel()))
    scores(scorer, asked)
    hook.remove()
    return sum(read)


def test_what_is_shared_is_read_once():
    model = tiny.model("llama")
    header, draw = tuple(range(100)), random.Random(0)
    contexts = [header + tuple(draw.randrange(300) for _ in range(10)) for _ in range(5)]
    asked = [ContinuationRequest(context, (n, n + 1, n + 2)) for context in contexts for n in range(4)]
    assert read_tokens(model, asked, shares=True) == 100 + 5 * 10 + 5 * 4 * 2
    assert read_tokens(model, asked, shares=False) == 5 * 4 * 112


def test_headers_leave_a_token_of_each_context_and_every_context_once():
    long = tuple(range(50))
    contexts = [long, (*long, 1), (*long, 2, 3), (7, 8), (9,), (*long[:30], 5)]
    groups = list(group_by_prefix(contexts))
    assert sorted(context for _, group in groups for context in group) == sorted(contexts)
    for header, group in groups:
        assert all(context[: len(header)] == header and len(context) > len(header) for context in group)
    assert [len(header) for header, group in groups if len(group) == 3] == [49, 0]


def test_shared_counts_the_beginning_alone():
    assert [common_length((1, 2, 3), other) for other in [(1, 2, 4), (2, 2, 3), (1, 2, 3, 4), ()]] == [2, 0, 3, 0]


def test_a_continuation_without_room_or_tokens_is_named(tmp_path):
    fast = SharedPrefixLM(
        ModelRef(str(tiny.folder("llama", tmp_path))), dtype="float32", device="cpu", batch_tokens=500, batch_size=4
    )
    with pytest.raises(ValueError, match=r"takes 300 tokens .* at most 256"):
        fast._loglikelihood_tokens([(None, [1], [2] * 300)])
    with pytest.raises(ValueError, match="takes 0 tokens"):
        fast._loglikelihood_tokens([(None, [1], [])])


def test_what_was_cut_is_told_and_an_answer_must_leave_room(tmp_path, caplog):
    fast = SharedPrefixLM(
        ModelRef(str(tiny.folder("llama", tmp_path))), dtype="float32", device="cpu", batch_tokens=500, batch_size=4
    )
    fast._loglikelihood_tokens([(None, [1] * 300, [2]), (None, [1] * 30, [2])])
    assert "1 of 2 contexts do not fit the model's 256 tokens and were cut on the left." in caplog.text
    with pytest.raises(ValueError, match=r"may take 256 tokens, .* Take fewer with --max-new-tokens"):
        fast.generate_until([Instance("generate_until", {}, ("the fox", {"max_gen_toks": 256}), 0)])


def test_generated_answers_do_not_depend_on_the_models_generation_config(tmp_path):
    ref = ModelRef(str(tiny.folder("llama", tmp_path)))
    lm = SharedPrefixLM(ref, dtype="float32", device="cpu", batch_tokens=500, batch_size=2)
    asked = [
        Instance("generate_until", {}, (text, {"until": ["\n"], "max_gen_toks": 8}), 0) for text in ("a fox", "12 + 30")
    ]
    expected = lm.generate_until(asked, disable_tqdm=True)
    for settings in (
        {"repetition_penalty": 1.8},
        {"min_new_tokens": 8},
        {"return_dict_in_generate": True},
        {"num_beams": 3},
    ):
        for name, value in settings.items():
            setattr(lm.model.generation_config, name, value)
        assert lm.generate_until(asked, disable_tqdm=True) == expected


@pytest.mark.parametrize("kind", ["mixtral", "qwen3_moe"])
def test_a_mixture_that_returns_its_routers_is_scored_and_generates_like_any_other(kind, tmp_path):
    """transformers cannot compute the load-balancing loss of a text that is read in parts."""
    save_tiny_model(kind, tmp_path, output_router_logits=True)
    fast = SharedPrefixLM(ModelRef(str(tmp_path)), dtype="float32", device="cpu", batch_tokens=500, batch_size=4)
    whole = replace(fast.scorer, share_prefixes=False)
    asked = [ContinuationRequest(tuple(range(40 + n)), (n, n + 1)) for n in range(5)]
    found, expected = (dict(scorer.score(asked)) for scorer in (fast.scorer, whole))
    for i, score in expected.items():
        assert found[i].logprob == pytest.approx(score.logprob, abs=5e-3)
    until = {"until": ["\n"], "max_gen_toks": 3, "do_sample": False}
    assert fast.generate_until([Instance("generate_until", {}, ("the lazy", until), 0)], disable_tqdm=True)


def test_a_model_whose_body_is_not_its_base_model_is_scored(tmp_path):
    """OPT's base model is never called: its head reads the decoder inside it, here behind a projection."""
    save_tiny_model("opt", tmp_path, word_embed_proj_dim=16, do_layer_norm_before=False)
    model = load_model(ModelRef(str(tmp_path)), "float64")
    text = tuple(range(2, 40))
    scorer = ContinuationScorer.from_model(model)
    (_, score), *_ = scorer.score([ContinuationRequest(text[:30], text[30:])])
    logprobs = model(torch.tensor([text])).logits[0].log_softmax(-1)
    expected = sum(logprobs[n - 1, text[n]].item() for n in range(30, 38))
    assert score.logprob == pytest.approx(expected, abs=1e-6)
