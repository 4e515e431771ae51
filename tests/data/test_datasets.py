"""Data sets to examples: every kind of file, every way of naming columns, and what is refused."""

import gzip
import json
import re

import pytest

from fusion.data import datasets
from fusion.data.example import Example, other_answers

ROWS = [
    {"question": "what is 2 + 2?", "answer": "four {4}", "level": 1},
    {"question": "say nothing", "answer": "", "level": 1},
    {"question": "naïve 北京 🙂", "answer": "tab\tand\r\nline", "level": 2},
    {"question": "again", "answer": "once more", "level": 2},
]


@pytest.fixture(params=["jsonl", "jsonl.gz", "json", "parquet", "csv"])
def file(request, tmp_path):
    place = tmp_path / f"rows.{request.param}"
    text = "\n".join(json.dumps(row) for row in ROWS)
    match request.param:
        case "jsonl":
            place.write_text(text)
        case "jsonl.gz":
            place.write_bytes(gzip.compress(text.encode()))
        case "json":
            place.write_text(json.dumps(ROWS))
        case _:
            from datasets import Dataset

            data = Dataset.from_list(ROWS)
            data.to_parquet(place) if request.param == "parquet" else data.to_csv(place)
    return place


def load(file, **settings):
    return datasets.load(str(file), domain="d", prompt="{question}", response="{answer}", **settings)


def test_every_format_gives_the_same_examples(file):
    examples = load(file)
    assert [e.response for e in examples] == ["four {4}", "tab\tand\r\nline", "once more"]
    assert examples[0].messages == ({"role": "user", "content": "what is 2 + 2?"},)
    assert {e.domain for e in examples} == {"d"}


@pytest.fixture
def plain(tmp_path):
    place = tmp_path / "rows.jsonl"
    place.write_text("\n".join(json.dumps(row) for row in ROWS))
    return place


def test_skip_limit_where_and_shuffle(plain):
    assert [e.response for e in load(plain, skip=1, limit=1)] == ["tab\tand\r\nline"]
    assert [e.response for e in load(plain, where={"level": 2})] == ["tab\tand\r\nline", "once more"]
    orders = {tuple(e.response for e in load(plain, shuffle=seed)) for seed in range(20)}
    assert len(orders) > 1
    assert load(plain, shuffle=3) == load(plain, shuffle=3)


def test_a_conversation_ends_with_its_last_answer(tmp_path):
    turns = [{"role": r, "content": c} for r, c in [("system", "s"), ("user", "a"), ("assistant", "b"), ("user", "c")]]
    (tmp_path / "x.jsonl").write_text(json.dumps({"talk": [*turns, {"role": "assistant", "content": "d"}]}))
    (example,) = datasets.load(str(tmp_path / "x.jsonl"), domain="chat", messages="talk")
    assert example.response == "d"
    assert list(example.messages) == turns


def test_raw_text_becomes_continuation(tmp_path):
    (tmp_path / "x.jsonl").write_text(json.dumps({"text": "one two three four five six seven"}))
    settings = {"prompt": "", "response": "{text}", "template": "plain", "prompt_chars": 5, "response_chars": 17}
    (example,) = datasets.load(str(tmp_path / "x.jsonl"), domain="prose", **settings)
    assert (example.prompt, example.response) == ("one two ", "three four five")


def test_conversations_and_chosen_answers_become_one_raw_text(tmp_path):
    talk = [
        {"role": r, "content": c} for r, c in [("user", "a"), ("assistant", "b"), ("user", "c"), ("assistant", "d")]
    ]
    row = {"talk": talk, "prompt": "ask", "chosen": "good", "rejected": "bad"}
    (tmp_path / "x.jsonl").write_text(json.dumps(row))
    for settings, text in [
        ({"messages": "talk"}, "a\nb\nc\nd"),
        ({"response": "{chosen}"}, "ask\ngood"),
        ({"response": "{chosen}", "system": "be kind"}, "be kind\nask\ngood"),
        ({"prompt": "", "response": "{chosen}"}, "good"),
    ]:
        (example,) = datasets.load(str(tmp_path / "x.jsonl"), domain="d", as_raw_text=True, **settings)
        assert example == Example((), text, "d", "plain")
    (cut,) = datasets.load(str(tmp_path / "x.jsonl"), domain="d", messages="talk", as_raw_text=True, response_chars=5)
    assert cut.response == "a\nb\nc"


def test_chosen_answers_are_learned_behind_their_prompt_as_text_or_as_a_conversation(tmp_path):
    talk = [{"role": "user", "content": "ask"}, {"role": "assistant", "content": "good"}]
    (tmp_path / "x.jsonl").write_text(json.dumps({"prompt": "ask", "chosen": "good", "rejected": "bad"}))
    (tmp_path / "y.jsonl").write_text(json.dumps({"chosen": talk, "rejected": talk}))
    (text,) = datasets.load(str(tmp_path / "x.jsonl"), domain="d", response="{chosen}")
    (conversation,) = datasets.load(str(tmp_path / "y.jsonl"), domain="d", messages="chosen")
    assert text == conversation == Example(tuple(talk[:1]), "good", "d")


def test_an_id_names_the_content_and_nothing_else():
    one = Example(({"role": "user", "content": "a"},), "b", "x")
    assert one.id == Example(({"role": "user", "content": "a"},), "b", "y").id
    assert one.id != Example(({"role": "user", "content": "a"},), "b ", "x").id
    assert one.id != Example((), "b", "x").id


def test_builtin_data_is_the_same_every_time_and_noise_changes_answers_only():
    clean = datasets.load("builtin:sums", domain="sums", split="fusion", limit=50, shuffle=1)
    noisy = datasets.load("builtin:sums", domain="sums", split="fusion", limit=50, shuffle=1, label_noise=0.5)
    assert clean == datasets.load("builtin:sums", domain="sums", split="fusion", limit=50, shuffle=1)
    assert [e.prompt for e in clean] == [e.prompt for e in noisy]
    assert 10 < sum(a.response != b.response for a, b in zip(clean, noisy, strict=True)) < 40


@pytest.mark.parametrize(
    ("content", "settings", "message"),
    [
        ("", {}, "gives no example"),
        ('{"question": "a", "answer": ""}', {}, "gives no example"),
        ('{"question": "a"}', {}, r"no column 'answer'; the columns are question"),
        ('{"question": "a", "answer": "b"}', {"where": {"kind": 1}}, "no column 'kind' to choose rows by"),
        ('{"question": "a", "answer": "b"}', {"messages": "talk"}, "no column 'talk'"),
    ],
)
def test_unusable_data_is_refused_with_the_reason(tmp_path, content, settings, message):
    (tmp_path / "x.jsonl").write_text(content)
    with pytest.raises(ValueError, match=message):
        load(tmp_path / "x.jsonl", **settings)


@pytest.mark.parametrize(
    ("path", "hub"),
    [
        ("openai/gsm8k", True),
        ("squad", True),
        ("builtin:sums", False),
        ("data/a.jsonl", False),
        ("a.csv.gz", False),
        ("./x/y", False),
        ("~/a", False),
    ],
)
def test_a_hub_id_is_told_from_a_file_by_its_name(path, hub):
    assert datasets.is_hub_id(path) is hub


def test_a_missing_or_unknown_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="absent.jsonl does not exist"):
        load(tmp_path / "absent.jsonl")
    (tmp_path / "x.txt").write_text("hello")
    with pytest.raises(ValueError, match=r"ends in .txt; data files end in .jsonl"):
        load(tmp_path / "x.txt")
    with pytest.raises(ValueError, match="Unknown skill"):
        datasets.load("builtin:cooking", domain="x")


def said(response, *turns, **more):
    messages = tuple({"role": role, "content": content} for role, content in turns)
    return Example(messages, response, more.pop("domain", "d"), **more)


def test_another_answer_is_the_next_one_to_the_same_prompt_in_a_circle():
    asked, else_asked = ("user", "2 + 2?"), ("user", "3 + 3?")
    one, two, three = said("4", asked), said("2 and 2 is 4", asked, domain="thought"), said("four", asked)
    alone = said("6", else_asked)
    examples = [one, alone, two, three, one]
    assert other_answers(examples) == [two.id, None, three.id, one.id, two.id]
    assert other_answers([one, two]) == [two.id, one.id]


def test_system_messages_may_differ_between_answers_and_other_turns_may_not():
    one, two = said("4", ("user", "2 + 2?")), said("so 4", ("system", "Think."), ("user", "2 + 2?"))
    assert other_answers([one, two]) == [two.id, one.id]
    longer = said("so 4", ("user", "Hi."), ("assistant", "Yes?"), ("user", "2 + 2?"))
    spoken = said("so 4", ("assistant", "2 + 2?"))
    replied = said("4", ("user", "Hi."), ("assistant", "What?"), ("user", "2 + 2?"))
    assert other_answers([one, longer, spoken, replied]) == [None] * 4


def test_the_same_answer_twice_and_raw_text_are_no_other_answers():
    again = said("4", ("system", "Be brief."), ("user", "2 + 2?"))
    assert other_answers([said("4", ("user", "2 + 2?")), again]) == [None, None]
    assert other_answers([said("a text"), said("another")]) == [None, None]
    assert other_answers([]) == []


ASKED = {"question": "How much is 2 + 3?", "answer": "5"}


@pytest.mark.parametrize(("row", "settings", "message"), [
    (ASKED | {"choices": ["4", "5"]}, {}, "column choices has answers to choose among"),
    (ASKED | {"solution": "2 + 3 = 5"}, {}, "both answer and solution could be the response"),
    ({"text": "Write a sum.", "code": "2 + 3"}, {}, "the columns text, code do not tell prompt and response"),
    ({"prompt": "a", "completion": "b", "label": False}, {}, "where: {label: true}"),
    (ASKED, {"prompt": "question", "response": "{answer}"}, 'prompt is "question", which is the name of a column'),
    (ASKED, {"prompt": "{question}", "response": "answer"}, 'write "{answer}"'),
])  # fmt: skip
def test_columns_that_would_be_missed_or_learned_wrongly_are_refused(row, settings, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        datasets.from_rows([row], domain="d", **settings)


def test_they_are_read_where_it_is_said_how():
    labelled = [{"prompt": "a", "completion": "b", "label": label} for label in (False, True)]
    assert len(datasets.from_rows(labelled, domain="d", where={"label": True}).examples) == 1
    (solved,) = datasets.from_rows([ASKED | {"solution": "2 + 3 = 5"}], domain="d", response="{solution}").examples
    assert solved.response == "2 + 3 = 5"
    (with_context,) = datasets.from_rows([ASKED | {"context": "CREATE TABLE t"}], domain="d").examples
    assert with_context.prompt == "How much is 2 + 3?\n\nCREATE TABLE t"
    (raw,) = datasets.from_rows([{"text": "Once upon a time", "label": 1}], domain="d").examples
    assert raw.response == "Once upon a time"


def test_a_format_of_datasets_is_no_data_set():
    with pytest.raises(ValueError, match=r"json is a format of datasets and no data set; give the file itself as path"):
        datasets.read("json", domain="d")
