"""Conversations with tools, as OpenAI writes them: each template renders calls its own way, or the row is refused by name."""

import json

import pytest

from fusion.config.loading import parse
from fusion.data import datasets
from fusion.data.encode import encode, encode_prompt
from fusion.data.encoding import Conversation, encode_batch
from fusion.data.prompt_format import PromptFormat
from fusion.stages.context import RunContext
from fusion.stages.prompts import prompt_format
from tests.field.chat_templates import CHATML, IM, THINK, Family
from tests.helpers import runs

TURN = "<|im_start|>{{ m.role }}\n{% if m.reasoning_content and loop.last %}{{ m.reasoning_content }}{% endif %}{{ m.content }}"
END = "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
TOOLS = "{% if tools %}<|im_start|>system\n{% for t in tools %}{{ t | tojson }}{% endfor %}<|im_end|>\n{% endif %}"
LOOP = "{% for m in messages %}"
AS_OBJECTS = (
    f"{TOOLS}{LOOP}{TURN}{{% for c in m.tool_calls %}}<call>{{{{ c.function.name }}}}: "
    f"{{% for k, v in c.function.arguments.items() %}}{{{{ k }}}}={{{{ v }}}}{{% endfor %}}</call>{{% endfor %}}{END}"
)
AS_TEXTS = (
    f"{TOOLS}{LOOP}{TURN}{{% for c in m.tool_calls %}}"
    f"{{{{ '<call>' + c['function']['name'] + ': ' + c['function']['arguments'] + '</call>' }}}}{{% endfor %}}{END}"
)
CALL = {"id": "1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Oslo"}'}}
TOOL = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object", "properties": {}}}}
ROW = {
    "messages": [
        {"role": "user", "content": "weather?"},
        {"role": "assistant", "content": None, "tool_calls": [CALL]},
        {"role": "tool", "tool_call_id": "1", "content": "sunny"},
        {"role": "assistant", "content": "It is sunny."},
    ],
    "tools": [TOOL],
}


def tokenizer(template):
    return Family(template, "", "<|im_end|>", specials=(*IM, *THINK)).tokenizer()


def example(folder, **change):
    (folder / "x.jsonl").write_text(json.dumps(ROW | change))
    (found,) = datasets.load(str(folder / "x.jsonl"), domain="d")
    return found


def text_of(tokenizer, example, form=None):
    form = form or PromptFormat(tools=example.tools)
    prompt = encode_prompt(tokenizer, example.messages, prompt_format=form)
    return tokenizer.decode(prompt.ids)


@pytest.mark.parametrize(
    ("template", "written"),
    [(AS_OBJECTS, "<call>weather: city=Oslo</call>"), (AS_TEXTS, '<call>weather: {"city": "Oslo"}</call>')],
)
@pytest.mark.parametrize("arguments", [{"city": "Oslo"}, '{"city": "Oslo"}'])
def test_a_call_is_rendered_whether_arguments_are_an_object_or_a_text(tmp_path, template, written, arguments):
    call = {**CALL, "function": {**CALL["function"], "arguments": arguments}}
    turns = [{**turn, "tool_calls": [call]} if "tool_calls" in turn else turn for turn in ROW["messages"]]
    found, reader = example(tmp_path, messages=turns), tokenizer(template)
    assert written in text_of(reader, found)
    assert '"name": "weather"' in text_of(reader, found)  # the tool itself
    assert "<|im_start|>tool\nsunny<|im_end|>" in text_of(reader, found)
    form = PromptFormat(tools=found.tools)
    alone = encode(reader, found.messages, found.response, prompt_format=form)
    (together,) = encode_batch(reader, [Conversation(found.messages, found.response, form)])
    assert together == alone
    assert reader.decode(alone.input_ids[alone.start :]) == "It is sunny.<|im_end|>"


@pytest.mark.parametrize(
    ("template", "change", "message"),
    [
        (CHATML, {}, "its chat template leaves out the tool_calls of a conversation"),
        (CHATML, {"messages": [ROW["messages"][0], ROW["messages"][3]]}, "its chat template leaves out the tools"),
        (None, {}, "a plain prompt has no place for the tool_calls"),
        (AS_OBJECTS, {"tools": [{"name": "<|im_end|>"}]}, "spells the control token '<|im_end|>'"),
    ],
)
def test_what_would_be_lost_is_refused_by_name(tmp_path, template, change, message):
    found = example(tmp_path, **change)
    reader = tokenizer(template or CHATML)
    form = PromptFormat("auto" if template else "plain", tools=found.tools)
    for way in (
        lambda: encode(reader, found.messages, found.response, prompt_format=form),
        lambda: encode_prompt(reader, found.messages, prompt_format=form),
        lambda: encode_batch(reader, [Conversation(found.messages, found.response, form)]),
    ):
        with pytest.raises(ValueError, match=message.replace("|", r"\|")):
            way()


def test_of_templates_with_names_that_of_tools_is_taken_where_there_are_tools(tmp_path):
    reader, found = tokenizer(CHATML), example(tmp_path)
    plain = Conversation([{"role": "user", "content": "q"}], "r", PromptFormat(), "here")
    expected = encode(reader, *plain[:2], prompt_format=plain[2]).input_ids
    reader.chat_template = {"default": CHATML, "tool_use": AS_OBJECTS}
    assert "<call>weather: city=Oslo</call>" in text_of(reader, found)
    assert encode(reader, *plain[:2], prompt_format=plain[2]).input_ids == expected
    form = PromptFormat(tools=found.tools, chat_template_kwargs={"loud": True})  # which that of tools alone reads
    reader.chat_template = {"default": CHATML, "tool_use": "{% if loud %}LOUD{% endif %}" + AS_OBJECTS}
    assert text_of(reader, found, form).startswith("LOUD")
    reader.chat_template = {"rag": CHATML, "tool_use": AS_OBJECTS}
    with pytest.raises(
        ValueError, match="has chat templates by the names rag, tool_use, and none that is called default"
    ):
        encode(reader, *plain[:2], prompt_format=plain[2])


def test_a_template_that_refuses_an_answer_of_a_tool_without_its_call_reads_calls(tmp_path):
    check = "{% if m.role == 'tool' and not messages[loop.index0 - 1].tool_calls %}{{ raise_exception('no call') }}{% endif %}"
    strict = tokenizer(AS_OBJECTS.replace(LOOP, LOOP + check))
    assert "<call>weather: city=Oslo</call>" in text_of(strict, example(tmp_path))
    orphan = example(tmp_path, messages=[ROW["messages"][0], ROW["messages"][2], ROW["messages"][3]])
    with pytest.raises(ValueError, match="refuses the messages.*no call"):
        text_of(strict, orphan)


def test_thoughts_of_an_earlier_turn_are_the_templates_to_write_or_to_leave_out(tmp_path):
    turns = [
        {"role": "user", "content": "q"},
        {"role": "assistant", "content": "b", "reasoning_content": "hm"},
        {"role": "user", "content": "r"},
        {"role": "assistant", "content": "c"},
    ]
    found = example(tmp_path, messages=turns, tools=None)
    assert "hm" not in text_of(tokenizer(AS_OBJECTS), found)
    with pytest.raises(ValueError, match="leaves out the reasoning_content"):
        text_of(tokenizer(CHATML), found)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tools": "not JSON"}, "x.jsonl, line 1: tools is a text, and no JSON"),
        ({"tools": ["weather"]}, "x.jsonl, line 1: tools is .*; it is a list of JSON schemas"),
        ({"messages": [{"role": "user", "content": None, "function_call": {}}]}, "turn 1 of messages has no content"),
        ({"messages": [{"role": "user", "content": "q", "function_call": {"name": "f"}}]}, "turn 1 of messages has function_c"),
    ],
)  # fmt: skip
def test_fields_that_cannot_be_read_are_refused_with_the_row(tmp_path, change, message):
    with pytest.raises(ValueError, match=message):
        example(tmp_path, **change)


def test_tools_are_part_of_what_an_example_is_and_of_how_each_model_of_a_run_reads_it(tmp_path):
    found = example(tmp_path)
    assert found.tools == (TOOL,)
    assert example(tmp_path, tools=json.dumps([TOOL])) == found
    assert example(tmp_path, tools=[]).id != found.id
    raw = runs.raw(tmp_path)
    context = RunContext(parse(raw, "test"))
    assert prompt_format(context, "pivot", found).tools == (TOOL,)
    assert prompt_format(context, "pivot").tools == ()


def test_raw_text_has_no_place_for_tools(tmp_path):
    (tmp_path / "x.jsonl").write_text(json.dumps(ROW))
    with pytest.raises(ValueError, match="line 1: it has tool_calls, which raw text"):
        datasets.load(str(tmp_path / "x.jsonl"), domain="d", as_raw_text=True)
