"""Whatever a variable says, an exported chat template opens an answer once, with the prompt of training."""

import pytest

from fusion.data.exported_template import exported_template
from fusion.data.prompt_format import PromptFormat
from tests.field.chat_templates import CLOSED, EMPTY_THOUGHT, IM, THINK, Family

ASK = [{"role": "user", "content": "Why?"}]
MORE = [*ASK, {"role": "assistant", "content": "So."}, {"role": "user", "content": "And then?"}]
TURNS = "{% for m in messages %}<|im_start|>{{ m.role }}\n{% if m.role == 'assistant' and loop.last %}"
REST = "{% endif %}{{ m.content }}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n"
QUIET = "{% if enable_thinking is defined and not enable_thinking %}"
ENDS = "{% endif %}{% endif %}"
OPENED = f"{TURNS}{CLOSED}{REST}{QUIET}{CLOSED}{{% else %}}<think>\n{ENDS}"
"""Opens a thought, or closes it where it is told not to think."""
CUT_SHORT = f"{TURNS}<think></think>\n{REST}{QUIET}{{{{ '<think></think>' }}}}{ENDS}"
"""Closes a thought without the line break that stands in training."""
MARKED = EMPTY_THOUGHT.replace("{{ m.content }}", "{% generation %}{{ m.content }}{% endgeneration %}")
ANOTHER = f"{TURNS}{CLOSED}{REST}{{% if aloud is defined and aloud %}}<aloud>\n{ENDS}"
"""Opens an answer in another way where it is told to."""


def opened(template, messages, **variables):
    """What the exported template opens an answer with, and the tokenizer that has it."""
    tokenizer = Family(template, "", "<|im_end|>", specials=IM, added=THINK).tokenizer()
    tokenizer.chat_template = exported_template(tokenizer, PromptFormat()) or tokenizer.chat_template
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True, **variables)
    return text.rpartition("<|im_start|>assistant\n")[2], tokenizer


@pytest.mark.parametrize("variables", [{}, {"enable_thinking": False}, {"enable_thinking": True}])
@pytest.mark.parametrize("messages", [ASK, MORE], ids=["one turn", "three turns"])
@pytest.mark.parametrize(
    ("template", "thought"),
    [(EMPTY_THOUGHT, CLOSED), (OPENED, CLOSED), (CUT_SHORT, "<think></think>\n"), (MARKED, CLOSED)],
    ids=["empty thought", "opened thought", "line break left out", "marks what was said"],
)
def test_a_thought_is_closed_once_whatever_the_variable_says(template, thought, messages, variables):
    assert opened(template, messages, **variables)[0] == thought


def test_behind_an_answer_that_was_opened_in_another_way_nothing_is_added():
    assert opened(ANOTHER, ASK)[0] == CLOSED
    assert opened(ANOTHER, ASK, aloud=True)[0] == "<aloud>\n"


def test_a_finished_conversation_is_rendered_as_before_with_the_marks_of_what_was_said():
    whole = [*ASK, {"role": "assistant", "content": "So."}]
    before = Family(MARKED, "", "<|im_end|>", specials=IM, added=THINK).tokenizer()
    _, after = opened(MARKED, ASK)
    how = {"return_dict": True, "return_assistant_tokens_mask": True}
    was, made = (each.apply_chat_template(whole, **how) for each in (before, after))
    assert made["input_ids"] == was["input_ids"]
    assert made["assistant_masks"] == was["assistant_masks"]
    assert 0 < sum(made["assistant_masks"]) < len(made["assistant_masks"])
