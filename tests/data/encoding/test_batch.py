"""Many conversations at once are encoded as one by one: the same ids, prefixes, cuts, and the same first refusal."""

import itertools
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from fusion.data.encode import encode, encode_prompt
from fusion.data.encoding import Conversation, batch, encode_batch, encode_prompt_batch
from fusion.data.prompt_format import PromptFormat
from tests.field.chat_templates import FAMILIES
from tests.helpers.tiny_tokenizers import ALL, byte_level, llama_style

REAL = os.environ.get("FUSION_REAL_MODELS")
NASTY = [
    *[
        "",
        " ",
        "  seven",
        "seven\n",
        "\n\nseven",
        "7",
        "The cat sat.",
        "café naïve",
        "cafe\u0301 ﬁn",
        "日本語\n\nnaïve",
    ],
    *[
        "👩\u200d👧",
        "<|im_end|>",
        "a </s> b",
        "<think>why</think>7",
        "<think>\n\n</think>\n\n7",
        "\u2581a",
        "\t\r\n\0",
        "<0x41>",
    ],
    "[INST] x [/INST]",
]
ASKS = [
    [{"role": "user", "content": "Why?"}],
    [{"role": "user", "content": " How <|im_start|> many? "}],
    [{"role": "system", "content": "Be short."}, {"role": "user", "content": "Why?"}],
    [{"role": "user", "content": "日本?"}, {"role": "assistant", "content": "a"}, {"role": "user", "content": "b\n"}],
    [],
]
TEXTS = st.one_of(st.lists(st.sampled_from(NASTY), max_size=4).map("".join), st.text(max_size=20))


def one_by_one(tokenizer, conversations, max_length=None):
    """What `encode` gives for each, or the first error with the number of its conversation."""
    found = []
    for number, each in enumerate(conversations):
        try:
            found.append(
                encode(tokenizer, each.messages, each.response, prompt_format=each.prompt_format, max_length=max_length)
            )
        except ValueError as error:
            return number, str(error)
    return found


def together(tokenizer, conversations, max_length=None):
    """The same from `encode_batch`, where the place of each conversation is its number."""
    numbered = [each._replace(origin=f"row {number}") for number, each in enumerate(conversations)]
    try:
        return list(encode_batch(tokenizer, numbered, max_length))
    except ValueError as error:
        place, _, message = str(error).partition(": ")
        return int(place.removeprefix("row ")), message


def accepted(tokenizer, conversations):
    """Those that `encode` does not refuse."""
    return [each for each in conversations if isinstance(one_by_one(tokenizer, [each]), list)]


def grid(form: PromptFormat) -> list[Conversation]:
    """Every prompt with every response."""
    return [Conversation(ask, response, form) for ask, response in itertools.product(ASKS, NASTY)]


def check(tokenizer, conversations):
    """Compare the two on all that are accepted, whole and cut, and on all as they are."""
    good = accepted(tokenizer, conversations)
    assert len(good) > len(NASTY)
    longest = max(len(text.input_ids) for text in encode_batch(tokenizer, good))
    for limit in (None, 40, longest - 1):
        assert together(tokenizer, good, limit) == one_by_one(tokenizer, good, limit)
    assert together(tokenizer, conversations) == one_by_one(tokenizer, conversations)
    prompts = [encode_prompt(tokenizer, each.messages, prompt_format=each.prompt_format) for each in good]
    assert encode_prompt_batch(tokenizer, good) == prompts


@pytest.mark.parametrize("template", ["plain", "auto"])
@pytest.mark.parametrize("kind", ALL)
def test_every_tokenizer_encodes_many_as_one_by_one(kind, template):
    check(ALL[kind](), grid(PromptFormat(template=template)))


@pytest.mark.parametrize("family", FAMILIES)
def test_every_template_encodes_many_as_one_by_one(family):
    check(FAMILIES[family].tokenizer(), grid(FAMILIES[family].prompt_format))


@pytest.mark.real
@pytest.mark.skipif(not REAL, reason="FUSION_REAL_MODELS names no folder of real models")
@pytest.mark.parametrize("name", ["smollm2-135m-instruct", "qwen2.5-coder-0.5b-instruct", "gemma-3-270m"])
def test_real_tokenizers_encode_many_as_one_by_one(name):
    check(AutoTokenizer.from_pretrained(Path(REAL or "") / name), grid(PromptFormat()))


@settings(max_examples=30, deadline=None)
@given(st.lists(TEXTS, max_size=5), st.lists(TEXTS, max_size=5), st.sampled_from(sorted(ALL)))
def test_any_texts_are_encoded_as_one_by_one(asked, answers, kind):
    pairs = itertools.product(asked, answers)
    conversations = [Conversation([{"role": "user", "content": a}], b, PromptFormat()) for a, b in pairs]
    good = accepted(ALL[kind](), conversations)
    assert together(ALL[kind](), good) == one_by_one(ALL[kind](), good)


def test_formats_may_differ_within_a_batch():
    forms = [PromptFormat(), PromptFormat("plain"), PromptFormat(shots="1 2 3\n"), PromptFormat(stop=("\n",))]
    mixed = [Conversation(ASKS[0], "seven", form) for form in forms] * 2
    assert together(byte_level(), mixed) == one_by_one(byte_level(), mixed)


def test_chunks_follow_one_another(monkeypatch):
    monkeypatch.setattr(batch, "CHUNK", 3)
    many = accepted(byte_level(), grid(PromptFormat()))
    assert together(byte_level(), many) == one_by_one(byte_level(), many)
    assert list(encode_batch(byte_level(), [])) == []


@pytest.mark.parametrize(
    ("broken", "form", "limit", "problem"),
    [
        (
            Conversation(ASKS[0], "a\nb", PromptFormat(stop=("\n",))),
            PromptFormat(stop=("\n",)),
            None,
            r"answers end at '\\n'",
        ),
        (
            Conversation([{"role": "user", "content": "long " * 50}], "b", PromptFormat()),
            PromptFormat(),
            40,
            "leaves no room",
        ),
    ],
)
def test_the_first_that_is_refused_is_named_with_its_row(broken, form, limit, problem):
    fine = Conversation(ASKS[0], "seven", form, "a.jsonl, line 1")
    rows = [fine, fine, broken._replace(origin="a.jsonl, line 3"), broken._replace(origin="a.jsonl, line 4")]
    with pytest.raises(ValueError, match=f"^a.jsonl, line 3: .*{problem}"):
        encode_batch(byte_level(), rows, limit)


@pytest.mark.parametrize("mark", ["!!", "\n"])
def test_a_template_that_writes_something_else_around_some_answers_is_followed(mark):
    tokenizer = llama_style.__wrapped__()
    tokenizer.chat_template = (
        "{% for m in messages %}{% if m.role == 'user' %}U:{{ m.content }}\n{% else %}A:{% if 'quiet' in messages[0].content %}"
        f"{{{{ {mark!r} }}}}{{% endif %}}"
        "{{ m.content }}</s>{% endif %}{% endfor %}{% if add_generation_prompt %}A:{% endif %}"
    )
    asks = [[{"role": "user", "content": text}] for text in ("quiet", "loud", "quiet", "loud")]
    many = [Conversation(ask, response, PromptFormat()) for ask in asks for response in ("x", mark + "x", mark)]
    assert together(tokenizer, many) == one_by_one(tokenizer, many)


def test_a_prompt_batch_names_the_row_that_is_refused():
    tokenizer = FAMILIES["refuses system and two users, as Gemma"].tokenizer()
    rows = [
        Conversation(ask, "", PromptFormat(), f"b.csv, row {n}") for n, ask in enumerate([ASKS[0], ASKS[2]], start=1)
    ]
    with pytest.raises(ValueError, match="^b.csv, row 2: .*refuses the messages"):
        encode_prompt_batch(tokenizer, rows)
