"""The chat template that goes with a trained model: its generation prompt is what stood before answers in training."""

from __future__ import annotations

import copy
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fusion.core.text_files import read_object
from fusion.data.chat_template import find_answer, render, uses_chat_template, without_generation_tags
from fusion.data.prompt_format import Message, PromptFormat
from fusion.tokenizers import tokenizer_name

_ASK = [{"role": "user", "content": "?"}]
_ASK_MORE = [{"role": "user", "content": "And why?"}]
_FOLD = (
    "{%- if messages and messages[0].role == 'system' %}{% set system = messages[0].content %}"
    "{% if messages | length > 1 and messages[1].role == 'user' %}"
    "{% set messages = [{'role': 'user', 'content': system ~ '\\n\\n' ~ messages[1].content}] + messages[2:] %}"
    "{% else %}{% set messages = [{'role': 'user', 'content': system}] + messages[1:] %}{% endif %}{% endif %}"
)


def exported_template(tokenizer: Any, prompt_format: PromptFormat) -> str | None:
    """Return the chat template with which plain `apply_chat_template` makes the prompts of training; None to leave it as it is.

    Variables become defaults, a system message is folded in, and what the template writes only before a finished answer (or
    `answer_prefix` says) is written where an answer is opened too. Raises ValueError for a template that cannot be changed so.
    """
    if not uses_chat_template(tokenizer, prompt_format):
        return None
    template = tokenizer.get_chat_template()
    front = "".join(_default(name, value) for name, value in prompt_format.chat_template_kwargs.items())
    front += _FOLD * prompt_format.fold_system_message
    front += "{{ '' }}" * bool(front)  # a line break behind a tag would be taken for the tag's
    prompt = find_answer(tokenizer, _ASK, prompt_format).prompt
    written = render(tokenizer, _ASK, prompt_format, generate=True)
    if prompt != written:
        closed = render(tokenizer, _ASK, prompt_format, generate=False)
        template = _completed(template, prompt, _same(written, closed), len(written))
    if not front and prompt == written:
        return None
    exported = copy.copy(tokenizer)
    exported.chat_template = front + template
    for asked in (_ASK, _ASK_MORE):
        trained = find_answer(tokenizer, asked, prompt_format).prompt
        _refuse_another_opening(exported, asked, trained, prompt_format)
    return exported.chat_template


def _same(one: str, other: str) -> int:
    """Return how many characters two texts begin with alike."""
    return next((n for n, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))


def _completed(template: str, prompt: str, begin: int, end: int) -> str:
    """Return the template with what is missing of `prompt` behind its generation prompt, which is `prompt[begin:end]`.

    A variable may make the template write more of that by itself, or less (`enable_thinking=False` closes a thought), so what
    it wrote is looked at. Behind an answer that it opened in another way, nothing is added.
    """
    opening = prompt[begin:]
    whole = "{% set written %}{{ '' }}" + without_generation_tags(template).removesuffix("\n") + "{{ '' }}{% endset %}"
    added = (
        f"{{% set opening = {opening!r} %}}{{% set missing = namespace(text={'' if begin < end else opening!r}) %}}"
        "{% for n in range(1, opening | length + 1) if written.endswith(opening[:n]) %}"
        "{% set missing.text = opening[n:] %}{% endfor %}{{ written ~ missing.text }}"
    )
    return f"{{% if add_generation_prompt %}}{whole}{added}{{% else %}}{{{{ '' }}}}{template}{{% endif %}}"


def _refuse_another_opening(exported: Any, asked: Sequence[Message], prompt: str, prompt_format: PromptFormat) -> None:
    opened = render(exported, asked, PromptFormat(date=prompt_format.date), generate=True)
    if opened != prompt:
        raise ValueError(
            f"{tokenizer_name(exported)}: its chat template cannot be exported so that it opens answers as training does: it "
            f"would write {opened[-80:]!r}, and training has {prompt[-80:]!r}. Set template to plain, or put what "
            "chat_template_kwargs, answer_prefix or fold_system_message say into the template itself."
        )


def write_template(folder: Path, template: str) -> None:
    """Put a chat template into a model folder, in place of the one that is there."""
    (folder / "chat_template.jinja").write_text(template, encoding="utf-8")
    file = folder / "tokenizer_config.json"
    settings = read_object(file)
    if settings.pop("chat_template", None) is not None:
        file.write_text(json.dumps(settings, indent=2, ensure_ascii=False), encoding="utf-8")


def _default(name: str, value: Any) -> str:
    # Python's literals are Jinja's too; JSON's are not: `null`, and characters that it writes as two surrogates
    return f"{{%- if {name} is not defined %}}{{% set {name} = {value!r} %}}{{% endif %}}"
