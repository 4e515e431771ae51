"""A server as a backend, over real HTTP, with a tiny real model behind it, against transformers' rows."""

import dataclasses
import urllib.request

import pytest
import torch
from pydantic import ValidationError

from fusion.data.encode import encode, truncate_rows
from fusion.models.loading import ModelRef, load_tokenizer
from fusion.sources import OpenAI, SourceRequest, Transformers
from fusion.sources.http import Endpoint, _RefuseRedirects
from fusion.sources.prompt_text import whole_characters
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


@pytest.mark.parametrize("settings", [{}, {"prompt": "text"}])
def test_rows_by_text_are_right_where_a_name_is_one_tokens_and_leave_out_the_others(server, tiny_source, settings):
    rows, expected = rows_from(server, tiny_source, logprobs_api="echo", **settings)
    torch.testing.assert_close(rows.gold, expected.gold, atol=1e-5, rtol=0)  # that of a sent token, whatever its name
    assert entries_are_right(rows, tiny_source) > 0.5 * expected.ids.numel()


def entries_are_right(rows, source):
    """Number of entries, after comparing each with that of transformers."""
    _, wanted, texts, _ = source
    expected, found = Transformers().open(dataclasses.replace(wanted, k=len(wanted.tokenizer))).rows(texts), 0
    for row in range(len(rows)):
        mine = zip(rows.ids[row].tolist(), rows.logprobs[row].tolist(), strict=True)
        whole = dict(zip(expected.ids[row].tolist(), expected.logprobs[row].tolist(), strict=True))
        for id, value in mine:
            if id >= 0:
                found += 1
                assert value == pytest.approx(whole[id], abs=1e-5)
    return found


def test_log_probabilities_that_stand_one_token_early_are_put_back(server, tiny_source, capsys):
    server.kind = "llama_cpp_python"
    many = (*tiny_source[:1], dataclasses.replace(tiny_source[1], k=100), *tiny_source[2:])
    rows, expected = rows_from(server, many, prompt="text")
    assert entries_are_right(rows, many) > 0.5 * rows.ids.numel()
    known = rows.gold.isfinite()
    torch.testing.assert_close(rows.gold[known], expected.gold[known], atol=1e-5, rtol=0)
    assert 0 < known.sum() < len(rows)
    for row in known.nonzero().flatten():
        assert rows.token[row] in rows.ids[row]  # known only where it is among the entries
    assert "one token too early" in " ".join(capsys.readouterr().out.split())


@pytest.fixture(scope="module")
def bos_source(tmp_path_factory):
    """What `tiny_source` is, of a model whose prompts begin with BOS."""
    folder = tiny.folder("cohere", tmp_path_factory.mktemp("bos") / "cohere", padding=0)
    tokenizer = load_tokenizer(ModelRef(str(folder)))
    wanted = SourceRequest(ModelRef(str(folder)), tokenizer, k=6)
    texts = [
        encode(tokenizer, [{"role": "user", "content": "number\n"}], word) for word in ("the lazy dog", "naïve 北京 🙂")
    ]
    return folder, wanted, texts, Transformers().open(wanted).rows(texts)


@pytest.mark.parametrize("adds_bos", [True, False])
def test_behind_bos_all_true_tokens_are_known_though_the_server_hides_it(bos_source, adds_bos):
    server = serving.Server(bos_source[0], kind="llama_cpp_python", adds_bos=adds_bos)
    assert server.tokenizer.bos_token_id == bos_source[2][0].input_ids[0]
    rows, expected = rows_from(server, bos_source, prompt="text")
    torch.testing.assert_close(rows.gold, expected.gold, atol=1e-5, rtol=0)
    assert entries_are_right(rows, bos_source) > len(rows)
    assert {seen["prompt"].startswith("<|begin|>") for seen in server.seen[1:]} == {not adds_bos}


def test_a_server_that_puts_a_token_before_texts_without_bos_is_refused(server, tiny_source):
    server.kind, server.adds_bos = "llama_cpp_python", True
    with pytest.raises(ValueError, match=r"puts a token before every text, and .* does not begin with BOS"):
        rows_from(server, tiny_source, prompt="text")


def test_a_text_that_is_cut_otherwise_is_refused_before_it_is_sent(server, tiny_source):
    _, wanted, _, _ = tiny_source
    text = encode(wanted.tokenizer, [{"role": "user", "content": "the la"}], "zy dog")
    source = (server, (None, wanted, [text], None))
    with pytest.raises(
        ValueError, match=r"model tiny: as text, 'the lazy dog.*' is cut into other tokens .*prompt: ids"
    ):
        rows_from(*source, prompt="text")


def test_a_character_cut_in_two_at_the_end_is_not_sent_as_text_and_stays_unknown(server, tiny_source):
    _, wanted, _, _ = tiny_source
    text = truncate_rows(encode(wanted.tokenizer, [{"role": "user", "content": "number"}], "the ☃"), 3)
    assert len(whole_characters(wanted.tokenizer, text.input_ids)) < len(text.input_ids)
    expected = Transformers().open(wanted).rows([text])
    rows, _ = rows_from(server, (None, wanted, [text], None), prompt="text")
    known = rows.gold.isfinite()
    assert not known[-1]
    assert known[0]
    torch.testing.assert_close(rows.gold[known], expected.gold[known], atol=1e-5, rtol=0)


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
    with pytest.raises(ValueError, match=r"model tiny: .*it answered for other tokens than were sent"):
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


@pytest.mark.parametrize("kind", ["llama_cpp_python", "transformers_serve"])
def test_a_server_that_takes_no_ids_is_asked_once_and_the_way_out_is_named(server, tiny_source, kind):
    server.kind = kind
    with pytest.raises(
        ValueError, match=r"refused the request .*string.* This server takes no token ids: set backend.prompt to"
    ):
        rows_from(server, tiny_source)
    assert len(server.seen) == 1


def test_a_server_that_ignores_echo_is_refused(server, tiny_source):
    server.kind = "transformers_serve"
    with pytest.raises(ValueError, match=r"0 came back with log-probabilities\. The server must support echo"):
        rows_from(server, tiny_source, prompt="text")


@pytest.mark.parametrize(("change", "message"), [
    (lambda value: value + 30, "are no natural-log probabilities: the highest is"),
    (lambda value: value / 20, "of the probability together"),
    (lambda value: value * 8, r"model tiny: row 0 .* all other tokens .* cannot have the rest .* look like logits"),
])  # fmt: skip
def test_numbers_that_are_no_log_probabilities_are_refused(server, tiny_source, monkeypatch, change, message):
    def changed(model, ids, k):
        listed = serving_prompt_logprobs(model, ids, k)
        return [entries and {id: serving.Logprob(change(e.logprob)) for id, e in entries.items()} for entries in listed]

    serving_prompt_logprobs = serving.prompt_logprobs
    monkeypatch.setattr(serving, "prompt_logprobs", changed)
    text = encode(tiny_source[1].tokenizer, [], "the quick brown fox " * 10)
    with pytest.raises(ValueError, match=message):
        rows_from(server, (None, tiny_source[1], [text], None), logprobs_api="prompt_logprobs")


@pytest.mark.parametrize(("url", "message"), [
    ("localhost:8000", "must begin with http"),
    ("https://me:secret@host/v1", r"url \(a name or password in an address\)\. Take it out, and name .* backend\.api_key_env"),
    ("https://host/v1?api-key=secret", r"url \(the query api-key of an address\)"),
    ("https://host/v1?api-version=1", r"must be a base URL without \? and #"),
])  # fmt: skip
def test_an_address_is_checked(url, message):
    with pytest.raises(ValidationError, match=message) as caught:
        OpenAI(url=url, model="m")
    assert "secret@" not in str(caught.value)
    assert "=secret" not in str(caught.value)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_no_redirect_takes_key_or_texts_to_another_host(server, tiny_source, monkeypatch, status):
    other = serving.Server(server.folder)
    server.fail, server.key = [status], "a-key-of-some-length"
    monkeypatch.setenv("MY_KEY", f"{server.key}\n")
    with serving.serve(server) as url, serving.serve(other) as elsewhere:
        server.says = {"Location": f"{elsewhere}/completions?token=theirs"}
        source = OpenAI(url=url, api_key_env="MY_KEY", **QUICK).open(tiny_source[1])
        with pytest.raises(
            ValueError, match=rf"^{url}/completions sends .* on to {elsewhere[:-3]} \(status {status}\)"
        ) as found:
            source.rows(tiny_source[2][:1])
    assert other.seen == []
    assert len(server.seen) == 1
    assert "theirs" not in str(found.value)
    assert f"meant for {url[:-3]} alone. If that is where the server is, set backend.url" in str(found.value)


def test_a_redirect_to_an_address_without_encryption_is_called_that():
    request = urllib.request.Request("https://a/v1/completions", b"{}")
    with pytest.raises(ValueError, match="on to http://a, without encryption"):
        _RefuseRedirects().redirect_request(request, None, 302, "", {}, "http://a/v1/completions")


def test_an_answer_that_repeats_the_key_is_not_kept(server, tiny_source, monkeypatch):
    server.key = "a-key-of-some-length"
    monkeypatch.setenv("MY_KEY", server.key)
    monkeypatch.setattr(server, "complete", lambda body: (200, {"choices": [{"text": f"Bearer {server.key}"}]}))
    with pytest.raises(ValueError, match="its answer repeats the key that was sent") as caught:
        rows_from(server, tiny_source, api_key_env="MY_KEY")
    assert server.key not in str(caught.value)


def test_a_key_that_http_would_show_is_refused_before(tiny_source):
    with pytest.raises(ValueError, match="The key for http://a/v1 holds spaces, line breaks") as caught:
        Endpoint("http://a/v1", "a-key\n", 1.0, 0, 0.0)
    assert "a-key" not in str(caught.value)


def test_passwords_of_a_proxy_are_not_shown_where_it_fails(tiny_source, monkeypatch):
    monkeypatch.setenv("http_proxy", "http://joe:pa/ss9word@127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)
    with pytest.raises(ValueError, match=r"^http://a/v1/completions failed 1 times") as caught:
        OpenAI(url="http://a/v1", **{**QUICK, "max_retries": 0}).open(tiny_source[1]).rows(tiny_source[2][:1])
    assert "joe" not in str(caught.value)
    assert "word" not in str(caught.value)


def test_how_a_server_is_asked_is_no_part_of_what_it_says():
    one = OpenAI(url="http://a/v1", model="m", concurrency=2, timeout=5, api_key_env="X")
    assert one.identity() == OpenAI(url="http://a/v1/", model="m").identity()
    assert one.identity() != OpenAI(url="http://a/v1", model="n").identity()
