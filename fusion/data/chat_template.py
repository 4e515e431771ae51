"""Render a conversation with a tokenizer's chat template, and find where its answer stands.

The prompt of an answer is what the template writes before it, in a conversation that has the answer. It is compared with what
the template writes to open an answer (its generation prompt), so that a model generates behind what it was trained behind.
"""

from __future__ import annotations

import datetime
import functools
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from jinja2 import Environment, TemplateError
from jinja2.meta import find_undeclared_variables
from transformers import PreTrainedTokenizerBase
from transformers.utils.chat_template_utils import _compile_jinja_template  # the same in all 5.x

from fusion.data.prompt_format import Message, PromptFormat
from fusion.data.tool_calls import argument_forms
from fusion.tokenizers import cached_per_tokenizer, tokenizer_name

ANSWER = "\ue000\ue002\ue001"  # private use: letters that no template looks at or changes
_TODAY = re.compile(r"""strftime_now\s*\(\s*(['"])(.*?)\1\s*\)""")
_PLAIN = {"role", "content"}
_OPENED = re.compile(r"(<[^<>/\s]+>)\s*$")
_CLOSED = re.compile(r"<([^<>/\s]+)>\s*</\1>\s*$")


class AnswerPlace(NamedTuple):
    """Where the answer stands in a rendered conversation."""

    prompt: str
    """Everything before the answer; generation starts here too."""
    lead: str
    """A space that the template writes before the answer, which belongs to the answer's first token; else empty."""
    after: str
    """What the template writes after the answer."""


def uses_chat_template(tokenizer: PreTrainedTokenizerBase, prompt_format: PromptFormat = PromptFormat()) -> bool:  # noqa: B008
    """Return whether prompts are rendered by the tokenizer's chat template. Raises ValueError for `chat` without one."""
    if prompt_format.template == "chat" and not tokenizer.chat_template:
        raise ValueError(
            f"{tokenizer_name(tokenizer)} has no chat template; set template to plain or auto, or give it one."
        )
    applies = prompt_format.template != "plain" and bool(tokenizer.chat_template)
    if applies:
        _check_variables(tokenizer, tuple(prompt_format.chat_template_kwargs))
    return applies


def _check_variables(tokenizer: PreTrainedTokenizerBase, names: tuple[str, ...]) -> None:
    """Raise ValueError for a variable that the chat template does not read."""
    if not names:
        return
    known = _template_variables(without_generation_tags(all_templates(tokenizer)))
    if unknown := [name for name in names if name not in known]:
        raise ValueError(
            f"{tokenizer_name(tokenizer)}: chat_template_kwargs sets {', '.join(unknown)}, which its chat template does not "
            f"read; it reads {', '.join(sorted(known))}."
        )


@functools.lru_cache
def _template_variables(template: str) -> frozenset[str]:
    environment = Environment(extensions=["jinja2.ext.loopcontrols"])
    return frozenset(find_undeclared_variables(environment.parse(template)))


def all_templates(tokenizer: PreTrainedTokenizerBase) -> str:
    """Return the chat template, or all that have names, one behind the other: what any of them reads is read."""
    found: Any = tokenizer.chat_template
    return "\n".join(found.values()) if isinstance(found, dict) else tokenizer.get_chat_template()


def without_generation_tags(template: str) -> str:
    """Return a chat template without the tags that transformers adds to Jinja, which mark what an assistant said."""
    return re.sub(r"\{%-?\s*(end)?generation\s*-?%\}", "", template)


def find_answer(
    tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message], prompt_format: PromptFormat
) -> AnswerPlace:
    """Return where an answer to `messages` stands in the rendered conversation; messages are already prepared.

    Raises ValueError where the template refuses the messages or leaves the answer out, and where what it writes before an
    answer does not begin with its generation prompt, unless `answer_prefix` says what stands between.
    """
    generation = render(tokenizer, messages, prompt_format, generate=True)
    answered = [*messages, {"role": "assistant", "content": ANSWER}]
    before, found, after = render(tokenizer, answered, prompt_format, generate=False).partition(ANSWER)
    if not found:
        raise ValueError(
            f"{tokenizer_name(tokenizer)}: its chat template leaves out the assistant's message; set template to plain."
        )
    if prompt_format.answer_prefix is not None:
        prefix = prompt_format.answer_prefix  # which an exported template writes itself
        return AnswerPlace(generation if prefix and generation.endswith(prefix) else generation + prefix, "", after)
    if not before.startswith(generation):
        raise ValueError(
            f"{tokenizer_name(tokenizer)}: its chat template opens an answer with {_tail(generation)} and writes "
            f"{_tail(before)} before a finished one, so a model would generate behind another text than it was trained "
            "behind. Set answer_prefix to the text that stands between the first and every answer (such as a closed thought, "
            "'</think>\\n\\n'; '' for nothing), or template to plain."
        )
    between = before[len(generation) :]
    return AnswerPlace(generation, " ", after) if between == " " else AnswerPlace(before, "", after)


def check_answer(
    tokenizer: PreTrainedTokenizerBase,
    messages: Sequence[Message],
    response: str,
    place: AnswerPlace,
    prompt_format: PromptFormat,
) -> None:
    """Raise ValueError where the template renders this conversation as something else than prompt, answer and end."""
    refuse_second_thought(tokenizer, response, place)
    if prompt_format.answer_prefix is not None:
        return  # what stands before an answer was said, and is not what the template writes
    if rendered_as_learned(tokenizer, messages, response, place, prompt_format):
        return
    answered = [*messages, {"role": "assistant", "content": response}]
    rendered = render(tokenizer, answered, prompt_format, generate=False)
    raise ValueError(
        f"{tokenizer_name(tokenizer)}: its chat template writes {_tail(rendered, 120)} for a conversation whose answer would "
        f"be learned as {_tail(place.prompt + place.lead + response + place.after, 120)}. Set answer_prefix ('' where answers "
        "bring their own thoughts), chat_template_kwargs, or template: plain; or leave the example out."
    )


def refuse_second_thought(tokenizer: PreTrainedTokenizerBase, response: str, place: AnswerPlace) -> None:
    """Raise ValueError for a response with a thought of its own behind a prompt that has opened or closed one.

    That is one that begins with the mark, such as `<think>`, with which its prompt ends, and one that opens or closes such a
    thought where the prompt ends with a closed one.
    """
    opened, closed = _OPENED.search(place.prompt), _CLOSED.search(place.prompt)
    if opened and response.lstrip().startswith(opened[1]):
        raise ValueError(
            f"{tokenizer_name(tokenizer)}: the prompt ends with {_tail(place.prompt)} and the response begins with "
            f"{response.lstrip()[:40]!r}, so {opened[1]} would stand there twice. Take it out of the response, or set "
            "chat_template_kwargs or answer_prefix so that the prompt does not open it."
        )
    if closed and _is_thought(response, closed[1]):
        raise ValueError(
            f"{tokenizer_name(tokenizer)}: the prompt ends with {_tail(place.prompt)}, a closed thought, and the response "
            f"{response.lstrip()[:40]!r} has a thought of its own. Set answer_prefix ('' where answers bring their own "
            "thoughts), or take the thought out of the response."
        )


def _is_thought(response: str, mark: str) -> bool:
    """Return whether a response begins with a thought, or closes one that it has not opened."""
    before, closed, _ = response.partition(f"</{mark}>")
    begin = f"<{mark}>"
    return response.lstrip().startswith(begin) or (bool(closed) and begin not in before)


def rendered_as_learned(
    tokenizer: PreTrainedTokenizerBase,
    messages: Sequence[Message],
    response: str,
    place: AnswerPlace,
    prompt_format: PromptFormat,
) -> bool:
    """Return whether the template renders the conversation as the prompt, this response, and what stands behind answers."""
    answered = [*messages, {"role": "assistant", "content": response}]
    rendered = render(tokenizer, answered, prompt_format, generate=False)
    before = place.prompt + place.lead
    return rendered in (before + response + place.after, before + response.strip() + place.after)  # many templates trim


def render(
    tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message], prompt_format: PromptFormat, *, generate: bool
) -> str:
    """Return the messages as the chat template renders them, with the generation prompt where `generate`.

    Raises ValueError, with the messages' roles and beginning, where the template refuses them.
    """
    template = _template_of_day(tokenizer, prompt_format.date, with_tools=bool(prompt_format.tools))
    variables = {
        **prompt_format.chat_template_kwargs,
        **({"tools": list(prompt_format.tools)} if prompt_format.tools else {}),
    }
    refusals = []
    for form in argument_forms(messages):
        try:
            return _render(tokenizer, template, form, variables, generate)
        except (
            TemplateError,
            TypeError,
            ValueError,
            KeyError,
            AttributeError,
        ) as error:  # all of which templates raise
            refusals.append(error)
    raise _refused(tokenizer, messages, refusals[0]) from refusals[0]


def _refused(tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message], error: Exception) -> ValueError:
    """Return what to say of messages that a template refuses."""
    roles = ", ".join(message["role"] for message in messages)
    fold = " fold_system_message: true puts the system message into the first user message;" * (
        messages[0]["role"] == "system"
    )
    return ValueError(
        f"{tokenizer_name(tokenizer)}: its chat template refuses the messages ({roles}) that begin "
        f"{messages[0]['content'][:60]!r}: {error}.{fold} template: plain uses no chat template; else leave the "
        "example out."
    )


def _render(
    tokenizer: PreTrainedTokenizerBase,
    template: str,
    messages: Sequence[Message],
    variables: Mapping[str, Any],
    generate: bool,
) -> str:
    """Return what `apply_chat_template` returns, which spends more on its arguments than on the text where all are plain."""
    given: dict[str, Any] = {"add_generation_prompt": generate, **variables}
    if any(
        message.keys() != _PLAIN or not all(type(v) is str for v in message.values()) for message in messages
    ) or any(type(value) not in (str, int, float, bool) for value in variables.values()):
        return tokenizer.apply_chat_template(list(messages), tokenize=False, chat_template=template, **given)  # type: ignore[return-value]
    given = tokenizer.special_tokens_map | {"tools": None, "documents": None} | given
    return _compile_jinja_template(template).render(messages=[dict(message) for message in messages], **given)


def _template_of_day(tokenizer: PreTrainedTokenizerBase, day: datetime.date | None, *, with_tools: bool) -> str:
    """Return the chat template, which is to take `day` for today."""
    known, template = _known_templates(tokenizer), _named_template(tokenizer, with_tools=with_tools)
    if (template, day) not in known:
        known[template, day] = template if day is None else _with_date(tokenizer, template, day)
    return known[template, day]


def _named_template(tokenizer: PreTrainedTokenizerBase, *, with_tools: bool) -> str:
    """Return the chat template; of several with names the one that transformers takes: `tool_use` with tools, or `default`."""
    found: Any = tokenizer.chat_template
    if isinstance(found, dict) and "default" not in found and not (with_tools and "tool_use" in found):
        raise ValueError(
            f"{tokenizer_name(tokenizer)} has chat templates by the names {', '.join(found)}, and none that is called default. "
            "Save it with one of them as its chat_template, or set template to plain."
        )
    return tokenizer.get_chat_template(tools=[{}] if with_tools else None)


@cached_per_tokenizer
def _known_templates(tokenizer: PreTrainedTokenizerBase) -> dict[tuple[str, datetime.date | None], str]:
    """Templates with the date that they write, by what they were and the date."""
    return {}


def _with_date(tokenizer: PreTrainedTokenizerBase, template: str, day: datetime.date) -> str:
    """Return a chat template with a date in place of each call of `strftime_now`, which gives today's."""
    if "strftime_now" not in template:
        return template
    moment = datetime.datetime.combine(day, datetime.time())
    dated = _TODAY.sub(lambda call: repr(moment.strftime(call[2])), template)
    if re.search(r"strftime_now\s*\(", dated):
        raise ValueError(
            f"{tokenizer_name(tokenizer)}: its chat template writes today's date in a format that is not a literal text, so a "
            "run could mix dates. Give it the date with chat_template_kwargs, if it has a variable for it, or set template to "
            "plain."
        )
    return dated


def _tail(text: str, length: int = 60) -> str:
    shown = text if len(text) <= length else f"...{text[-length:]}"
    return repr(shown)
