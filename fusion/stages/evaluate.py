"""The stage in which every model of a run is put to the held-out examples."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from fusion.config import SourceSettings
from fusion.models.loading import ModelRef
from fusion.runtime.artifacts import artifact_key, fingerprint, refuse_other_key, refuse_together
from fusion.runtime.console import bar, show
from fusion.stages.context import RunContext
from fusion.stages.prompts import heldout_prompts_digest, prompt_format
from fusion.stages.rounds.kept import result_folder
from fusion.training import BASELINE
from fusion_eval.results import Result, Sample
from fusion_eval.runners import heldout

Candidates = dict[str, tuple[ModelRef, str, str]]
"""Models by name, in the order of the table: where each is, whose prompts it reads, and what it was made from."""


def candidates(context: RunContext) -> Candidates:
    """All models of the run."""
    found = originals(context)
    trained = [BASELINE] if context.config.baseline else []
    for name in [*trained, *context.config.results]:
        folder = result_folder(context.config, name)
        found[name] = (ModelRef(str(folder / "model")), "pivot", artifact_key(folder))
    return found


def originals(context: RunContext) -> Candidates:
    """Of these the untrained ones, which are there before the run has begun."""
    models = context.models
    return {name: (models[name].ref, name, context.fingerprints[name]) for name in original_models(context)}


def original_models(context: RunContext) -> list[str]:
    """The untrained models that are measured: pivot and sources with weights, but no source that is the pivot itself."""
    if not context.config.evaluation.original_models:
        return []
    with_weights = [name for name in context.models if context.backend(name).has_weights]
    return [name for name in with_weights if name == "pivot" or not _is_the_pivot(context, name)]


def _is_the_pivot(context: RunContext, name: str) -> bool:
    """Whether a source is the same model as the pivot, and reads the same prompts."""
    source, pivot = context.models[name], context.models["pivot"]
    alike = prompt_format(context, name).key() == prompt_format(context, "pivot").key()
    return source.ref == pivot.ref and alike and not (isinstance(source, SourceSettings) and source.shots)


def evaluate_one(
    context: RunContext, name: str, where: tuple[ModelRef, str, str], how: heldout.HeldoutSettings
) -> bool:
    """Measure one model on the held-out examples.

    Returns whether it was done now, and not by an earlier start or by a run that shares its store with this one.
    """
    ref, reader, _ = where
    if _earlier_result(context, name, where, how) is not None:
        return False
    key = _result_key(context, where, how)
    shared = context.store.shared_result(key)
    known = None if shared is None else _existing_result(shared)
    samples = _score(context, name, ref, reader, how) if known is None else known.samples
    provenance = {"key": key, **_provenance(context)}
    if known is not None:  # what measured it then
        provenance["versions"] = known.provenance["versions"]
    found = Result(model=name, suite="heldout", path=ref.path, provenance=provenance, samples=samples)
    found.save(_result_file(context, name))
    if shared is not None and known is None:
        found.save(shared)
    return known is None


def refuse_other_results(context: RunContext, models: Candidates, how: heldout.HeldoutSettings) -> None:
    """Raise ValueError for all results that are there from something else, before the first model is measured."""
    refuse_together(partial(_earlier_result, context, name, where, how) for name, where in models.items())


def _earlier_result(
    context: RunContext, name: str, where: tuple[ModelRef, str, str], how: heldout.HeldoutSettings
) -> Result | None:
    """What is there of a model. Raises OtherInputsError where it was made from something else."""
    file = _result_file(context, name)
    if (before := _existing_result(file)) is not None:
        refuse_other_key(file, before.provenance["key"], _result_key(context, where, how), "fusion evaluate")
    return before


def _result_file(context: RunContext, name: str) -> Path:
    return context.config.folder / "eval" / name / "heldout.json"


def _result_key(context: RunContext, where: tuple[ModelRef, str, str], how: heldout.HeldoutSettings) -> dict[str, Any]:
    """All that the result of a model depends on."""
    _, reader, identity = where
    ids = fingerprint({"ids": [example.id for example in context.heldout_examples]})
    prompts = prompt_format(context, reader).key() | {"ids": heldout_prompts_digest(context, reader)}
    return {"model": identity, "prompts": prompts, "examples": ids, **how.key()}


def _score(context: RunContext, name: str, ref: ModelRef, reader: str, how: heldout.HeldoutSettings) -> list[Sample]:
    with bar(f"held-out, {name}", heldout.count_requests(context.heldout_examples, how), "requests") as advance:
        formats = [prompt_format(context, reader, example) for example in context.heldout_examples]
        return heldout.score(ref, context.heldout_examples, formats, how, progress=advance)


def _existing_result(file: Path) -> Result | None:
    """What an earlier evaluation left; a file that is none is set aside, and the model is evaluated again."""
    if not file.exists():
        return None
    try:
        return Result.load(file)
    except ValueError as error:
        show([f"{error}", f"It is kept as {file.name}.damaged, and the model is evaluated again."])
        file.replace(file.with_name(f"{file.name}.damaged"))
        return None


def _provenance(context: RunContext) -> dict[str, Any]:
    record = context.record.read()
    return {"versions": record["versions"], "seed": context.config.seed}
