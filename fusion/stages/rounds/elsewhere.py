"""Texts of a round that the pivot writes in another program or on another machine: what it is asked, and what it brings.

rounds/N/prompts.jsonl      the prompts of the round, by ids that say for which round and model they are
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fusion.core.text_files import hash_of, read_object
from fusion.data.answer_end import end_of_turn
from fusion.data.chat_tokens import Prompt
from fusion.responses import ResponseStore
from fusion.responses.rollout_file import LINE, AskedPrompt, RolloutFile
from fusion.runtime import distributed
from fusion.runtime.artifacts import fingerprint, is_complete, write_text
from fusion.stages.prompts import prompt_formats
from fusion.stages.rounds.stop import declared_ends

if TYPE_CHECKING:
    from fusion.stages.rounds.context import RoundContext

ID_DIGITS = 12


def rollout_file(context: RoundContext, prompts: Mapping[str, Prompt]) -> Path:
    """Return the file with the texts of the round.

    Where it is not there, what has to be answered is written down, and a ValueError says by whom and how.
    """
    file = _place(context)
    if not file.exists():
        asked = context.config.folder / "prompts.jsonl"
        with distributed.main_process_first():
            if distributed.is_main_process():
                write_text(asked, _prompt_lines(context, prompts))
        raise ValueError(_request(context, file, asked, len(prompts), asked_prompts(context, prompts)))
    return file


def put_away(context: RoundContext) -> str | None:
    """The hash of a file whose texts were all taken in, and which is not there any more; None in every other case."""
    taken_in = context.config.folder / "responses" / "pivot"
    if _place(context).exists() or not is_complete(taken_in):
        return None
    return read_object(taken_in / "key.json").get("rollouts")


def _place(context: RoundContext) -> Path:
    return Path(str(context.rounds.rollouts).replace("{round}", str(context.number)))


def brought_key(context: RoundContext, prompts: Mapping[str, Prompt]) -> dict[str, Any]:
    """Return all that texts depend on which are not written here: the file, and what was asked for."""
    limits = {"num_generations": context.rounds.num_generations, "max_length": context.rounds.max_completion_length}
    return {"rollouts": put_away(context) or hash_of(rollout_file(context, prompts)), **limits}


def brought_texts(context: RoundContext, prompts: Mapping[str, Prompt]) -> dict[str, list[list[int]]]:
    """Return the texts in the file of the round, by prompt. Raises ValueError, with its line, for one that cannot be right."""
    rounds, asked = context.rounds, asked_prompts(context, prompts)
    file = RolloutFile(
        rollout_file(context, prompts), context.tokenizers["pivot"], asked,
        samples=rounds.num_generations, longest=rounds.max_completion_length,
    )  # fmt: skip
    found = file.read()
    return {id: found[asked_id(context, id)] for id in prompts}


def keep_texts(store: ResponseStore, texts: Mapping[str, list[list[int]]]) -> bool:
    """Keep texts as if they had been written here; whether there was something to do."""
    with distributed.main_process_first():
        if store.is_complete:
            return False
        for number in store.missing():
            store.write(number, [texts[id] for id in store.shard_ids(number)])
        store.finalize()
    return True


def asked_id(context: RoundContext, prompt_id: str) -> str:
    """Return the id of a prompt in this round: another one for each model, so that texts of another cannot be taken for its."""
    key = {"prompt": prompt_id, "round": context.number, "model": context.fingerprints["pivot"]}
    return fingerprint(key)[:ID_DIGITS]


def asked_prompts(context: RoundContext, prompts: Mapping[str, Prompt]) -> dict[str, AskedPrompt]:
    """Return what is answered elsewhere, by the id that a line of the file names."""
    tokenizer, formats = context.tokenizers["pivot"], prompt_formats(context, "pivot")
    found = {}
    for example in context.original_examples:
        form, prompt = formats(example, example.messages), prompts[example.prompt_id]
        ends, end = declared_ends(context, form), end_of_turn(tokenizer, form)
        found[asked_id(context, example.prompt_id)] = AskedPrompt(prompt, ends, end, form.stop_texts)
    return found


def _prompt_lines(context: RoundContext, prompts: Mapping[str, Prompt]) -> str:
    tokenizer = context.tokenizers["pivot"]
    lines = [
        {"prompt_id": asked_id(context, id), "prompt": tokenizer.decode(prompt.ids), "prompt_token_ids": prompt.ids}
        for id, prompt in prompts.items()
    ]
    return "".join(f"{json.dumps(line, ensure_ascii=False)}\n" for line in lines)


def _request(context: RoundContext, file: Path, prompts: Path, count: int, asked: Mapping[str, AskedPrompt]) -> str:
    rounds = context.rounds
    ids = sorted({id for each in asked.values() for id in each.ends})
    texts = sorted({text for each in asked.values() for text in each.stop})
    ends = f"the token ids {ids}" + (f" or the texts {texts}" if texts else "")
    return (
        f"{file} is not there, and round {context.number} learns from texts that the pivot writes elsewhere (rounds.rollouts). "
        f"Let the model in {context.config.pivot.path} answer the {count} prompts of {prompts} (prompt_token_ids are what it "
        f"reads): {rounds.num_generations} answers to each, at temperature 1 from the whole distribution (top_p 1, no top_k, "
        f"no penalty), of at most {rounds.max_completion_length} tokens, ending at {ends}. Write each answer as a line of "
        f"{file} like {LINE}, where token_ids are what was drawn and may be left out. Then start the run again."
    )
