"""Conversations as people keep them, as messages: OpenAI's role and content, ShareGPT's from and value, JSON in a text."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from fusion.data.reading.row import Row, value_text

ROLES = {
    **dict.fromkeys(("user", "human", "prompter"), "user"),
    **dict.fromkeys(("assistant", "gpt", "chatgpt", "bing", "bard", "model"), "assistant"),
    **dict.fromkeys(("system", "developer"), "system"),
    **dict.fromkeys(("tool", "observation", "function_response", "ipython"), "tool"),
}
"""What the roles of other formats are called in messages."""

ROLE_KEYS, CONTENT_KEYS = ("role", "from"), ("content", "value")
THOUGHTS = ("reasoning_content", "reasoning", "thinking")
"""Keys of a turn with what an assistant thought before it answered, as templates name them."""
SHOWN = ("tool_calls", *THOUGHTS)
"""Keys of a turn, besides role and content, that say something."""
PASSED_ON = (*SHOWN, "tool_call_id", "name")
"""Keys of a turn that chat templates read, besides role and content."""
REFUSED = {
    "function_call": "write it as tool_calls, as OpenAI does now",
    "functions": "write them as tools, as OpenAI does now",
    "audio": "a text can be learned from alone",
    "images": "a text can be learned from alone",
    **dict.fromkeys(("train_detail", "training_detail"), "a turn is learned whole; leave the row out, or cut the turn"),
}
"""Keys of a turn that say something which would be lost, and the way out."""

WEIGHTS = ("weight", "train", "training", "loss")
"""Keys of a turn that say whether it is learned, as OpenAI, axolotl and ms-swift name them: 0 or false, it is not."""
UNCLEAR_WEIGHTS = ("mask", "loss_mask")
"""Keys whose 1 means learned to some and masked to others."""

Turn = dict[str, Any]


def read_turns(value: Any, row: Row, column: str) -> list[Turn]:
    """Return the turns of a conversation as messages, each with its `weight` (1 if not said). None and an empty list have none.

    Raises ValueError, with the row and the turn, for what is no conversation.
    """
    if isinstance(value, str):
        value = _parsed(value, row, column)
    if value is None:
        return []
    if not isinstance(value, list):
        raise ValueError(f"{row.place}: {column} holds {value!r:.60}; a conversation is a list of turns.")
    return [_turn(turn, f"{row.place}: turn {number} of {column}") for number, turn in enumerate(value, 1)]


def read_pairs(value: Any, row: Row, column: str) -> list[Turn]:
    """Return the turns of earlier questions and answers, `[[question, answer], ...]`, or of a conversation.

    Raises ValueError, with the row, for what is neither.
    """
    if not value:
        return []
    found = _parsed(value, row, column) if isinstance(value, str) and value.lstrip().startswith("[") else value
    if isinstance(found, list) and all(isinstance(each, Mapping) for each in found):
        return read_turns(found, row, column)
    if isinstance(found, list) and all(_is_pair(each) for each in found):
        roles = ("user", "assistant")
        return [{"role": role, "content": text} for pair in found for role, text in zip(roles, pair, strict=True)]
    raise ValueError(
        f"{row.place}: {column} is {value!r:.60}, and is no list of earlier turns, [[question, answer], ...]. If it means "
        "something else, rename the column, or set prompt and response."
    )


def _is_pair(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(isinstance(text, str) for text in value)


def split_answer(turns: Sequence[Turn], row: Row, column: str) -> tuple[list[Turn], str, str | None]:
    """Return the messages before the last answer, the answer, and why there is none, if there is none.

    The last answer is the last assistant turn whose weight is not 0. Raises ValueError, with the row, where that turn is more
    than a text that all models can write.
    """
    said = [n for n, turn in enumerate(turns) if turn["role"] == "assistant"]
    answers = [n for n in said if turns[n]["weight"]]
    if not answers:
        return [], "", "each assistant turn has weight 0" if said else "no turn of an assistant"
    answer = turns[answers[-1]]
    for key in SHOWN:
        if answer.get(key):
            raise ValueError(
                f"{row.place}: the last answer of {column} has {key}, which each model writes in its own way. Write it into "
                "the content as text, or leave the row out."
            )
    return [_message(turn) for turn in turns[: answers[-1]]], answer["content"], None


def without_answer(turns: Sequence[Turn]) -> list[Turn]:
    """Return the messages of prompts alone: the turns before the answers at the end, which would tell what is asked for."""
    end = len(turns)
    while end and turns[end - 1]["role"] == "assistant":
        end -= 1
    return [_message(turn) for turn in turns[:end]]


def _parsed(text: str, row: Row, column: str) -> Any:
    try:
        return json.loads(text) if text.strip() else None
    except json.JSONDecodeError as error:
        python = (
            " It looks like Python's repr: write it with json.dumps." if text.lstrip().startswith(("[{'", "{'")) else ""
        )
        raise ValueError(
            f"{row.place}: {column} is a text, and no JSON ({error.msg} at character {error.pos + 1}).{python} A conversation "
            "is a list of turns with role and content."
        ) from error


def _turn(turn: Any, place: str) -> Turn:
    if not isinstance(turn, Mapping):
        raise ValueError(f"{place} is {turn!r:.60}; a turn is an object with role and content, or from and value.")
    for key, way_out in REFUSED.items():
        if turn.get(key):
            raise ValueError(f"{place} has {key}, which is not read; {way_out}.")
    found = {"role": _role(turn, place), "content": _content(turn, place), "weight": _weight(turn, place)}
    return found | {key: without_nulls(turn[key]) for key in PASSED_ON if turn.get(key)}


def without_nulls(value: Any) -> Any:
    """Return a value without the keys of its objects that hold null, at any depth.

    Arrow gives all objects of a column the same keys, those of other rows as null, and does not tell these from nulls that
    somebody wrote. So they are nothing in all formats, and a row is the same from each; a text of JSON keeps its nulls.
    """
    if isinstance(value, Mapping):
        return {key: without_nulls(each) for key, each in value.items() if each is not None}
    return [without_nulls(each) for each in value] if isinstance(value, list) else value


def _message(turn: Turn) -> Turn:
    return {key: value for key, value in turn.items() if key != "weight"}


def _role(turn: Mapping[str, Any], place: str) -> str:
    said = next((turn[key] for key in ROLE_KEYS if key in turn), None)
    role = ROLES.get(said) if isinstance(said, str) else None
    if role is None:
        known = ", ".join(ROLES)
        what = (
            f"the role {said!r}"
            if said is not None
            else f"no role, its keys are {', '.join(map(str, turn)) or '(none)'}"
        )
        raise ValueError(f"{place} has {what}; roles are {known}, under role or from.")
    return role


def _content(turn: Mapping[str, Any], place: str) -> str:
    key = next((key for key in CONTENT_KEYS if key in turn), None)
    content = turn[key] if key else None
    if content is None:
        if turn.get("tool_calls"):
            return ""
        raise ValueError(f"{place} has no content; write the text, or leave the row out.")
    if isinstance(content, list):
        return "".join(_part(part, place) for part in content)
    try:
        return value_text(content, "content")
    except ValueError as error:
        raise ValueError(f"{place}: {error}") from error


def _part(part: Any, place: str) -> str:
    """Return the text of one part of a content."""
    if isinstance(part, str):
        return part
    is_text = isinstance(part, Mapping) and part.get("type", "text") in ("text", "input_text", "output_text")
    if is_text and isinstance(part.get("text"), str):
        return part["text"]
    kind = part.get("type", "no type") if isinstance(part, Mapping) else type(part).__name__
    raise ValueError(f"{place} has a part of {kind}; models here read text alone. Leave the row out.")


def _weight(turn: Mapping[str, Any], place: str) -> int:
    """Return 0 for a turn that is not learned, else 1. Raises ValueError for what says neither, or both."""
    for key in UNCLEAR_WEIGHTS:
        if turn.get(key) is not None:
            raise ValueError(
                f"{place} has {key} {turn[key]!r}, which may mean that it is learned or that it is not. Write weight: 0 for a "
                "turn that is not learned, and 1 for one that is."
            )
    said = {key: turn[key] for key in WEIGHTS if turn.get(key) is not None}
    for key, weight in said.items():
        if weight not in (0, 1):
            raise ValueError(f"{place} has {key} {weight!r}; it may be 0 or false (not learned), or 1 or true.")
    if len(set(map(bool, said.values()))) > 1:
        shown = " and ".join(f"{key} {weight!r}" for key, weight in said.items())
        raise ValueError(f"{place} has {shown}, which do not agree on whether it is learned; leave one of them.")
    return int(all(said.values()))
