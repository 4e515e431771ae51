"""Chat templates of the families that people use, each short and our own, with what is right for it.

`specials` and `added` are control tokens of the tokenizer, the second not marked as special; `prompt` is the text that stands
before an answer to "Why?", on every path, and `end` the token that ends the answer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import date
from typing import Any

from transformers import PreTrainedTokenizerFast

from fusion.data.prompt_format import PromptFormat
from tests.helpers.tiny_tokenizers import byte_level, gemma_style, llama_style, mistral_style
from tokenizers import AddedToken

DAY = date(2024, 2, 29)
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
EMPTY_THOUGHT = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n"
    "{% if m.role == 'assistant' and loop.last and '</think>' not in m.content %}<think>\n\n</think>\n\n{% endif %}"
    "{{ m.content }}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n"
    "{% if enable_thinking is defined and not enable_thinking %}<think>\n\n</think>\n\n{% endif %}{% endif %}"
)
ALTERNATE = (
    "{{ '<bos>' }}{% if messages[0].role == 'system' %}{{ raise_exception('no system role') }}{% endif %}"
    "{% for m in messages %}"
    "{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('roles must alternate') }}{% endif %}"
    "{{ '<start_of_turn>' + ('model' if m.role == 'assistant' else m.role) + '\n' + m.content | trim + '<end_of_turn>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
)
OPENS_A_THOUGHT = (
    "<bos>{% for m in messages %}{% if m.role == 'user' %}<U>{{ m.content }}{% elif m.role == 'assistant' %}"
    "<A>{{ m.content.split('</think>')[-1] }}<eos>{% endif %}{% endfor %}{% if add_generation_prompt %}<A><think>\n{% endif %}"
)
CHANNELS = (
    "<|start|>system<|message|>Today: {{ strftime_now('%Y-%m-%d') }}<|end|>{% for m in messages %}"
    "{% if m.role == 'assistant' %}"
    "<|start|>assistant<|channel|>final<|message|>{{ m.content }}{% if loop.last and not add_generation_prompt %}<|return|>"
    "{% else %}<|end|>{% endif %}{% else %}<|start|>{{ m.role }}<|message|>{{ m.content }}<|end|>{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|start|>assistant{% endif %}"
)
HEADERS = (
    "<bos>"
    "{% if messages[0].role != 'system' %}<header>system</header>\n\nToday Date: {{ strftime_now('%d %b %Y') }}<eot>{% endif %}"
    "{% for m in messages %}<header>{{ m.role }}</header>\n\n{{ m.content | trim }}<eot>{% endfor %}"
    "{% if add_generation_prompt %}<header>assistant</header>\n\n{% endif %}"
)
SPACED = (
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'assistant' %} {{ m.content | trim }}{{ eos_token }}"
    "{% else %}[INST] {{ m.content | trim }} [/INST]{% endif %}{% endfor %}"
)
MARKED = (
    "{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}{{ eos_token }}\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)
SEPARATED = (
    "{% for m in messages %}<|im_start|>{{ m.role }}<|im_sep|>{{ m.content }}<|im_end|>{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant<|im_sep|>{% endif %}"
)
ENDED = (
    "{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% else %}{{ eos_token }}{% endif %}"
)
NAMED = (
    "A chat.{% for m in messages %}{% if m.role == 'user' %} USER: {{ m.content }} ASSISTANT:{% else %} {{ m.content }}"
    "{{ eos_token }}{% endif %}{% endfor %}"
)
LATE_SPACE = (
    "{% for m in messages %}{% if m.role == 'user' %}User: {{ m.content }}\n\n"
    "{% else %}Assistant: {{ m.content }}{{ eos_token }}"
    "{% endif %}{% endfor %}{% if add_generation_prompt %}Assistant:{% endif %}"
)
SECTIONS = (
    "{% for m in messages %}{% if m.role == 'user' %}### Instruction:\n{{ m.content }}\n\n"
    "{% else %}### Response:\n{{ m.content }}"
    "{{ eos_token }}{% endif %}{% endfor %}{% if add_generation_prompt %}### Response:\n{% endif %}"
)
TURN_TOKENS = (
    "<bos>{% for m in messages %}<|START_OF_TURN|>{{ '<|USER|>' if m.role == 'user' else '<|CHATBOT|>' }}{{ m.content | trim }}"
    "<|END_OF_TURN|>{% endfor %}{% if add_generation_prompt %}<|START_OF_TURN|><|CHATBOT|>{% endif %}"
)
ROLE_TOKENS = (
    "{% for m in messages %}<|start_of_role|>{{ m.role }}<|end_of_role|>{{ m.content }}<|end_of_text|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|start_of_role|>assistant<|end_of_role|>{% endif %}"
)


@dataclass(frozen=True)
class Family:
    """A tokenizer with a chat template, and what is right for it."""

    template: str
    prompt: str
    end: str
    specials: tuple[str, ...] = ()
    added: tuple[str, ...] = ()
    eos: str | None = None
    base: Callable[..., PreTrainedTokenizerFast] = byte_level
    format: Mapping[str, Any] = field(default_factory=dict)

    def tokenizer(self) -> PreTrainedTokenizerFast:
        """Make the tokenizer, a new one each time."""
        made = self.base.__wrapped__()  # type: ignore[attr-defined]
        made.add_special_tokens({"additional_special_tokens": list(self.specials)} if self.specials else {})
        made.add_tokens([AddedToken(text, special=False, normalized=False) for text in self.added])
        made.eos_token = self.eos or made.eos_token
        made.chat_template = self.template
        return made

    @property
    def prompt_format(self) -> PromptFormat:
        """How its prompts are written."""
        return PromptFormat(date=DAY, **self.format)


IM = ("<|im_start|>", "<|im_end|>")
THINK = ("<think>", "</think>")
ASKED = "<|im_start|>user\nWhy?<|im_end|>\n<|im_start|>assistant\n"
CLOSED = "<think>\n\n</think>\n\n"

FAMILIES: dict[str, Family] = {
    "ChatML, as Qwen2.5 and SmolLM2": Family(CHATML, ASKED, "<|im_end|>", eos="<|im_end|>"),
    "end of turn is not eos, as Qwen base models": Family(CHATML, ASKED, "<|im_end|>", eos="<|endoftext|>"),
    "ChatML by SentencePiece, a space before every text": Family(CHATML, ASKED, "<|im_end|>", IM, base=llama_style),
    "ChatML by SentencePiece, a space before the first text": Family(
        CHATML, ASKED, "<|im_end|>", IM, base=mistral_style
    ),
    "control tokens not marked special, as Hermes": Family(
        CHATML.replace("im_", "turn_"),
        ASKED.replace("im_", "turn_"),
        "<|turn_end|>",
        added=("<|turn_start|>", "<|turn_end|>"),
    ),
    "role tokens in pairs, not marked special": Family(
        "{% for m in messages %}<{{ m.role }}>{{ m.content }}</{{ m.role }}>{% endfor %}"
        "{% if add_generation_prompt %}<assistant>{% endif %}",
        "<user>Why?</user><assistant>",
        "</assistant>",
        added=("<user>", "</user>", "<assistant>", "</assistant>"),
    ),
    "empty thought, as Qwen3": Family(EMPTY_THOUGHT, ASKED + CLOSED, "<|im_end|>", added=THINK, eos="<|im_end|>"),
    "empty thought, not thinking": Family(
        EMPTY_THOUGHT,
        ASKED + CLOSED,
        "<|im_end|>",
        added=THINK,
        format={"chat_template_kwargs": {"enable_thinking": False}},
    ),
    "thoughts of the data's own": Family(EMPTY_THOUGHT, ASKED, "<|im_end|>", added=THINK, format={"answer_prefix": ""}),
    "opens a thought, as DeepSeek-R1": Family(
        OPENS_A_THOUGHT,
        "<bos><U>Why?<A><think>\n</think>\n\n",
        "<eos>",
        ("<bos>", "<eos>", "<U>", "<A>"),
        THINK,
        "<eos>",
        format={"answer_prefix": "</think>\n\n"},
    ),
    "channels, as gpt-oss": Family(
        CHANNELS,
        "<|start|>system<|message|>Today: 2024-02-29<|end|><|start|>user<|message|>Why?<|end|>"
        "<|start|>assistant<|channel|>final<|message|>",
        "<|return|>",
        ("<|start|>", "<|message|>", "<|end|>", "<|channel|>", "<|return|>"),
        eos="<|return|>",
    ),
    "headers and a date, as Llama 3": Family(
        HEADERS,
        "<bos><header>system</header>\n\nToday Date: 29 Feb 2024<eot><header>user</header>\n\nWhy?<eot>"
        "<header>assistant</header>\n\n",
        "<eot>",
        ("<bos>", "<eot>", "<header>", "</header>"),
    ),
    "a space before the answer, as Llama 2": Family(SPACED, "<s>[INST] Why? [/INST]", "</s>", base=llama_style),
    "a space before the answer, as Mistral": Family(SPACED, "<s>[INST] Why? [/INST]", "</s>", base=mistral_style),
    "refuses system and two users, as Gemma": Family(
        ALTERNATE,
        "<bos><start_of_turn>user\nWhy?<end_of_turn>\n<start_of_turn>model\n",
        "<end_of_turn>",
        ("<bos>", "<start_of_turn>", "<end_of_turn>"),
        base=gemma_style,
    ),
    "role tokens and eos, as Zephyr": Family(
        MARKED, "<|user|>\nWhy?</s>\n<|assistant|>\n", "</s>", ("<|user|>", "<|assistant|>"), base=mistral_style
    ),
    "roles as text, as OLMo and Tulu": Family(MARKED, "<|user|>\nWhy?<|endoftext|>\n<|assistant|>\n", "<|endoftext|>"),
    "end token and eos at the end, as Phi-3": Family(
        ENDED, "<|user|>\nWhy?<|end|>\n<|assistant|>\n", "<|end|>", ("<|user|>", "<|assistant|>", "<|end|>")
    ),
    "separators, as Phi-4": Family(
        SEPARATED,
        "<|im_start|>user<|im_sep|>Why?<|im_end|><|im_start|>assistant<|im_sep|>",
        "<|im_end|>",
        ("<|im_sep|>",),
    ),
    "turn tokens, as Command R": Family(
        TURN_TOKENS,
        "<bos><|START_OF_TURN|><|USER|>Why?<|END_OF_TURN|><|START_OF_TURN|><|CHATBOT|>",
        "<|END_OF_TURN|>",
        ("<bos>", "<|START_OF_TURN|>", "<|END_OF_TURN|>", "<|USER|>", "<|CHATBOT|>"),
    ),
    "role tokens around the role, as Granite": Family(
        ROLE_TOKENS,
        "<|start_of_role|>user<|end_of_role|>Why?<|end_of_text|>\n<|start_of_role|>assistant<|end_of_role|>",
        "<|end_of_text|>",
        ("<|start_of_role|>", "<|end_of_role|>", "<|end_of_text|>"),
    ),
    "names as text, as Vicuna": Family(NAMED, "A chat. USER: Why? ASSISTANT:", "</s>", base=llama_style),
    "a space after the name, as DeepSeek": Family(LATE_SPACE, "User: Why?\n\nAssistant:", "<|endoftext|>"),
    "sections, as Alpaca": Family(SECTIONS, "### Instruction:\nWhy?\n\n### Response:\n", "<|endoftext|>"),
}
