"""Data sets to examples: what was asked, what was answered, and in which domain."""

from __future__ import annotations

import hashlib
import json
import random
import string
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, cast

from fusion.quickstart import skills

BUILTIN = "builtin:"
FORMATS = {".jsonl": "json", ".json": "json", ".parquet": "parquet", ".csv": "csv"}


@dataclass(frozen=True)
class Example:
    """One piece of training or test text. The response is the same bytes for every model, the prompt is rendered by each."""

    messages: tuple[dict[str, str], ...]
    """What comes before the response: dictionaries with `role` and `content`; none for raw text."""
    response: str
    domain: str
    template: Literal["plain"] | None = None
    """`plain` where no model may wrap the prompt in its chat template (raw text); None leaves it to the model."""
    look_ahead: tuple[dict[str, str], ...] | None = None
    """What stands before the response for sources that look ahead; the pivot never reads it. None where that is the same."""
    tests: str | None = None
    """A program that fails where an answer is wrong: for answers that sources write. None where there is none."""

    @property
    def id(self) -> str:
        """Names the content: equal text, equal id, wherever it came from. The domain is a label and does not count.

        Nor does what a source is shown besides: the pivot's rows are the same, and a source's cache has it in its key.
        """
        content = json.dumps([self.messages, self.response, self.template], ensure_ascii=False)
        return hashlib.sha256(content.encode("utf-8", "surrogatepass")).hexdigest()[:24]

    @property
    def prompt_id(self) -> str:
        """Names what comes before the response: equal prompt, equal name."""
        return replace(self, response="").id

    @property
    def prompt(self) -> str:
        """The prompt for people to read."""
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
    """Examples of one data set: `builtin:SKILL`, a .jsonl, .json, .csv or .parquet file (may be gzipped), or a hub id.

    `prompt` and `response` are filled from the columns of a row ("{question}"), or `messages` names a column with a
    conversation whose last assistant turn is the response. `prompt_chars` moves that much of the response's beginning into
    the prompt (cut after a space), `response_chars` limits what is left: with both, raw text becomes continuation. `where`
    keeps the rows whose columns have these values. `look_ahead` is the last message as sources see it that may look ahead,
    with columns in braces and {asked} for that message as it is. With `as_raw_text` messages and response become one text,
    a paragraph each, all of which is the response, for no template to wrap. Rows without a response are left out, unless
    `response` is None: then examples are prompts alone, with an empty response. `tests` makes the program that checks an
    answer; a column that is a list gives a line for each entry. Raises ValueError for a missing column or an empty result,
    FileNotFoundError for a missing file.
    """
    if path.startswith(BUILTIN):
        made = skills.make_questions(
            path.removeprefix(BUILTIN), skip + (limit or 200), seed=shuffle or 0, noise=label_noise, split=split
        )
        rows: Iterable[Mapping[str, Any]] = made
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
        asked, answer = (
            _conversation(row, messages) if messages else _from_templates(row, prompt, response, system, path)
        )
        if as_raw_text and answer:
            asked, answer = [], "\n".join([*(message["content"] for message in asked), answer])
        asked, answer = _cut(asked, answer, prompt_chars, response_chars)
        if answer or response is None:
            ahead = None if look_ahead is None else _look_ahead_messages(asked, look_ahead, row, path)
            checked = None if tests is None else _format(tests, row, path)
            examples.append(Example(tuple(asked), answer, domain, "plain" if as_raw_text else template, ahead, checked))
        if limit is not None and len(examples) >= limit:
            break
    if not examples:
        raise ValueError(f"{path} (split {split}, skip {skip}) gives no example: no row is left that has a response.")
    return examples


def is_hub_id(path: str) -> bool:
    """Whether `load` takes the path for a hub id."""
    return not path.startswith((BUILTIN, ".", "/", "~")) and _suffix(path) not in FORMATS


def _suffix(path: str) -> str:
    return next((s for s in reversed(Path(path).suffixes) if s not in (".gz", ".zst", ".bz2")), "")


def _rows(path: str, name: str | None, split: str, revision: str | None) -> Iterable[Mapping[str, Any]]:
    from datasets import load_dataset  # seconds of import that a built-in data set need not pay

    place, suffix = Path(path).expanduser(), _suffix(path)
    if not is_hub_id(path):
        if not place.is_file():
            raise FileNotFoundError(f"The data file {path} does not exist (looked in {place.parent.absolute()}).")
        if suffix not in FORMATS:
            raise ValueError(
                f"{path}: files end in {', '.join(FORMATS)} (optionally .gz), this one in {suffix or 'nothing'}."
            )
        if place.stat().st_size == 0:
            return []
        return cast(Iterable, load_dataset(FORMATS[suffix], data_files=str(place), split="train"))
    return cast(Iterable, load_dataset(path, name, split=split, revision=revision))


def _from_templates(
    row: Mapping[str, Any], prompt: str, response: str | None, system: str | None, path: str
) -> tuple[list, str]:
    asked = [{"role": "system", "content": _format(system, row, path)}] if system else []
    if prompt:
        asked.append({"role": "user", "content": _format(prompt, row, path)})
    return asked, "" if response is None else _format(response, row, path)


def _format(form: str, row: Mapping[str, Any], path: str) -> str:
    for _text, field, _spec, _conversion in string.Formatter().parse(form):
        if field is not None and field.split("[")[0].split(".")[0] not in row:
            raise ValueError(f"{path}: no column {field!r} for {form!r}; the columns are {', '.join(map(str, row))}.")
    return form.format_map({key: _as_text(value) for key, value in row.items()})


def _as_text(value: Any) -> Any:
    """A list of texts as lines; a column without a value as nothing."""
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


def _cut(asked: list, answer: str, prompt_chars: int | None, response_chars: int | None) -> tuple[list, str]:
    if prompt_chars:
        at = answer.find(" ", prompt_chars) + 1 or len(answer)
        asked, answer = [*asked, {"role": "user", "content": answer[:at]}], answer[at:]
    if response_chars and len(answer) > response_chars:
        answer = answer[:response_chars].rsplit(" ", 1)[0]
    return asked, answer


def _look_ahead_messages(
    asked: list, form: str, row: Mapping[str, Any], path: str
) -> tuple[dict[str, str], ...] | None:
    """The messages with the last one filled in; None where that changes nothing."""
    *before, last = asked or [{"role": "user", "content": ""}]
    ahead = [*before, {**last, "content": _format(form, {**row, "asked": last["content"]}, path)}]
    return tuple(ahead) if ahead != asked else None


def count_by_domain(examples: Iterable[Example]) -> dict[str, int]:
    """How many examples each domain has, in order of appearance."""
    counts: dict[str, int] = {}
    for example in examples:
        counts[example.domain] = counts.get(example.domain, 0) + 1
    return counts


def other_answers(examples: Sequence[Example]) -> list[str | None]:
    """For each example the id of one with another response to the same prompt, None where there is none.

    Of several it is the next, in order of appearance and in a circle. A prompt is what users and assistants said before the
    response: system messages may differ, and raw text, which has no prompt, has no other answer.
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
    """Each content once, at its first place."""
    seen: set[str] = set()
    for example in examples:
        if example.id not in seen:
            seen.add(example.id)
            yield example
