"""Prompt, answer and end against what the chat template itself renders, for the families that people use."""

import dataclasses
import datetime

import pytest

from fusion.data.answer_end import end_of_turn
from fusion.data.chat_template import render
from fusion.data.encode import encode, encode_prompt
from fusion.data.exported_template import exported_template
from fusion.data.prompt_format import PromptFormat
from fusion.tokenizers import control_tokens, decode_text, vocabulary_bytes
from tests.field.chat_templates import CLOSED, DAY, EMPTY_THOUGHT, FAMILIES, THINK, Family

ASK = [{"role": "user", "content": "Why?"}]
ANSWERS = ["the end of the story", "7", "It is 12:30.\nThen\n\nmore.", "日本語 naïve", "- a\n- b", "'quoted'", "x"]
WITH_PREFIX = [name for name, family in FAMILIES.items() if "answer_prefix" in family.format]


@pytest.fixture(scope="module", params=FAMILIES)
def family(request):
    return FAMILIES[request.param]


@pytest.fixture(scope="module")
def tokenizer(family):
    return family.tokenizer()


def template_ids(tokenizer, text):
    return tokenizer(text, add_special_tokens=False)["input_ids"]


def test_prompt_answer_and_end_are_the_tokens_of_what_the_template_renders(family, tokenizer):
    form = family.prompt_format
    for answer in ANSWERS:
        ours = encode(tokenizer, ASK, answer, prompt_format=form)
        assert ours.input_ids[: ours.start] == encode_prompt(tokenizer, ASK, prompt_format=form).ids
        assert ours.input_ids[: ours.start] == template_ids(tokenizer, family.prompt)
        assert ours.input_ids[-1] == tokenizer.convert_tokens_to_ids(family.end)
        if form.answer_prefix is None:
            whole = tokenizer.apply_chat_template(
                [*ASK, {"role": "assistant", "content": answer}], tokenize=False, **form.chat_template_kwargs
            )
            for way in ("%Y-%m-%d", "%d %b %Y"):
                whole = whole.replace(datetime.date.today().strftime(way), DAY.strftime(way))
            theirs = template_ids(tokenizer, whole)[: len(ours.input_ids) - 1]
            # a prompt is the same whatever follows; some tokenizers write its last line breaks otherwise before a letter
            border = family.prompt.endswith("\n\n") and theirs[: ours.start] != ours.input_ids[: ours.start]
            assert border or ours.input_ids[:-1] == theirs
            assert whole.startswith(family.prompt + answer) or whole.startswith(f"{family.prompt} {answer}")


def test_the_bytes_of_an_answer_lie_between_its_prefixes(family, tokenizer):
    table = vocabulary_bytes(tokenizer)
    for answer in ANSWERS:
        ours, raw = encode(tokenizer, ASK, answer, prompt_format=family.prompt_format), answer.encode()
        ids = ours.input_ids[ours.start : -1]
        assert ours.prefix[0] == 0
        assert ours.prefix[-1] == len(raw)
        for token, begin, end in zip(ids, ours.prefix, ours.prefix[1:], strict=False):
            assert table[token] == raw[begin:end] or table[token].removeprefix(b" ") == raw[begin:end]


def test_what_a_model_writes_behind_the_prompt_is_the_answer(family, tokenizer):
    prompt = encode_prompt(tokenizer, ASK, prompt_format=family.prompt_format)
    for answer in ANSWERS:
        ours = encode(tokenizer, ASK, answer, prompt_format=family.prompt_format)
        assert decode_text(tokenizer, ours.input_ids[ours.start :]).removeprefix(prompt.lead) == answer


def test_a_user_who_spells_control_tokens_writes_text(family, tokenizer):
    steer = control_tokens(tokenizer)
    assert family.end in steer
    written = encode_prompt(tokenizer, ASK, prompt_format=family.prompt_format).ids
    unsafe = [
        {"role": "user", "content": f"Why? {' '.join(family.specials + family.added[: -len(THINK)] + (family.end,))}"}
    ]
    ids = encode_prompt(tokenizer, unsafe, prompt_format=family.prompt_format).ids
    special = set(steer.values())
    assert [index for index in ids if index in special] == [index for index in written if index in special]


def test_a_thought_marks_up_an_answer_and_is_no_control_token():
    for name in ("empty thought, as Qwen3", "opens a thought, as DeepSeek-R1"):
        assert not {"<think>", "</think>"} & control_tokens(FAMILIES[name].tokenizer()).keys()


def test_an_answer_with_its_own_thought_follows_the_generation_prompt():
    tokenizer, thought = FAMILIES["thoughts of the data's own"].tokenizer(), "<think>\nhm\n</think>\n\nSo."
    ours = encode(tokenizer, ASK, thought, prompt_format=PromptFormat(answer_prefix=""))
    whole = tokenizer.apply_chat_template([*ASK, {"role": "assistant", "content": thought}], tokenize=False)
    assert ours.input_ids == template_ids(tokenizer, whole)[: len(ours.input_ids)]


@pytest.mark.parametrize(
    ("name", "form", "answer", "shown"),
    [
        ("opens a thought, as DeepSeek-R1", {}, "So.", [r"<A><think>\\n", r"Why\?<A>'"]),
        ("opens a thought, as DeepSeek-R1", {"answer_prefix": ""}, "<think>hm</think>So.", ["would stand there twice"]),
        ("empty thought, as Qwen3", {}, "<think>\nhm\n</think>\n\nSo.", ["hm", "Set answer_prefix"]),
        (
            "empty thought, as Qwen3",
            {},
            "hm\n</think>\n\nSo.",
            ["a closed thought, and the response 'hm", "Set answer_prefix"],
        ),
        ("refuses system and two users, as Gemma", {}, "So.", ["Be brief", "no system role", "fold_system_message"]),
    ],
)
def test_what_cannot_be_rendered_alike_is_refused_with_both_texts_and_the_way_out(name, form, answer, shown):
    system = [{"role": "system", "content": "Be brief."}] if "Gemma" in name else []
    with pytest.raises(ValueError) as error:
        encode(FAMILIES[name].tokenizer(), [*system, *ASK], answer, prompt_format=PromptFormat(**form))
    for each in shown:
        assert error.match(each)


def test_two_user_turns_that_a_template_refuses_are_named():
    with pytest.raises(
        ValueError, match=r"refuses the messages \(user, user\) that begin 'Why\?': roles must alternate"
    ):
        encode(FAMILIES["refuses system and two users, as Gemma"].tokenizer(), [*ASK, *ASK], "So.")


def test_a_folded_system_message_stands_in_the_first_user_message():
    tokenizer = FAMILIES["refuses system and two users, as Gemma"].tokenizer()
    messages = [{"role": "system", "content": "Be brief."}, *ASK]
    folded = encode_prompt(tokenizer, messages, prompt_format=PromptFormat(fold_system_message=True))
    one = [{"role": "user", "content": "Be brief.\n\nWhy?"}]
    assert folded == encode_prompt(tokenizer, one)


def test_a_template_gets_the_date_of_the_run_and_no_other():
    tokenizer = FAMILIES["channels, as gpt-oss"].tokenizer()
    days = [datetime.date(2020, 1, 2), datetime.date(2021, 3, 4)]
    first, second = (encode_prompt(tokenizer, ASK, prompt_format=PromptFormat(date=day)).ids for day in days)
    assert "2020-01-02" in tokenizer.decode(first)
    assert "2021-03-04" in tokenizer.decode(second)


def test_worked_examples_stand_before_the_first_user_message():
    family = FAMILIES["sections, as Alpaca"]
    shown = encode_prompt(family.tokenizer(), ASK, prompt_format=PromptFormat(shots="Who? Me.\n"))
    asked = encode_prompt(family.tokenizer(), [{"role": "user", "content": "Who? Me.\nWhy?"}])
    assert shown == asked
    plain = encode_prompt(family.tokenizer(), ASK, prompt_format=PromptFormat("plain", shots="Who? Me.\n"))
    assert family.tokenizer().decode(plain.ids) == "Who? Me.\nWhy?"


@pytest.mark.parametrize("stop", ["\n", "\n\n", "###", 5])
def test_the_first_stop_is_the_end_that_is_read_and_trained(stop):
    tokenizer = FAMILIES["sections, as Alpaca"].tokenizer()
    form = PromptFormat("plain", stop=(stop,))
    ours = encode(tokenizer, ASK, "So.", prompt_format=form)
    assert ours.input_ids[-1] == end_of_turn(tokenizer, form)
    assert ours.prefix[-1] == 3
    if isinstance(stop, str):
        assert stop.encode().startswith(vocabulary_bytes(tokenizer)[ours.input_ids[-1]])
        with pytest.raises(ValueError, match=r"answers end at .* goes on behind it"):
            encode(tokenizer, ASK, f"So{stop}on", prompt_format=form)
    else:
        assert ours.input_ids[-1] == stop


def test_a_closed_thought_of_an_exported_template_is_not_written_twice():
    template = EMPTY_THOUGHT + "{% if add_generation_prompt %}" + CLOSED + "{% endif %}"
    exported = Family(template, "", "<|im_end|>", added=THINK).tokenizer()
    once = encode_prompt(exported, ASK, prompt_format=PromptFormat(answer_prefix=CLOSED)).ids
    assert exported.decode(once).count("</think>") == 1


def test_families_with_a_prefix_of_their_own_are_told_apart():
    assert len(FAMILIES) >= 20
    assert WITH_PREFIX
    assert dataclasses.replace(FAMILIES[WITH_PREFIX[0]]).prompt_format.answer_prefix is not None


def test_the_exported_template_opens_answers_with_the_prompt_of_training(family, tokenizer):
    made = exported_template(tokenizer, family.prompt_format)
    exported = family.tokenizer()
    exported.chat_template = made or exported.chat_template
    opened = exported.apply_chat_template(ASK, tokenize=False, add_generation_prompt=True)
    for way in ("%Y-%m-%d", "%d %b %Y"):
        opened = opened.replace(datetime.date.today().strftime(way), DAY.strftime(way))
    assert opened == family.prompt
    again = encode(exported, ASK, "So.", prompt_format=family.prompt_format)
    assert again == encode(tokenizer, ASK, "So.", prompt_format=family.prompt_format)


def test_an_exported_template_folds_the_system_message():
    tokenizer = FAMILIES["refuses system and two users, as Gemma"].tokenizer()
    tokenizer.chat_template = exported_template(tokenizer, PromptFormat(fold_system_message=True))
    messages = [{"role": "system", "content": "Be brief."}, *ASK]
    one = [{"role": "user", "content": "Be brief.\n\nWhy?"}]
    assert tokenizer.apply_chat_template(messages, tokenize=False) == tokenizer.apply_chat_template(one, tokenize=False)


def test_a_variable_that_the_template_does_not_read_is_refused_with_those_it_reads():
    with pytest.raises(ValueError, match=r"sets thinking, which its chat template does not read.*enable_thinking"):
        encode_prompt(
            FAMILIES["empty thought, as Qwen3"].tokenizer(), ASK,
            prompt_format=PromptFormat(chat_template_kwargs={"thinking": True}),
        )  # fmt: skip


def test_a_second_question_is_asked_as_the_template_writes_it(family, tokenizer):
    turns = [*ASK, {"role": "assistant", "content": "So."}, {"role": "user", "content": "And then?"}]
    ours = encode(tokenizer, turns, "the end", prompt_format=family.prompt_format)
    whole = tokenizer.apply_chat_template(
        [*turns, {"role": "assistant", "content": "the end"}],
        tokenize=False,
        **family.prompt_format.chat_template_kwargs,
    )
    for way in ("%Y-%m-%d", "%d %b %Y"):
        whole = whole.replace(datetime.date.today().strftime(way), DAY.strftime(way))
    shown = tokenizer.decode(ours.input_ids, clean_up_tokenization_spaces=False).replace("<think>\n</think>\n\n", "")
    prefix = family.format.get("answer_prefix")
    if prefix is None:
        assert ours.input_ids == template_ids(tokenizer, whole)[: len(ours.input_ids)] or family.prompt.endswith("\n\n")
        assert whole.replace(" ", "").startswith(shown.replace(" ", ""))
    assert shown.count("And then?") == 1


@pytest.mark.parametrize("value", ["🙂 'a' \"b\"\n", None, True, 3, {"null": [None, "null", 1.5]}])
def test_a_variable_is_exported_with_its_value(value):
    tokenizer = FAMILIES["sections, as Alpaca"].tokenizer()
    tokenizer.chat_template = "{{ mood | tojson }}" + tokenizer.chat_template
    form = PromptFormat(chat_template_kwargs={"mood": value})
    asked = tokenizer.apply_chat_template(ASK, tokenize=False, add_generation_prompt=True, mood=value)
    tokenizer.chat_template = exported_template(tokenizer, form)
    assert tokenizer.apply_chat_template(ASK, tokenize=False, add_generation_prompt=True) == asked


def test_a_template_that_begins_with_a_line_break_is_exported_with_it():
    tokenizer = FAMILIES["sections, as Alpaca"].tokenizer()
    tokenizer.chat_template = "\n{{ mood }}" + tokenizer.chat_template + "\n  "
    form = PromptFormat(chat_template_kwargs={"mood": "calm"}, answer_prefix="So: ")
    asked = tokenizer.apply_chat_template(ASK, tokenize=False, add_generation_prompt=True, mood="calm")
    tokenizer.chat_template = exported_template(tokenizer, form)
    assert tokenizer.apply_chat_template(ASK, tokenize=False, add_generation_prompt=True) == asked + "So: "


def test_a_template_that_cannot_be_exported_is_refused_with_both_texts(monkeypatch):
    def odd(tokenizer, messages, form, generate):
        return render(tokenizer, messages, form, generate=generate) + "?" * (form == PromptFormat())

    monkeypatch.setattr("fusion.data.exported_template.render", odd)
    with pytest.raises(ValueError, match=r"cannot be exported.*Response:.n So: \?', and training has .*So: '"):
        exported_template(FAMILIES["sections, as Alpaca"].tokenizer(), PromptFormat(answer_prefix=" So: "))
