"""JSON lines, our own and vLLM's, against the log-probabilities they were made from."""

import json

import pytest
import torch

from fusion.sources.importers import match_to_examples, read_sequences
from tests.helpers import dump_writers


def plain(truth, id, k, first=1):
    values, ids = (part[first - 1 :].tolist() for part in truth.top(id, k))
    return {"input_ids": truth.texts[id].input_ids, "ids": ids, "logprobs": values, "first": first}


def prompt(truth, id, k):
    """As vLLM has it: the token itself, then the k most likely."""
    text, (values, ids) = truth.texts[id], truth.top(id, k)
    listed = [None]
    for at, token in enumerate(text.input_ids[1:]):
        entries = {str(token): {"logprob": truth.whole[id][at, token].item(), "rank": None, "decoded_token": "?"}}
        best = zip(ids[at].tolist(), values[at].tolist(), strict=True)
        listed.append(
            entries | {str(i): {"logprob": v, "rank": n + 1, "decoded_token": "?"} for n, (i, v) in enumerate(best)}
        )
    return {"prompt_token_ids": text.input_ids, "prompt_logprobs": listed}


def check(truth, found, k, gold_known):
    for id in truth.texts:
        values, ids, gold = truth.expected(id, k)
        torch.testing.assert_close(found[id].logprobs.double(), values, atol=1e-6, rtol=0)
        assert torch.equal(found[id].ids, ids)
        if gold_known:
            torch.testing.assert_close(found[id].gold.double(), gold, atol=1e-6, rtol=0)


@pytest.mark.parametrize("whole", [False, True])
def test_vllms_prompts_know_gold_everywhere(truth, tmp_path, whole):
    rows = [prompt(truth, id, 5) for id in truth.texts]
    file = dump_writers.lines(tmp_path / "out.jsonl", [{"id": "x", "choices": rows}] if whole else rows)
    found, counts = match_to_examples(read_sequences("vllm", [file]), truth.texts, 5, truth.vocabulary)
    assert counts == {"matched": 4}
    check(truth, found, 5, gold_known=True)


def test_our_own_lines_may_begin_at_the_response_and_know_more(truth, tmp_path):
    rows = []
    for id, text in truth.texts.items():
        moments = {"mean": truth.whole[id].mean(-1), "std": truth.whole[id].std(-1, correction=0)}
        gold = truth.whole[id].gather(1, torch.tensor(text.input_ids[1:])[:, None])[:, 0]
        facts = {name: value[text.start - 1 :].tolist() for name, value in {**moments, "gold": gold}.items()}
        rows.append(plain(truth, id, 5, first=text.start) | facts)
    found, _ = match_to_examples(
        read_sequences("jsonl", [dump_writers.lines(tmp_path / "own.jsonl", rows)]), truth.texts, 5, truth.vocabulary
    )
    check(truth, found, 5, gold_known=True)
    for id, text in truth.texts.items():
        torch.testing.assert_close(
            found[id].mean.double(), truth.whole[id].mean(-1)[text.start - 1 :], atol=1e-5, rtol=0
        )
        assert found[id].std.isfinite().all()


def test_a_row_keeps_the_k_most_likely_and_is_filled_up_where_there_are_fewer(truth, tmp_path):
    file = dump_writers.lines(tmp_path / "own.jsonl", [plain(truth, id, 5) for id in truth.texts])
    few, _ = match_to_examples(read_sequences("jsonl", [file]), truth.texts, 3, truth.vocabulary)
    check(truth, few, 3, gold_known=False)
    many, _ = match_to_examples(read_sequences("jsonl", [file]), truth.texts, 8, truth.vocabulary)
    assert (many["id0"].ids[:, 5:] == -1).all()
    assert many["id0"].logprobs[:, 5:].isneginf().all()


@pytest.mark.parametrize(("form", "line", "message"), [
    ("jsonl", {"input_ids": [1, 2]}, r"line 2: 'logprobs' is missing. docs/sources.md"),
    ("jsonl", {"input_ids": [1, 2], "ids": [[1]], "logprobs": [[-1.0, -2.0]]}, r"line 2: there must be as many of each"),
    ("jsonl", {"input_ids": [1, 2], "ids": [[1]], "logprobs": [[-1.0]], "gold": [-1.0, -2.0]}, r"'gold': 2"),
    ("jsonl", [1, 2], r"line 2: it holds a list, and must hold an object"),
    ("vllm", {"prompt_token_ids": [1, 2], "prompt_logprobs": None}, r"line 2: .*docs/sources.md"),
    ("vllm", {"prompt_token_ids": [1, 2], "prompt_logprobs": [None]}, r"line 2: 2 tokens have 1 entries"),
])  # fmt: skip
def test_a_line_of_another_kind_is_named(truth, tmp_path, form, line, message):
    good = prompt(truth, "id0", 2) if form == "vllm" else plain(truth, "id0", 2)
    with pytest.raises(ValueError, match=message):
        list(read_sequences(form, [dump_writers.lines(tmp_path / "x.jsonl", [good, line])]))


def test_what_is_no_json_is_named(tmp_path):
    (tmp_path / "x.jsonl").write_text(json.dumps({"input_ids": []})[:-3])
    with pytest.raises(ValueError, match=r"x.jsonl, line 1: "):
        list(read_sequences("jsonl", [tmp_path / "x.jsonl"]))


def test_what_is_no_utf_8_is_named(tmp_path):
    (tmp_path / "x.jsonl").write_bytes(b'{"input_ids": "caf\xe9"}')
    with pytest.raises(ValueError, match=r"x.jsonl, line 1: .*utf-8"):
        list(read_sequences("jsonl", [tmp_path / "x.jsonl"]))
