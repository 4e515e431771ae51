"""Every id with which the pivot says that its answer is over: in rounds they are one event, whichever of them it wrote."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fusion.data.answer_end import end_of_turn, stop_event, trained_ends
from fusion.data.prompt_format import PromptFormat
from fusion.models.auxiliary_files import eos_ids_of
from fusion.stages.prompts import prompt_format

if TYPE_CHECKING:
    from fusion.stages.context import RunContext


def declared_ends(context: RunContext, form: PromptFormat) -> list[int]:
    """Return the ids that end a text of the pivot in this format: those of training, and those that it came with.

    It came with eos of its tokenizer and all of `eos_token_id` in its generation_config.json, at which it stops when it writes.
    """
    tokenizer, folder = context.tokenizers["pivot"], context.config.pivot.ref.local_path
    return _together(trained_ends(tokenizer, form), tokenizer.eos_token_id, folder)


def stop_ids(context: RunContext, model: Path) -> tuple[int, ...]:
    """Return the ids that are one event for the pivot in the folder `model`: first its end of turn, under which all count.

    Besides `declared_ends` these are tokens that begin with a text of its `stop`. Empty for a pivot without an end.
    """
    tokenizer, form = context.tokenizers["pivot"], prompt_format(context, "pivot")
    if (end := end_of_turn(tokenizer, form)) is None:
        return ()
    found = _together(stop_event(tokenizer, form), tokenizer.eos_token_id, model)
    return (end, *(id for id in found if id != end))


def _together(ids: Sequence[int], eos: int | None, folder: Path | None) -> list[int]:
    own = [] if folder is None or not folder.is_dir() else eos_ids_of(folder)
    return sorted({*ids, *own, *([] if eos is None else [eos])})
