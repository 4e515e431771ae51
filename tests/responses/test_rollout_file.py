"""Texts that another program wrote: read as the pivot's own tokens, and refused, with file and line, where they cannot be."""

import json
import re

import pytest

from fusion.data.chat_tokens import Prompt
from fusion.responses.rollout_file import AskedPrompt, RolloutFile
from fusion.tokenizers import tokenize
from tests.helpers.tiny_tokenizers import byte_level

END, START = 2, 1
TOKENIZER = byte_level()
PROMPT = AskedPrompt(Prompt([5, 6], context="<|im_start|>assistant\n"), ends=[END], end=END)


def ids(text):
    return tokenize(TOKENIZER, [text])[0]


def read(folder, *lines, samples=1, longest=20, asked=None):
    file = folder / "1.jsonl"
    file.write_text("\n".join(each if isinstance(each, str) else json.dumps(each) for each in lines))
    return RolloutFile(file, TOKENIZER, asked or {"p": PROMPT}, samples=samples, longest=longest).read()


def line(text="The cat", ended: object = True, **more):
    return {"prompt_id": "p", "text": text, "ended": ended, **more}


THE_CAT = ids("The cat")
PIECES = [i for letter in "The cat" for i in ids(letter)]  # as a model may write it, and no tokenizer would
RIGHT = {
    "text alone, ended": (line(), [*THE_CAT, END]),
    "text alone, cut": (line(ended=False), THE_CAT),
    "tokens that were drawn": (line(token_ids=[*PIECES, END]), [*PIECES, END]),
    "tokens without their end": (line(token_ids=PIECES), [*PIECES, END]),
    "tokens that were cut": (line(ended=False, token_ids=PIECES), PIECES),
    "null for tokens that are not known": (line(token_ids=None), [*THE_CAT, END]),
    "an end and nothing else": (line("", token_ids=[END]), [END]),
    "no text": (line(""), [END]),
    "a control token that was drawn": (line("The cat<|im_start|>", token_ids=[*THE_CAT, START, END]), [*THE_CAT, START, END]),
    "a control token that text leaves out": (line("The cat", token_ids=[*THE_CAT, START, END]), [*THE_CAT, START, END]),
    "an id beyond the vocabulary that was drawn": (line("The cat", token_ids=[*THE_CAT, 5000]), [*THE_CAT, 5000]),
    "half a character at the limit": (line("The cat\ufffd", False, token_ids=[*THE_CAT, *ids("ñ")[:1]]), None),
    "text decoded without its first space": (line("cat", token_ids=[*ids(" cat"), END]), [*ids(" cat"), END]),
}  # fmt: skip


@pytest.mark.parametrize("name", RIGHT)
def test_a_line_is_read_as_the_tokens_that_were_drawn(tmp_path, name):
    given, expected = RIGHT[name]
    assert read(tmp_path, given) == {"p": [given["token_ids"] if expected is None else expected]}


def test_answers_come_in_the_order_of_the_lines_and_prompts_in_that_of_the_round(tmp_path):
    lines = [line("b") | {"prompt_id": "q"}, line("a"), "", line("c") | {"prompt_id": "q"}, line("d")]
    found = read(tmp_path, *lines, samples=2, asked={"p": PROMPT, "q": PROMPT})
    assert found == {"p": [[*ids("a"), END], [*ids("d"), END]], "q": [[*ids("b"), END], [*ids("c"), END]]}
    assert list(found) == ["p", "q"]


WRONG = {
    "an unknown prompt": ([line() | {"prompt_id": "x"}], r"line 1: prompt_id 'x' is none of the 1 prompts .* another round"),
    "a prompt without answers": ([], r"1 of 1 prompts have not 1 answers each .* first of them p, which has 0"),
    "an answer too many": ([line(), line()], r"have not 1 answers each \(rounds.num_generations\), .* which has 2"),
    "other tokens than the text's": (
        [line(), line(token_ids=[*ids("The mat"), END])], r"line 2: token_ids say 'The mat' .* and text is 'The cat'"),
    "tokens of another vocabulary": ([line(token_ids=[7, 5000])], r"line 1: token_ids say .* and text is 'The cat'"),
    "padding": ([line(token_ids=[*THE_CAT, -1])], r"line 1: token_ids have -1; ids of tokens begin at 0"),
    "more tokens than asked for": ([line(token_ids=THE_CAT * 20)], r"has \d+ token_ids, and .*max_completion_length is 20"),
    "an end that was none": ([line(ended=False, token_ids=[*THE_CAT, END])], r"line 1: token_ids have 2, .* ended is false"),
    "a control token in text": ([line("The cat<|im_end|>")], r"line 1: text holds the control token '<\|im_end\|>'"),
    "no JSON": (["{"], r"line 1 is not JSON. A line looks like \{\"prompt_id\""),
    "not an object": (["[1]"], r"line 1: it: .* A line looks like"),
    "no text at all": ([{"prompt_id": "p", "ended": True}], r"line 1: text: Field required"),
    "a word for a truth": ([line(ended="yes")], r"line 1: ended: .* valid boolean"),
    "a name of another program": ([line(finish_reason="stop")], r"line 1: finish_reason: Extra inputs"),
    "a number for an id": ([line(token_ids=[1.5])], r"line 1: token_ids.0: .* valid integer"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_what_the_pivot_cannot_have_written_is_refused_with_file_and_line(tmp_path, name):
    lines, sentence = WRONG[name]
    with pytest.raises(ValueError, match=sentence) as refused:
        read(tmp_path, *lines)
    assert str(refused.value).startswith(str(tmp_path / "1.jsonl"))


def test_a_text_at_which_answers_end_is_no_part_of_one(tmp_path):
    at_breaks = {"p": AskedPrompt(Prompt([5]), ends=ids("\n"), end=ids("\n")[0], stop=("\n",))}
    with pytest.raises(ValueError, match=re.escape(r"reads text 'The\ncat' as 'The'")):
        read(tmp_path, line("The\ncat"), asked=at_breaks)


def test_a_pivot_that_has_no_end_cannot_have_ended(tmp_path):
    endless = {"p": AskedPrompt(Prompt([5]), ends=[], end=None)}
    assert read(tmp_path, line(ended=False), asked=endless) == {"p": [THE_CAT]}
    with pytest.raises(ValueError, match=r"line 1: ended is true, and the pivot has no token .* set pivot.stop"):
        read(tmp_path, line(), asked=endless)
