"""Answers of servers that are none: the server, the field and the way out, and never a traceback."""

import random

import pytest

from fusion.cli.boundary import user_message
from fusion.sources import OpenAI
from fusion.sources.http import Endpoint
from fusion.sources.openai_server import check_answer
from tests.faults.mutations import spoil_tree
from tests.helpers import serving

ECHO = {"tokens": ["a", "b"], "token_logprobs": [None, -1.0], "top_logprobs": [None, {"b": -1.0}]}
ANSWER = {
    "choices": [
        {"text": "a", "finish_reason": "stop", "logprobs": ECHO, "prompt_logprobs": [None, {"5": {"logprob": -1.0}}]}
    ],
    "usage": {"prompt_tokens": 2},
}


def test_an_answer_in_the_form_of_the_api_passes_with_all_that_it_holds():
    assert check_answer(ANSWER | {"id": 3}) == ANSWER | {"id": 3}


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ([], "all of it"),
        ({}, "choices: Field required"),
        ({"choices": []}, "choices: List should have at least 1 item"),
        ({"choices": ["a"]}, "choices.0"),
        ({"choices": [{"prompt_logprobs": {"0": 1}}]}, "choices.0.prompt_logprobs"),
        ({"choices": [{"prompt_logprobs": [{"x": {"logprob": -1}}]}]}, "prompt_logprobs.0.x"),
        ({"choices": [{"logprobs": ECHO | {"token_logprobs": [-1.0]}}]}, "have 2, 1, 2 items"),
    ],
)
def test_an_answer_of_another_form_is_refused_with_the_field(answer, message):
    with pytest.raises(ValueError, match=f"(?s){message}.*Is backend.url the base of that API"):
        check_answer(answer)


@pytest.mark.parametrize("api", ["echo", "prompt_logprobs"])
def test_no_spoiled_answer_of_a_server_is_a_bug_of_ours(tiny_source, monkeypatch, api):
    _, wanted, texts, _ = tiny_source
    rng, answer, errors = random.Random(0), Endpoint.post, []
    monkeypatch.setattr(Endpoint, "post", lambda self, body: spoil_tree(answer(self, body), rng)[0])
    with serving.serve(serving.Server(tiny_source[0])) as url:
        for _ in range(60):
            try:
                OpenAI(url=url, model="tiny", logprobs_api=api).open(wanted).rows(texts[:1])
            except Exception as error:
                errors.append(error)
    assert len(errors) > 20
    assert [repr(error) for error in errors if not user_message(error) or url not in str(error)] == []


def test_a_key_that_no_header_can_hold_is_refused_unseen(tiny_source, monkeypatch):
    monkeypatch.setenv("A_KEY", "xyzzy\nxyzzy")
    with pytest.raises(ValueError, match="A_KEY, which holds line breaks") as refused:
        OpenAI(url="http://localhost:1/v1", model="tiny", api_key_env="A_KEY").open(tiny_source[1])
    assert "xyzzy" not in str(refused.value)
