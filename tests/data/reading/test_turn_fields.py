"""Fields of turns that say whether one is learned, and thoughts under each name, are heeded or refused; none is dropped."""

import pytest

import fusion
from fusion.data.encode import encode_prompt
from tests.field.chat_templates import CHATML, IM, Family

ASK = {"role": "user", "content": "q"}


def answer(content, **more):
    return {"role": "assistant", "content": content, **more}


def learned(*turns):
    (example,) = fusion.read_examples([{"messages": [ASK, answer("a"), *turns]}])
    return example.response


@pytest.mark.parametrize("key", ["weight", "train", "training", "loss"])
def test_a_turn_is_learned_unless_a_field_says_that_it_is_not(key):
    for no in (0, False, 0.0):
        assert learned(ASK, answer("b", **{key: no})) == "a"
    for yes in (1, True, None):
        assert learned(ASK, answer("b", **{key: yes})) == "b"
    with pytest.raises(
        ValueError, match=rf"row 1: turn 4 of messages has {key} 0.5; it may be 0 or false \(not learned\)"
    ):
        learned(ASK, answer("b", **{key: 0.5}))


def test_fields_that_agree_are_heeded_and_those_that_do_not_are_refused():
    assert learned(ASK, answer("b", weight=0, train=False)) == "a"
    with pytest.raises(ValueError, match="has weight 0 and loss True, which do not agree"):
        learned(ASK, answer("b", weight=0, loss=True))


@pytest.mark.parametrize("key", ["mask", "loss_mask"])
def test_a_mask_that_could_mean_either_is_refused_with_the_way_out(key):
    assert learned(ASK, answer("b", **{key: None})) == "b"
    for value in (0, 1):
        with pytest.raises(ValueError, match=f"has {key} {value}, which may mean .*Write weight: 0"):
            learned(ASK, answer("b", **{key: value}))


@pytest.mark.parametrize("key", ["reasoning_content", "reasoning", "thinking"])
def test_a_thought_is_passed_on_to_a_template_that_reads_it_and_refused_by_one_that_does_not(key):
    turns = [ASK, answer("a", **{key: "hm"}), ASK, answer("b")]
    (example,) = fusion.read_examples([{"messages": turns}])
    assert example.messages[1][key] == "hm"
    reads = CHATML.replace("{{ m.content }}", f"{{{{ m.{key} or '' }}}}{{{{ m.content }}}}")
    for template, written in ((reads, "hma"), (f"{{# enable_{key} #}}{CHATML}", None)):
        tokenizer = Family(template, "", "<|im_end|>", specials=IM).tokenizer()
        if written:
            assert f"assistant\n{written}" in tokenizer.decode(encode_prompt(tokenizer, example.messages).ids)
        else:
            with pytest.raises(ValueError, match=f"leaves out the {key} of a conversation"):
                encode_prompt(tokenizer, example.messages)
    with pytest.raises(ValueError, match=f"the last answer of messages has {key}"):
        fusion.read_examples([{"messages": turns[:2]}])


HISTORY = {"instruction": "third", "input": "", "output": "a3"}


@pytest.mark.parametrize(
    "history",
    [
        [["q1", "a1"], ["q2", "a2"]],
        (("q1", "a1"), ("q2", "a2")),
        '[["q1", "a1"], ["q2", "a2"]]',
        [{"role": "user", "content": "q1"}, answer("a1"), {"role": "user", "content": "q2"}, answer("a2")],
    ],
    ids=["pairs", "tuples", "JSON", "turns"],
)
def test_a_history_is_the_turns_before_the_prompt(history, capsys):
    rows = [
        {**HISTORY, "system": "s", "history": history},
        {**HISTORY, "history": []},
        {**HISTORY, "history": ""},
        HISTORY,
    ]
    found = fusion.read_examples(rows)
    assert [message["content"] for message in found[0].messages] == ["s", "q1", "a1", "q2", "a2", "third"]
    assert [message["role"] for message in found[0].messages] == ["system", *["user", "assistant"] * 2, "user"]
    assert all(message.keys() == {"role", "content"} for message in found[0].messages)
    assert [[message["content"] for message in each.messages] for each in found[1:]] == [["third"]] * 3
    assert "not used" not in capsys.readouterr().out
    alone = fusion.read_examples(rows[:1], response=None)
    assert [message["content"] for message in alone[0].messages] == ["s", "q1", "a1", "q2", "a2", "third"]


@pytest.mark.parametrize("history", ["of Rome", ["q1", "a1"], [["q1", "a1", "q2"]], [["q1", None]], 3])
def test_what_is_no_history_is_refused_with_the_row_and_the_way_out(history):
    with pytest.raises(ValueError, match="row 2: history is .*no list of earlier turns.*rename the column"):
        fusion.read_examples([HISTORY, {**HISTORY, "history": history}])
    (example,) = fusion.read_examples([{**HISTORY, "history": history}], prompt="{instruction}", response="{output}")
    assert example.prompt == "third"
