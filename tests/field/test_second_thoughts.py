"""A thought of the response's own behind a prompt that has closed one is refused, whatever the template makes of contents."""

import pytest

from fusion.data.encode import encode
from fusion.data.encoding import Conversation, encode_batch
from fusion.data.prompt_format import PromptFormat
from tests.field.chat_templates import CLOSED, IM, THINK, Family

ASK = [{"role": "user", "content": "Why?"}]
AS_IT_STANDS = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{% if m.role == 'assistant' and loop.last %}"
    + CLOSED
    + "{% endif %}"
    "{{ m.content }}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""Writes a closed thought and then the content, thoughts and all."""


@pytest.fixture(scope="module")
def tokenizer():
    return Family(AS_IT_STANDS, "", "<|im_end|>", specials=IM, added=THINK).tokenizer()


@pytest.mark.parametrize("response", ["<think>\nhm\n</think>\n\nSo.", "\n<think>hm", "hm\n</think>\n\nSo."])
def test_a_second_thought_is_refused_alone_and_together(tokenizer, response):
    form = PromptFormat()
    others = [Conversation(ASK, "So.", form), Conversation(ASK, response, form)]
    for way in (lambda: encode(tokenizer, ASK, response), lambda: encode_batch(tokenizer, others)):
        with pytest.raises(ValueError, match="a closed thought, and the response .* has a thought of its own"):
            way()


@pytest.mark.parametrize("response", ["So.", "Write <think> and </think> around thoughts.", "x < y"])
def test_an_answer_without_a_thought_is_learned_behind_the_closed_one(tokenizer, response):
    ours = encode(tokenizer, ASK, response)
    assert tokenizer.decode(ours.input_ids).endswith(f"{CLOSED}{response}<|im_end|>")


def test_with_an_empty_prefix_the_response_brings_its_own_thought(tokenizer):
    thought = "<think>\nhm\n</think>\n\nSo."
    ours = encode(tokenizer, ASK, thought, prompt_format=PromptFormat(answer_prefix=""))
    assert tokenizer.decode(ours.input_ids).endswith(f"assistant\n{thought}<|im_end|>")
