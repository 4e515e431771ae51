"""A server as a backend, over real HTTP, with a tiny real model behind it, against transformers' rows."""

import dataclasses

import pytest
import torch
from pydantic import ValidationError

from fusion.data.encode import encode
from fusion.models.loading import ModelRef, load_tokenizer
from fusion.sources import OpenAI
from tests.helpers import serving, tiny

QUICK = {"model": "tiny", "backoff": 0.01, "max_retries": 2}


@pytest.fixture
def server(tiny_source):
    return serving.Server(tiny_source[0])


def rows_from(server, tiny_source, **settings):
    _, wanted, texts, expected = tiny_source
    with serving.serve(server) as url:
        return OpenAI(url=url, **{**QUICK, **settings}).open(wanted).rows(texts), expected


@pytest.mark.parametrize("settings", [
    {"logprobs_api": "prompt_logprobs"},
    {"logprobs_api": "prompt_logprobs", "prompt": "text"},
    {"logprobs_api": "echo", "extra_body": {"return_tokens_as_token_ids": True}},
])  # fmt: skip
def test_rows_by_token_id_are_those_of_transformers_but_for_the_moments(server, tiny_source, settings):
    rows, expected = rows_from(server, tiny_source, **settings)
    for name in ("logprobs", "gold"):
        torch.testing.assert_close(getattr(rows, name), getattr(expected, name), atol=1e-5, rtol=0)
    for name in ("ids", "prefix", "example", "token"):
        assert torch.equal(getattr(rows, name), getattr(expected, name))
    assert rows.mean.isnan().all()
    assert rows.std.isnan().all()
    assert {seen["path"] for seen in server.seen} == {"/v1/completions"}
    assert {isinstance(seen["prompt"], str) for seen in server.seen} == {settings.get("prompt") == "text"}


def test_rows_by_text_are_right_where_the_text_is_one_tokens_and_leave_out_the_others(server, tiny_source):
    rows, expected = rows_from(server, tiny_source, logprobs_api="echo")
    torch.testing.assert_close(
        rows.gold, expected.gold, atol=1e-5, rtol=0
    )  # the sent token is known, whatever its text
    names = server.tokenizer.batch_decode([[id] for id in range(len(server.tokenizer))])
    single = torch.tensor([names.count(name) == 1 for name in names])
    assert 0 < single.sum() < len(names)
    found = 0
    for row in range(len(rows)):
        kept = {
            id: value for id, value in zip(rows.ids[row].tolist(), rows.logprobs[row].tolist(), strict=True) if id >= 0
        }
        whole = dict(zip(expected.ids[row].tolist(), expected.logprobs[row].tolist(), strict=True))
        for id in whole:
            if single[id]:
                assert kept[id] == pytest.approx(whole[id], abs=1e-5)
        assert all(single[id] or id == int(expected.token[row]) for id in kept)
        found += len(kept)
    assert found < expected.ids.numel()


def test_a_busy_server_is_asked_again(server, tiny_source):
    server.fail = [503, 429]
    rows, expected = rows_from(server, tiny_source, logprobs_api="prompt_logprobs", concurrency=1)
    torch.testing.assert_close(rows.gold, expected.gold, atol=1e-5, rtol=0)
    assert len(server.seen) == 4 + 2


def test_a_server_that_stays_busy_is_given_up_with_its_last_words(server, tiny_source):
    server.fail = [500] * 100
    with pytest.raises(
        ValueError, match=r"completions failed 3 times, the last time with status 500: .*busy.* is kept"
    ):
        rows_from(server, tiny_source)


def test_the_time_a_server_names_is_waited(server, tiny_source, monkeypatch):
    server.fail, server.says, waits = [429], {"Retry-After": "7"}, []
    monkeypatch.setattr("fusion.sources.http.time.sleep", waits.append)
    rows_from(server, tiny_source, logprobs_api="prompt_logprobs", concurrency=1)
    assert waits == [7.0]


def test_a_refusal_is_not_repeated(server, tiny_source):
    server.limit = 5
    with pytest.raises(ValueError, match="refused the request with status 400: .*Requested 6 logprobs, at most 5"):
        rows_from(server, tiny_source, concurrency=1)
    assert len(server.seen) <= 2


def test_no_answer_at_all_is_said(tiny_source):
    _, wanted, texts, _ = tiny_source
    with pytest.raises(ValueError, match=r"http://127.0.0.1:9/v1/completions failed 1 times, .*refused"):
        OpenAI(url="http://127.0.0.1:9/v1", **{**QUICK, "max_retries": 0}).open(wanted).rows(texts)


def test_requests_are_on_the_way_at_once_and_no_more_than_allowed(server, tiny_source):
    server.together = 2
    rows_from(server, tiny_source, logprobs_api="prompt_logprobs", concurrency=2)
    assert server.most == 2


def test_the_key_is_sent_and_never_shown(server, tiny_source, monkeypatch):
    server.key = "sk-secret"
    monkeypatch.setenv("MY_KEY", "sk-secret")
    rows_from(server, tiny_source, logprobs_api="prompt_logprobs", api_key_env="MY_KEY")
    assert {seen["key"] for seen in server.seen} == {"Bearer sk-secret"}
    monkeypatch.setenv("MY_KEY", "sk-other")
    with pytest.raises(ValueError, match="status 401: ") as caught:
        rows_from(server, tiny_source, api_key_env="MY_KEY")
    assert "sk-other" not in str(caught.value)
    assert "***" in str(caught.value)
    source = OpenAI(url="http://a/v1", api_key_env="MY_KEY", **QUICK).open(tiny_source[1])
    assert "sk-other" not in repr(source)
    assert "sk-other" not in str(source.settings.identity())


def test_a_key_that_is_not_set_is_asked_for(tiny_source, monkeypatch):
    monkeypatch.delenv("MY_KEY", raising=False)
    with pytest.raises(ValueError, match="backend.api_key_env names MY_KEY, which is not set"):
        OpenAI(url="http://a/v1", api_key_env="MY_KEY", **QUICK).open(tiny_source[1])


@pytest.mark.parametrize("settings", [{"logprobs_api": "echo"}, {"logprobs_api": "prompt_logprobs"}])
@pytest.mark.parametrize("knows_ids", [True, False])
def test_answers_for_other_tokens_are_refused(server, tiny_source, settings, knows_ids):
    server.adds_bos, server.as_token_ids = True, knows_ids
    with pytest.raises(ValueError, match=r"model tiny: it answered for other tokens than were sent"):
        rows_from(server, tiny_source, **settings)


def test_another_tokenizer_than_the_servers_is_found_out(server, tiny_source, tmp_path):
    _, wanted, _, _ = tiny_source
    tokenizer = load_tokenizer(ModelRef(str(tiny.folder("qwen2", tmp_path / "other"))))
    texts = [encode(tokenizer, [], "the lazy dog")]
    with serving.serve(server) as url, pytest.raises(ValueError, match="other tokens than were sent"):
        OpenAI(url=url, prompt="text", **QUICK).open(dataclasses.replace(wanted, tokenizer=tokenizer)).rows(texts)


def test_a_server_without_the_form_says_so(server, tiny_source, monkeypatch):
    monkeypatch.setattr(server, "complete", lambda body: (200, {"choices": [{"text": "", "logprobs": None}]}))
    with pytest.raises(ValueError, match="tokens were sent, and 0 came back with log-probabilities"):
        rows_from(server, tiny_source, logprobs_api="echo")
    with pytest.raises(ValueError, match="the answer has no prompt_logprobs. Use logprobs_api: echo"):
        rows_from(server, tiny_source, logprobs_api="prompt_logprobs")


def test_a_server_that_takes_no_ids_refuses_and_takes_text(server, tiny_source):
    server.takes_ids = False
    with pytest.raises(ValueError, match="prompt must be a string"):
        rows_from(server, tiny_source, logprobs_api="prompt_logprobs")
    rows, expected = rows_from(server, tiny_source, logprobs_api="prompt_logprobs", prompt="text")
    torch.testing.assert_close(rows.gold, expected.gold, atol=1e-5, rtol=0)


@pytest.mark.parametrize(("url", "message"), [
    ("localhost:8000", "must begin with http"),
    ("https://me:secret@host/v1", "must hold no name or password"),
])  # fmt: skip
def test_an_address_is_checked(url, message):
    with pytest.raises(ValidationError, match=message):
        OpenAI(url=url, model="m")


def test_how_a_server_is_asked_is_no_part_of_what_it_says():
    one = OpenAI(url="http://a/v1", model="m", concurrency=2, timeout=5, api_key_env="X")
    assert one.identity() == OpenAI(url="http://a/v1/", model="m").identity()
    assert one.identity() != OpenAI(url="http://a/v1", model="n").identity()
