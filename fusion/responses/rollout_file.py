"""Texts that the pivot wrote in another program, such as vLLM: a line of JSON each, checked and read as its own tokens."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import Strict, ValidationError
from transformers import PreTrainedTokenizerBase

from fusion.core.settings import Settings
from fusion.core.text_files import read_text
from fusion.data.chat_tokens import Prompt, control_pattern, response_ids
from fusion.responses.rollouts import Rollout, read_rollout
from fusion.tokenizers import tokenizer_name

LINE = '{"prompt_id": "1f0c...", "text": "5 and 7 are 12.", "token_ids": [33, 284, 2], "ended": true}'
"""What a line looks like; `token_ids` may be left out or null."""


class RolloutLine(Settings):
    """A text as it stands in a file."""

    prompt_id: Annotated[str, Strict()]
    text: Annotated[str, Strict()]
    """Without the token or text that ended it."""
    ended: Annotated[bool, Strict()]
    """Whether it ended by itself, and was not cut at the length limit."""
    token_ids: list[Annotated[int, Strict()]] | None = None
    """What was drawn, up to the end; without them the text is encoded, which may give other tokens."""


@dataclass(frozen=True)
class AskedPrompt:
    """A prompt that is answered elsewhere, and how answers to it end."""

    prompt: Prompt
    ends: Sequence[int]
    """Ids that end an answer."""
    end: int | None
    """The one that ends a text whose own end is not told."""
    stop: Sequence[str] = ()
    """Texts at which answers end."""


@dataclass(frozen=True)
class RolloutFile:
    """A file of texts, and what it must hold: so many texts to each of the prompts, none longer than `longest` tokens."""

    path: Path
    tokenizer: PreTrainedTokenizerBase
    asked: Mapping[str, AskedPrompt]
    """By the id that a line names."""
    samples: int
    longest: int

    def read(self) -> dict[str, list[list[int]]]:
        """Return the tokens of all texts to each prompt, in the order of the lines, as `Completion.ids` has them.

        Raises ValueError, with file and line, for what could not have been written by the pivot to these prompts.
        """
        found: dict[str, list[list[int]]] = defaultdict(list)
        for place, line in self._lines():
            if line.prompt_id not in self.asked:
                raise ValueError(
                    f"{place}: prompt_id {line.prompt_id!r} is none of the {len(self.asked)} prompts of this round. Ids are "
                    "new in each round and with each model: texts of another round, or of another pivot, do not fit."
                )
            found[line.prompt_id].append(self._ids(place, line, self.asked[line.prompt_id]))
        self._refuse_other_counts(found)
        return {id: found[id] for id in self.asked}

    def _lines(self) -> Iterator[tuple[str, RolloutLine]]:
        for number, text in enumerate(read_text(self.path).split("\n"), start=1):
            if text.strip():
                place = f"{self.path}, line {number}"
                yield place, _parsed(place, text)

    def _ids(self, place: str, line: RolloutLine, asked: AskedPrompt) -> list[int]:
        ids = self._encoded(place, line, asked) if line.token_ids is None else self._given(place, line, asked)
        rollout = read_rollout(self.tokenizer, ids, asked.ends, asked.stop, asked.prompt.lead)
        is_cut = rollout.end is None and len(rollout.ids) < len(ids)  # at a token that no other model could read
        self._refuse_another_text(place, line, rollout, is_cut, asked)
        if rollout.end is not None and not line.ended:
            raise ValueError(
                f"{place}: token_ids have {rollout.end}, which ends an answer of the pivot, and ended is false; set it to "
                "true, or write the tokens that were drawn."
            )
        if rollout.end is None and line.ended and not is_cut:
            return [*ids, self._end(place, asked)]
        return ids

    def _end(self, place: str, asked: AskedPrompt) -> int:
        if asked.end is None:
            raise ValueError(
                f"{place}: ended is true, and the pivot has no token that ends an answer; set pivot.stop, or ended to false."
            )
        return asked.end

    def _given(self, place: str, line: RolloutLine, asked: AskedPrompt) -> list[int]:
        ids = list(line.token_ids or [])  # some output layers are longer than the vocabulary: larger ids can be drawn
        if wrong := [id for id in ids if id < 0]:
            raise ValueError(f"{place}: token_ids have {wrong[0]}; ids of tokens begin at 0.")
        if len(ids) > self.longest:
            raise ValueError(
                f"{place} has {len(ids)} token_ids, and rounds.max_completion_length is {self.longest}. Cut them there, with "
                "ended false, or raise it."
            )
        return ids

    def _encoded(self, place: str, line: RolloutLine, asked: AskedPrompt) -> list[int]:
        if control := control_pattern(self.tokenizer).search(line.text):
            raise ValueError(
                f"{place}: text holds the control token {control[0]!r}, which is no text. Write what comes before it (ended is "
                "true where it is what ends an answer), or add token_ids."
            )
        return response_ids(self.tokenizer, asked.prompt, line.text.removeprefix(asked.prompt.lead))

    def _refuse_another_text(
        self, place: str, line: RolloutLine, rollout: Rollout, is_cut: bool, asked: AskedPrompt
    ) -> None:
        """Raise ValueError where the tokens do not say what the text does, up to where they can be read."""
        said = line.text.removeprefix(asked.prompt.lead)
        # some programs decode an answer as a text of its own, without the space before its first word
        if any(each == rollout.text or (is_cut and each.startswith(rollout.text)) for each in (said, f" {said}")):
            return
        if line.token_ids is None:
            raise ValueError(
                f"{place}: the pivot ({tokenizer_name(self.tokenizer)}) reads text {said[:60]!r} as {rollout.text[:60]!r}; "
                "it holds what ends an answer, or its vocabulary cannot spell it. Add token_ids, or write text up to there."
            )
        raise ValueError(
            f"{place}: token_ids say {rollout.text[:60]!r} in the pivot's vocabulary ({tokenizer_name(self.tokenizer)}), and "
            f"text is {said[:60]!r}. Write both from one answer of this model, or leave token_ids out."
        )

    def _refuse_other_counts(self, found: Mapping[str, Sequence[Any]]) -> None:
        wrong = [id for id in self.asked if len(found.get(id, ())) != self.samples]
        if wrong:
            raise ValueError(
                f"{self.path}: {len(wrong)} of {len(self.asked)} prompts have not {self.samples} answers each "
                f"(rounds.num_generations), the first of them {wrong[0]}, which has {len(found.get(wrong[0], ()))}. Write a "
                "line for each answer."
            )


def _parsed(place: str, text: str) -> RolloutLine:
    """Return what a line holds. Raises ValueError with what is wrong and what a line looks like."""
    try:
        return RolloutLine.model_validate(json.loads(text))
    except ValidationError as error:
        first = error.errors()[0]
        said = ".".join(map(str, first["loc"])) or "it"
        raise ValueError(f"{place}: {said}: {first['msg']}. A line looks like {LINE}.") from None
    except (ValueError, RecursionError):
        raise ValueError(f"{place} is not JSON. A line looks like {LINE}.") from None
