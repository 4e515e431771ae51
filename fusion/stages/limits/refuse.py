"""What would stop a run hours later, found from configurations, tokenizers and texts before anything is computed.

`refuse_limits` knows what is so everywhere, and a plan asks it too; `machine_limits` knows what this machine lacks, which a
plan for another machine only mentions.
"""

from __future__ import annotations

from collections.abc import Iterator

from fusion.stages.context import RunContext
from fusion.stages.limits import lengths
from fusion.stages.limits.checkpoints import (
    missing_embeddings,
    unloadable_checkpoints,
    unused_template_settings,
    unwritable_templates,
)
from fusion.stages.limits.machine import machine_limits, missing_packages, run_limits
from fusion.stages.limits.models import read_configs
from fusion.training.engine import BATCH_SIZE


def refuse_limits(context: RunContext, *, read_data: bool = True) -> None:
    """Raise ValueError with all that will stop the run, a line each, whatever machine it runs on.

    Without `read_data` neither data nor tokenizers are read, and what needs them is not looked at.
    """
    planned = context.planned
    configs = read_configs(planned, local_only=not read_data)
    found = list(unloadable_checkpoints(planned, configs))
    if read_data and not found:
        found += _of_texts(planned)
    if found:
        raise ValueError("\n".join(found))


def refuse_plan(context: RunContext, *, read_data: bool = True) -> list[str]:
    """What this machine lacks for a run that another may do: a sentence each. Raises ValueError as `refuse_limits`.

    Packages count as what every machine lacks, unless the plan is for a GPU that it names.
    """
    planned = context.planned
    packages = list(missing_packages(planned))
    if packages and context.config.plan.gpu is None:
        raise ValueError("\n".join(packages))
    refuse_limits(planned, read_data=read_data)
    return [*packages, *machine_limits(planned)]


def refuse_machine(context: RunContext) -> None:
    """Raise ValueError with all that this machine lacks for the run, a line each."""
    planned = context.planned
    if found := [*missing_packages(planned), *machine_limits(planned), *run_limits(planned)]:
        raise ValueError("\n".join(found))


def refuse_long_texts(context: RunContext) -> None:
    """Raise ValueError where a text that is there by now is longer than a model reads: see `refuse_limits`."""
    refuse_long_prompts(context)
    if found := list(lengths.long_texts(context)):
        raise ValueError("\n".join(found))


def refuse_long_prompts(context: RunContext) -> None:
    """Encode what the models read; raise ValueError that counts the prompts that leave no room for a response, if any do."""
    try:
        for name in context.models:
            context.encoded(name)
        _ = context.validation_texts
    except ValueError:
        if found := list(lengths.long_prompts(context)):
            raise ValueError("\n".join(found)) from None
        raise


def _of_texts(context: RunContext) -> Iterator[str]:
    yield from unused_template_settings(context)
    yield from unwritable_templates(context)
    refuse_long_prompts(context)
    yield from missing_embeddings(context)
    yield from lengths.long_texts(context)
    yield from lengths.long_answers(context)
    yield from no_whole_batch(context)
    yield from no_prompts(context)


def no_prompts(context: RunContext) -> Iterator[str]:
    """A sentence where the pivot would answer prompts in rounds, and texts have none."""
    if context.config.rounds is None:
        return
    for part, examples in (("train", context.original_examples), ("validation", context.validation_examples)):
        if bare := [example for example in examples if not example.prompt.strip()]:
            yield (
                f"rounds: the pivot answers prompts of data.{part}, and {len(bare)} of {len(examples)} examples have none: the "
                f"first ({lengths.where_read(bare[0])}). Say which columns are the prompt (data.{part}[...].prompt), leave the "
                "data set out, or leave out rounds."
            )


def no_whole_batch(context: RunContext) -> Iterator[str]:
    """A sentence where a training would drop every example."""
    batch, examples = int(context.config.training.get(*BATCH_SIZE)), len(context.train_examples)
    yield from _no_whole_batch_in_rounds(context)
    if context.config.training.get("dataloader_drop_last") and examples < batch:
        yield (
            f"training.dataloader_drop_last leaves nothing to learn from: there are {examples} examples, and a batch has "
            f"{batch} (per_device_train_batch_size). Leave it out, or lower the batch size."
        )


def _no_whole_batch_in_rounds(context: RunContext) -> Iterator[str]:
    if (rounds := context.config.rounds) is None:
        return
    training = context.config.training | rounds.training
    prompts = min(rounds.prompts, len({example.prompt_id for example in context.original_examples}))
    batch, texts = int(training.get(*BATCH_SIZE)), prompts * rounds.num_generations
    examples = texts + min(len(context.train_examples), round(rounds.replay * texts))
    if training.get("dataloader_drop_last") and examples < batch:
        yield (
            f"dataloader_drop_last leaves nothing to learn from in rounds: to {prompts} prompts the pivot writes {texts} "
            f"texts, {examples} examples with those that are replayed, and a batch has {batch} "
            "(per_device_train_batch_size). Leave it out, raise rounds.prompts or rounds.num_generations, or lower the batch "
            "size in rounds.training."
        )
