"""The texts of a round: written by the pivot, checked, and read by sources as the same bytes.

rounds/N/responses/pivot    what the pivot wrote: by prompt, the tokens of each answer
rounds/N/texts              those that every source can read, with what the checks say of them
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fusion.data.answer_end import end_of_turn
from fusion.data.chat_tokens import Prompt, response_ids
from fusion.data.encode import Encoded
from fusion.data.encoding import Conversation, encode_prompt_batch
from fusion.data.example import Example
from fusion.models.generate import Completion, cut_at_stop
from fusion.responses import Response, ResponseStore, example_from_json, example_to_json
from fusion.responses.base import Check
from fusion.responses.checks import AgreementCheck, FinalAnswerCheck
from fusion.responses.response_store import store_key
from fusion.responses.rollouts import Rollout, read_rollout
from fusion.runtime import distributed
from fusion.runtime.artifacts import claim_artifact, is_made, mark_complete, write_text
from fusion.runtime.console import bar, console
from fusion.stages.prompts import prompt_format, prompt_formats
from fusion.stages.respond.answers import answering_key, encoded_prompts, write_answers
from fusion.stages.rounds.elsewhere import brought_key, brought_texts, keep_texts, put_away
from fusion.stages.rounds.kept import REDO
from fusion.stages.rounds.stop import declared_ends
from fusion.tokenizers import byte_prefixes, vocabulary_bytes

if TYPE_CHECKING:
    from fusion.stages.rounds.context import RoundContext

PROMPTS_AT_ONCE = 32
"""Prompts of a shard of answers: what is lost where the writing is cut off."""
WRITER = "pivot"


@dataclass(frozen=True)
class WrittenText:
    """A text that the pivot wrote to a training prompt, and what its check says of it, where one can say anything."""

    example: Example
    """The prompt with this text as its response."""
    rollout: Rollout
    passed: bool | None
    """None where nothing tells right answers to this prompt from wrong ones."""
    reward: float
    """0 there, and for a text that would be rewarded but is empty or did not end."""


def text_store(context: RoundContext) -> ResponseStore:
    """The folder of what the pivot writes in this round: by prompt, the ids of each text."""
    encoded = _asked(context)
    key = answering_key(context, WRITER, encoded)
    if context.rounds.rollouts is None:
        decoding = context.rounds.decoding(context.number, context.run.config.seed)
        key |= {"decoding": dataclasses.asdict(decoding)}
    else:  # how they were written is not known here
        key = {"model": key["model"], "prompts": key["prompts"], **brought_key(context, encoded)}
    size = min(context.config.extract.shard_size, PROMPTS_AT_ONCE)
    folder = context.store.artifact_folder("responses", WRITER, store_key(key, list(encoded), size))
    return ResponseStore(folder, key, list(encoded), shard_size=size, redo=REDO)


def write_texts(context: RoundContext) -> bool:
    """Let the pivot answer the prompts of the round, or take what it answered elsewhere; whether there was something to do."""
    encoded = _asked(context)
    if context.rounds.rollouts is not None:
        if put_away(context):
            return keep_texts(text_store(context), {})  # refused where anything else changed
        brought = brought_texts(
            context, encoded
        )  # before the folder is claimed: a file that is mended is no contradiction
        return keep_texts(text_store(context), brought)
    decoding = context.rounds.decoding(context.number, context.run.config.seed)
    return write_answers(
        context, WRITER, text_store(context), encoded, decoding, lambda _, completion: list(completion.ids)
    )


def _asked(context: RoundContext) -> dict[str, Prompt]:
    """The prompts of the round as the pivot reads them, by their ids."""
    return encoded_prompts(context, WRITER, {each.prompt_id: each for each in context.original_examples})


def judge_texts(context: RoundContext) -> bool:
    """Check what the pivot wrote and keep what all sources can read; whether there was something to do."""
    folder, store = context.config.folder / "texts", text_store(context)
    readers = {name: prompt_format(context, name).key() for name in context.models}
    checks = [check.key() if judged else None for check, judged in zip(context.checks, context.judged, strict=True)]
    key = {"answers": store.key, "checks": checks, "readers": readers}
    with distributed.main_process_first():
        if is_made(folder, key, REDO):
            return False
        written = _readable(context, _written(context, store))
        if not written:
            raise ValueError(
                f"{folder}: the pivot wrote nothing in round {context.number} that all models can read. Train it longer before "
                "rounds begin, or raise rounds.max_completion_length."
            )
        lines = [json.dumps(_to_json(text)) for text in written]
        claim_artifact(folder, key, REDO)
        write_text(folder / "texts.jsonl", "".join(f"{line}\n" for line in lines))
        mark_complete(folder)
    return True


def read_texts(context: RoundContext) -> list[WrittenText]:
    """Read what `judge_texts` kept."""
    file = context.config.folder / "texts" / "texts.jsonl"
    return [_from_json(json.loads(line)) for line in file.read_text().split("\n") if line]


def encode_written(context: RoundContext) -> list[Encoded]:
    """Return each text in the tokens in which the pivot wrote it."""
    tokenizer, prompts = context.tokenizers[WRITER], _prompts(context, WRITER, [t.example for t in context.written])
    first: dict[
        str, Encoded
    ] = {}  # texts that are equal have equal rows, whatever tokens the later ones were written in
    for text, prompt in zip(context.written, prompts, strict=True):
        rollout, ends = text.rollout, context.pivot_stop_ids
        if rollout.end in ends:  # whichever it wrote, it said the same
            rollout = dataclasses.replace(rollout, end=ends[0])
        first.setdefault(text.example.id, rollout.encoded(tokenizer, prompt))
    return [first[text.example.id] for text in context.written]


def encode_for_source(context: RoundContext, name: str, texts: Sequence[WrittenText]) -> list[Encoded]:
    """Return texts in the tokens of a source, each up to where an answer of this source would be over.

    A source with the pivot's own vocabulary reads the tokens that the pivot wrote. Nothing is asked of how the source's chat
    template would write the text in a conversation: it follows the prompt as it is. Raises ValueError for a text that cannot be
    put into the source's tokens.
    """
    tokenizer, formats = context.tokenizers[name], prompt_formats(context, name)
    alike = vocabulary_bytes(tokenizer) == vocabulary_bytes(context.tokenizers[WRITER])
    found = []
    for text, prompt in zip(texts, _prompts(context, name, [text.example for text in texts]), strict=True):
        form = formats(text.example, text.example.messages)
        response = cut_at_stop(Completion(text.example.response, True), form.stop_texts).text
        as_written = alike and response == text.example.response
        ids = list(text.rollout.ids) if as_written else response_ids(tokenizer, prompt, response)
        end = end_of_turn(tokenizer, form)
        tokens = prompt.ids + ids + ([] if end is None else [end])
        prefix = byte_prefixes(tokenizer, ids, response)[: len(tokens) - len(prompt.ids)]
        found.append(Encoded(tokens, len(prompt.ids), prefix, truncated=end is None))
    return found


def _prompts(context: RoundContext, name: str, examples: Sequence[Example]) -> list[Prompt]:
    looks_ahead, formats = getattr(context.models[name], "look_ahead", False), prompt_formats(context, name)
    read = [each.look_ahead if looks_ahead and each.look_ahead is not None else each.messages for each in examples]
    conversations = [Conversation(said, "", formats(e, said), e.origin) for e, said in zip(examples, read, strict=True)]
    return encode_prompt_batch(context.tokenizers[name], conversations)


def _written(context: RoundContext, store: ResponseStore) -> list[WrittenText]:
    """Every text of the round with what its check says; texts without a token and an end are none."""
    tokenizer, formats, answers = context.tokenizers[WRITER], prompt_formats(context, WRITER), store.read()
    prompts = _asked(context)
    found: list[WrittenText] = []
    with bar("texts checked", len(context.original_examples), "prompts") as advance:
        for example, check, judged in zip(context.original_examples, context.checks, context.judged, strict=True):
            form, lead = formats(example, example.messages), prompts[example.prompt_id].lead
            ends = declared_ends(context, form)
            rollouts = [read_rollout(tokenizer, ids, ends, form.stop_texts, lead) for ids in answers[example.prompt_id]]
            texts = [each for each in rollouts if each.ids or each.end is not None]
            compared, check = comparison(example, check, context.chosen_responses)
            found += judge(example, compared, check, texts) if judged else unjudged(example, texts)
            advance(1)
    return found


def comparison(example: Example, check: Check, chosen: Mapping[str, str]) -> tuple[Example, Check]:
    """Return what the texts to a prompt are compared with, and by which check.

    Where a majority of sources decides, it has decided: texts are compared with the answer that was `chosen` for this prompt,
    and none passes where none was.
    """
    if not isinstance(check, AgreementCheck):
        return example, check
    agreed = dataclasses.replace(example, response=chosen.get(example.prompt_id, ""))
    return agreed, FinalAnswerCheck(compare=check.compare)


def judge(example: Example, compared: Example, check: Check, rollouts: Sequence[Rollout]) -> list[WrittenText]:
    """Return the texts with what a check says of them; one that did not end by itself never passes nor is rewarded."""
    if not rollouts:
        return []
    responses = [Response(WRITER, each.text, each.end is not None) for each in rollouts]
    found = []
    for rollout, response, (passed, reward) in zip(
        rollouts, responses, check.verdicts(compared, responses), strict=True
    ):
        whole = response.ended and bool(response.text.strip())
        text = dataclasses.replace(example, response=response.text)
        found.append(WrittenText(text, rollout, passed and whole, reward if whole or reward < 0 else 0.0))
    return found


def unjudged(example: Example, rollouts: Sequence[Rollout]) -> list[WrittenText]:
    """Return the texts to a prompt without a reference, of which no check can say anything."""
    return [WrittenText(dataclasses.replace(example, response=each.text), each, None, 0.0) for each in rollouts]


def _readable(context: RoundContext, texts: Sequence[WrittenText]) -> list[WrittenText]:
    """Return the texts that every source can read, and say how many it cannot."""
    kept = list(texts)
    for name in context.models:
        if name != WRITER:
            before, kept = len(kept), [text for text in kept if _can_read(context, name, text)]
            if len(kept) < before:
                console.print(f"  {before - len(kept)} of {before} texts cannot be put into tokens of {name}: left out")
    return kept


def _can_read(context: RoundContext, name: str, text: WrittenText) -> bool:
    try:
        return bool(encode_for_source(context, name, [text]))
    except ValueError:
        return False


def _to_json(text: WrittenText) -> dict[str, Any]:
    rest = {"rollout": dataclasses.asdict(text.rollout), "passed": text.passed, "reward": text.reward}
    return {"example": example_to_json(text.example, None), **rest}


def _from_json(stored: dict[str, Any]) -> WrittenText:
    rollout = Rollout(tuple(stored["rollout"]["ids"]), stored["rollout"]["text"], stored["rollout"]["end"])
    return WrittenText(example_from_json(stored["example"]), rollout, stored["passed"], stored["reward"])
