"""Answers of real servers, recorded: what they name tokens, and where they put their numbers.

`recorded/` holds one file a server: its version, and what it answered to `Naïve ☕ 🦤.` in SmolLM2's tokens, as ids or as text,
in a turn of a chat (`bos`) or alone (`plain`). `smollm2_pieces.json` holds the tokens that occur.
"""

import copy
import json
from functools import partial
from pathlib import Path

import pytest
from transformers import PreTrainedTokenizerFast

from fusion.sources.echo import measure_lag, read_echo
from fusion.sources.prompt_logprobs import read_prompt_logprobs
from fusion.sources.token_names import token_names
from tokenizers import AddedToken, Tokenizer, decoders, models

FOLDER = Path(__file__).parent / "recorded"
LAGS = {("vllm", "bos ids"): 0, ("vllm", "bos text"): 0, ("vllm", "plain ids"): 0,
        ("llama_cpp_python", "bos text"): 0, ("llama_cpp_python", "plain text"): 1}  # fmt: skip


def recorded(server, name):
    return json.loads((FOLDER / f"{server}.json").read_text())["exchanges"][name]


@pytest.fixture(scope="module")
def names():
    """The names of the recorded tokens, at SmolLM2's own ids."""
    pieces = json.loads((FOLDER / "smollm2_pieces.json").read_text())
    tokenizer = Tokenizer(models.BPE({piece: int(id) for id, piece in pieces.items()}, []))
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(text, special=True) for text in ("<|im_start|>", "<|im_end|>")])
    return token_names(PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<|im_start|>"))


def test_vllms_echo_says_what_its_prompt_logprobs_say(names):
    exact = recorded("vllm", "prompt_logprobs")
    expected = read_prompt_logprobs(exact["answer"], exact["ids"])
    for form in ("bos ids", "bos text"):
        echo = recorded("vllm", form)
        listed = read_echo(echo["answer"], echo["ids"], names, 0)
        for id, mine, whole in zip(echo["ids"][1:], listed[1:], expected[1:], strict=True):
            assert mine[id] == pytest.approx(whole[id], abs=1e-3)
            assert all(value == pytest.approx(whole[other], abs=1e-3) for other, value in mine.items())
        assert sum(map(len, listed)) > 0.7 * sum(map(len, expected))


def test_a_whole_character_is_taken_for_the_token_that_completes_it(names):
    echo = recorded("vllm", "plain ids")
    listed = read_echo(echo["answer"], echo["ids"], names, 0)
    place = echo["answer"]["choices"][0]["logprobs"]["tokens"].index(" 🦤")
    assert echo["ids"][place] in listed[place]
    assert names.id_of(" 🦤", b" \xf0\x9f\xa6") == echo["ids"][place]
    assert names.id_of(" 🦤", b"") == -1


def test_llama_cpp_python_agrees_with_vllm_behind_bos_within_what_four_bits_explain(names):
    exact, echo = recorded("vllm", "prompt_logprobs"), recorded("llama_cpp_python", "bos text")
    expected = read_prompt_logprobs(exact["answer"], exact["ids"])
    listed = read_echo(echo["answer"], echo["ids"], names, 0)
    pairs = list(zip(echo["ids"], listed, expected, strict=True))[2:]  # BOS is hidden, and the token behind it has none
    differences = [abs(mine[id] - whole[id]) for id, mine, whole in pairs]
    assert max(differences) < 1
    assert sum(differences) / len(differences) < 0.3


def test_llama_cpp_python_stands_one_token_early_without_bos_and_is_put_back(names):
    ours, theirs = recorded("llama_cpp_python", "plain text"), recorded("vllm", "plain ids")
    expected = read_echo(theirs["answer"], theirs["ids"], names, 0)
    right, wrong = (read_echo(ours["answer"], ours["ids"], names, lag) for lag in (1, 0))
    shared = [
        (mine[id], whole[id]) for mine, whole in zip(right[2:], expected[2:], strict=True) for id in mine.keys() & whole
    ]
    assert len(shared) > 3
    assert all(a == pytest.approx(b, abs=0.5) for a, b in shared)
    assert any(
        abs(wrong[n][id] - expected[n][id]) > 3 for n in range(2, len(wrong)) for id in wrong[n].keys() & expected[n]
    )


def test_where_numbers_stand_is_found_from_two_prompts_that_end_differently(names):
    def answer(sent, lag):
        items = [
            {f"token_id:{id}": -1.0, f"token_id:{sum(sent[: at + lag]) % 50 + 60}": -0.5} for at, id in enumerate(sent)
        ]
        lists = {
            "tokens": [f"token_id:{id}" for id in sent],
            "top_logprobs": items,
            "token_logprobs": [-1.0] * len(sent),
        }
        return {"choices": [{"logprobs": lists}]}

    prompts = [3, 4, 5], [3, 4, 9]
    assert [measure_lag(partial(answer, lag=lag), names, prompts) for lag in (0, 1)] == [0, 1]
    with pytest.raises(ValueError, match="cannot be placed"):
        measure_lag(partial(answer, lag=2), names, prompts)


@pytest.mark.parametrize("server", ["llama_server", "transformers_serve"])
def test_servers_without_prompt_log_probabilities_are_refused(names, server):
    echo = recorded(server, "bos text")
    with pytest.raises(ValueError, match="0 came back with log-probabilities. The server must support echo"):
        read_echo(echo["answer"], echo["ids"], names, 0)


@pytest.mark.parametrize(("server", "form"), list(LAGS))
def test_one_other_token_is_refused(names, server, form):
    echo, lag = recorded(server, form), LAGS[server, form]
    read_echo(echo["answer"], echo["ids"], names, lag)
    for place, other in ((2, 4093), (5, 30)):
        sent = [*echo["ids"][:place], other, *echo["ids"][place + 1 :]]
        with pytest.raises(ValueError, match="it answered for other tokens than were sent"):
            read_echo(echo["answer"], sent, names, lag)
    with pytest.raises(ValueError, match="it answered for other tokens than were sent: "):
        read_echo(echo["answer"], echo["ids"][:-1], names, lag)


def test_nothing_may_be_null_but_the_first_token(names):
    exact = recorded("vllm", "bos ids")
    answer = copy.deepcopy(exact["answer"])
    answer["choices"][0]["logprobs"]["top_logprobs"][3] = None
    with pytest.raises(ValueError, match=r"nothing \(null\) is listed at token 3 of"):
        read_echo(answer, exact["ids"], names, 0)
