"""Lineage of a run for run.json: package versions, seed, models with licenses and fingerprints, data."""

from __future__ import annotations

import importlib.metadata
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from fusion.config import BUILTIN, Config
from fusion.data import datasets
from fusion.data.easiest import easiest_counts
from fusion.data.example import count_by_domain
from fusion.models import loading
from fusion.responses import GeneratedResponses
from fusion.stages.context import RunContext
from fusion.stages.data_sets import data_facts
from fusion.stages.hardware import hardware

PACKAGES = ("logit-fusion", "torch", "transformers", "accelerate", "tokenizers", "safetensors", "datasets")


def lineage(context: RunContext) -> dict[str, Any]:
    """Entries of run.json by name. `created` is the time of the first run in the folder."""
    config = context.config
    return {
        "name": config.name,
        "created": context.record.read().get("created") or datetime.now(UTC).isoformat(timespec="seconds"),
        "date": context.date.isoformat(),
        "hardware": hardware(),
        "versions": versions(),
        "seed": config.seed,
        "models": {name: _model(context, name) for name in context.models},
        "data": {
            "train": easiest_counts(context.train_examples, config.data.easiest_fraction or 1.0),
            "fine_tuned": _fine_tuned(context),
            "heldout": count_by_domain(context.heldout_examples),
            "validation": count_by_domain(context.validation_examples),
            "sets": data_facts(context),
            "hub_datasets": list(
                dict.fromkeys(data.path for data in config.data.train if datasets.is_hub_id(data.path))
            ),
        },
        "learns_predictions": config.learns_predictions,
        "result": config.fused,
        "baseline": "fine-tuned" if config.baseline else None,
    }


def versions() -> dict[str, str]:
    """The installed version of each package that numbers depend on, by its name."""
    return {package: _version(package) for package in PACKAGES}


def same_models(context: RunContext) -> list[str]:
    """Return a sentence for each source that is the same as one before it, or that is the pivot: what it can teach."""
    seen: dict[tuple[str, str], str] = {}
    found = [
        f"Source {source.name} is the pivot itself: it holds the pivot to what it was, and knows nothing more."
        for source in context.config.sources
        if context.fingerprints[source.name] == context.fingerprints["pivot"]
        and not source.differs_from_pivot
        and not context.has_generated_responses
    ]
    for source in context.config.sources:
        settings = source.model_dump(mode="json", exclude={"name", "path", "revision", "license"})
        before = seen.setdefault((context.fingerprints[source.name], repr(settings)), source.name)
        if before != source.name:
            found.append(
                f"Source {source.name} is the same model as {before}, read alike: it teaches nothing that {before} does not."
            )
    return found


def idle_sources(config: Config) -> list[str]:
    """Return sentences where sources do not read the training data: who they are, and what is said of their reading in vain."""
    if config.reads_sources:
        return []
    names = ", ".join(source.name for source in config.sources)
    answers = isinstance(config.data.responses, GeneratedResponses)
    no_part = not answers and config.rounds is None and config.preferences is None
    rest = ". They answer no prompts either, and are only measured beside it" if no_part else ""
    found = [f"No objective learns what sources predict, so these do not read the training data: {names}{rest}."]
    if config.rounds is None and config.preferences is None and (vain := _for_readers(config)):
        found.append(
            f"So {', '.join(vain)} change nothing here." if len(vain) > 1 else f"So {vain[0]} changes nothing here."
        )
    return found


def _for_readers(config: Config) -> list[str]:
    """The settings that were changed and are for what sources predict."""
    found = [name for name in ("weighting", "alignment") if getattr(config, name) != Config.model_fields[name].default]
    top_k = [] if config.extract.top_k == type(config.extract).model_fields["top_k"].default else ["extract.top_k"]
    rest = [
        f"{each.kind}.use_remaining_weight"
        for each in config.objectives
        if getattr(each, "use_remaining_weight", False)
    ]
    return [*found, *top_k, *dict.fromkeys(rest)]


def _fine_tuned(context: RunContext) -> dict[str, int]:
    """Examples of plain fine-tuning by domain; none where it learns from those of the run, or where there is none."""
    if not context.config.baseline or context.baseline_context.data is context.data:
        return {}
    return count_by_domain(context.baseline_context.train_examples)


def _model(context: RunContext, name: str) -> dict[str, Any]:
    model, backend, given = context.models[name], context.backend(name), replace(context, for_plan=True).models[name]
    return {
        "id": given.path,
        "hub": not given.path.startswith(BUILTIN) and given.ref.local_path is None,
        "fine_tuned": model is not given,
        "role": "pivot" if name == "pivot" else "source",
        "parameters": loading.count_parameters(model.ref) if backend.has_weights else None,
        "vocab_size": loading.vocabulary_size(context.tokenizers[name]),
        "model_type": loading.load_config(model.ref).model_type if backend.has_weights else backend.kind,
        "license": model.license,
        "fingerprint": context.fingerprints[name],
    }


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"
