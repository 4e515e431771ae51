"""Load data sets as examples: messages, a response and a domain."""

from __future__ import annotations

import hashlib
import json
import random
import string
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, cast

from fusion.quickstart import skills

BUILTIN = "builtin:"
FORMATS = {".jsonl": "json", ".json": "json", ".parquet": "parquet", ".csv": "csv"}


@dataclass(frozen=True)
class Example:
    """A prompt and its response. Each model renders the prompt its own way; the response is the same bytes for all."""

    messages: tuple[dict[str, str], ...]
    """The prompt: dictionaries with `role` and `content`; none for raw text."""
    response: str
    domain: str
    template: Literal["plain"] | None = None
    """`plain` where no model may wrap the prompt in its chat template (raw text); None leaves it to the model."""
    look_ahead: tuple[dict[str, str], ...] | None = None
    """The prompt that sources with `look_ahead: true` read instead; the pivot never reads it. None where it is the same."""
    tests: str | None = None
    """A program that fails where a response is wrong, to check generated responses. None where there is none."""
    origin: str = field(default="", compare=False)
    """Where it was read, for messages: the file and the row. It is no part of what an example is."""

    @property
    def id(self) -> str:
        """Hash of the content: equal prompt, response and template, equal id, wherever the example came from.

        The domain is a label and does not count. Nor does `look_ahead`: the pivot's rows do not depend on it, and a source's
        cache has it in its key.
        """
        content = json.dumps([self.messages, self.response, self.template], ensure_ascii=False)
        return hashlib.sha256(content.encode("utf-8", "surrogatepass")).hexdigest()[:24]

    @property
    def prompt_id(self) -> str:
        """Hash of the prompt: equal for all responses to one prompt."""
        return replace(self, response="").id

    @property
    def prompt(self) -> str:
        """The contents of the messages, for people to read."""
        return "\n".join(message["content"] for message in self.messages)


def load(
    path: str,
    *,
    domain: str,
    prompt: str = "{prompt}",
    response: str | None = "{response}",
    tests: str | None = None,
    system: str | None = None,
    messages: str | None = None,
    template: Literal["plain"] | None = None,
    name: str | None = None,
    split: str = "train",
    where: Mapping[str, Any] | None = None,
    revision: str | None = None,
    skip: int = 0,
    limit: int | None = None,
    shuffle: int | None = None,
    prompt_chars: int | None = None,
    response_chars: int | None = None,
    label_noise: float = 0.0,
    look_ahead: str | None = None,
    as_raw_text: bool = False,
) -> list[Example]:
    """Load the examples of one data set: `builtin:SKILL`, a .jsonl, .json, .csv or .parquet file (may be gzipped), or a hub id.

    `prompt` and `response` are filled from the columns of a row ("{question}"), or `messages` names a column with a
    conversation whose last assistant turn is the response. `prompt_chars` moves that much of the response's beginning into
    the prompt (cut after a space), `response_chars` limits what is left: with both, raw text becomes continuation. `where`
    keeps the rows whose columns have these values. `look_ahead` is the last message as sources with `look_ahead: true` read
    it, with columns in braces and {last_message} for that message as it is. With `as_raw_text` messages and response become
    one text, a paragraph each, all of which is the response, for no template to wrap. Rows without a response are left out,
    unless `response` is None: then examples are prompts alone, with an empty response. `tests` makes the program that checks
    an answer; a column that is a list gives a line for each entry. Raises ValueError for a missing column or an empty result,
    FileNotFoundError for a missing file.
    """
    if path.startswith(BUILTIN):
        rows: Iterable[Mapping[str, Any]] = skills.make_questions(
            path.removeprefix(BUILTIN), skip + (limit or 200), seed=shuffle or 0, label_noise=label_noise, split=split
        )
    else:
        rows = _rows(path, name, split, revision)
    if where:
        rows = [row for row in rows if _matches(row, where, path)]
    if shuffle is not None and not path.startswith(BUILTIN):
        rows = list(rows)
        random.Random(shuffle).shuffle(rows)
    examples = []
    for number, row in enumerate(rows):
        if number < skip:
            continue
        prompt_messages, answer = (
            _conversation(row, messages) if messages else _from_templates(row, prompt, response, system, path)
        )
        if as_raw_text and answer:
            contents = [message["content"] for message in prompt_messages]
            prompt_messages, answer = [], "\n".join([*contents, answer])
        prompt_messages, answer = _cut(prompt_messages, answer, prompt_chars, response_chars)
        if answer or response is None:
            ahead = None if look_ahead is None else _look_ahead_messages(prompt_messages, look_ahead, row, path)
            checked = None if tests is None else _format(tests, row, path)
            examples.append(
                Example(tuple(prompt_messages), answer, domain, "plain" if as_raw_text else template, ahead, checked)
            )
        if limit is not None and len(examples) >= limit:
            break
    if not examples:
        raise ValueError(f"{path} (split {split}, skip {skip}) gives no example: no row is left that has a response.")
    return examples


def is_hub_id(path: str) -> bool:
    """Return whether `load` takes the path for a hub id."""
    return not path.startswith((BUILTIN, ".", "/", "~")) and _suffix(path) not in FORMATS


def _suffix(path: str) -> str:
    return next((s for s in reversed(Path(path).suffixes) if s not in (".gz", ".zst", ".bz2")), "")


def _rows(path: str, name: str | None, split: str, revision: str | None) -> Iterable[Mapping[str, Any]]:
    from datasets import load_dataset  # seconds of import that a built-in data set need not pay

    file, suffix = Path(path).expanduser(), _suffix(path)
    if not is_hub_id(path):
        if not file.is_file():
            raise FileNotFoundError(f"The data file {path} does not exist (looked in {file.parent.absolute()}).")
        if suffix not in FORMATS:
            raise ValueError(
                f"{path}: files end in {', '.join(FORMATS)} (optionally .gz), this one in {suffix or 'nothing'}."
            )
        if file.stat().st_size == 0:
            return []
        return cast(Iterable, load_dataset(FORMATS[suffix], data_files=str(file), split="train"))
    return cast(Iterable, load_dataset(path, name, split=split, revision=revision))


def _from_templates(
    row: Mapping[str, Any], prompt: str, response: str | None, system: str | None, path: str
) -> tuple[list, str]:
    messages = [{"role": "system", "content": _format(system, row, path)}] if system else []
    if prompt:
        messages.append({"role": "user", "content": _format(prompt, row, path)})
    return messages, "" if response is None else _format(response, row, path)


def _format(form: str, row: Mapping[str, Any], path: str) -> str:
    for _text, field, _spec, _conversion in string.Formatter().parse(form):
        if field is not None and field.split("[")[0].split(".")[0] not in row:
            raise ValueError(f"{path}: no column {field!r} for {form!r}; the columns are {', '.join(map(str, row))}.")
    return form.format_map({key: _as_text(value) for key, value in row.items()})


def _as_text(value: Any) -> Any:
    """Join a list of texts as lines; None becomes an empty text."""
    if isinstance(value, list) and all(isinstance(each, str) for each in value):
        return "\n".join(value)
    return "" if value is None else value


def _matches(row: Mapping[str, Any], where: Mapping[str, Any], path: str) -> bool:
    if absent := [column for column in where if column not in row]:
        raise ValueError(
            f"{path}: no column {absent[0]!r} to choose rows by; the columns are {', '.join(map(str, row))}."
        )
    return all(row[column] == value for column, value in where.items())


def _conversation(row: Mapping[str, Any], column: str) -> tuple[list, str]:
    if column not in row:
        raise ValueError(f"No column {column!r} with messages; the columns are {', '.join(map(str, row))}.")
    turns = [{"role": turn["role"], "content": turn["content"]} for turn in row[column] or ()]
    last = max((i for i, turn in enumerate(turns) if turn["role"] == "assistant"), default=None)
    return ([], "") if last is None else (turns[:last], turns[last]["content"])


def _cut(messages: list, answer: str, prompt_chars: int | None, response_chars: int | None) -> tuple[list, str]:
    if prompt_chars:
        at = answer.find(" ", prompt_chars) + 1 or len(answer)
        messages, answer = [*messages, {"role": "user", "content": answer[:at]}], answer[at:]
    if response_chars and len(answer) > response_chars:
        answer = answer[:response_chars].rsplit(" ", 1)[0]
    return messages, answer


def _look_ahead_messages(
    messages: list, form: str, row: Mapping[str, Any], path: str
) -> tuple[dict[str, str], ...] | None:
    """Return the messages with the last one from the template `form`; None where that changes nothing."""
    *before, last = messages or [{"role": "user", "content": ""}]
    ahead = [*before, {**last, "content": _format(form, {**row, "last_message": last["content"]}, path)}]
    return tuple(ahead) if ahead != messages else None


def count_by_domain(examples: Iterable[Example]) -> dict[str, int]:
    """Return the number of examples of each domain, in order of appearance."""
    counts: dict[str, int] = {}
    for example in examples:
        counts[example.domain] = counts.get(example.domain, 0) + 1
    return counts


def other_answers(examples: Sequence[Example]) -> list[str | None]:
    """Return for each example the id of one with another response to the same prompt, None where there is none.

    Of several it is the next in order of appearance, after the last the first. System messages may differ between equal
    prompts, and raw text, which has no prompt, has no other answer.
    """
    answers: dict[tuple[str, ...], dict[str, str]] = {}
    for example in examples:
        answers.setdefault(_prompt_turns(example), {}).setdefault(example.response, example.id)
    return [
        _next_answer(answers[_prompt_turns(example)], example.response) if _prompt_turns(example) else None
        for example in examples
    ]


def _next_answer(ids: Mapping[str, str], response: str) -> str | None:
    known = list(ids)
    return ids[known[(known.index(response) + 1) % len(known)]] if len(known) > 1 else None


def _prompt_turns(example: Example) -> tuple[str, ...]:
    return tuple(text for m in example.messages if m["role"] != "system" for text in (m["role"], m["content"]))


def unique_examples(examples: Iterable[Example]) -> Iterator[Example]:
    """Yield each content once, where it first appears."""
    seen: set[str] = set()
    for example in examples:
        if example.id not in seen:
            seen.add(example.id)
            yield example
