"""What may stand in `training`: transformers' TrainingArguments, less those that a run sets itself."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AfterValidator

from fusion.core.settings import suggest

OURS = {
    **dict.fromkeys(["output_dir", "seed", "remove_unused_columns", "use_cpu"], "is set by the run itself"),
    **dict.fromkeys(
        ["resume_from_checkpoint", "do_train", "do_eval", "ddp_backend", "ddp_timeout"], "is set by the run itself"
    ),
    **dict.fromkeys(["deepspeed", "fsdp", "fsdp_config"], "is chosen by engine, which see"),
}
"""TrainingArguments that are not the user's to give, and why."""


def _known(value: dict[str, Any]) -> dict[str, Any]:
    """Known names only; and `save_strategy: no`, which YAML reads as false, means what it says."""
    from dataclasses import fields

    from transformers import TrainingArguments

    allowed = {field.name for field in fields(TrainingArguments) if field.init} - OURS.keys()
    for key in value:
        if key not in allowed:
            why = OURS.get(key) or f"is not a TrainingArgument{suggest(key, allowed)}"
            raise ValueError(f"{key} {why}")
    return {key: "no" if given is False and key.endswith("_strategy") else given for key, given in value.items()}


Arguments = Annotated[dict[str, Any], AfterValidator(_known)]
"""Checked when a configuration is read."""
