"""The stage in which every model of a run is put to the held-out examples."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from fusion.data.encode import Template
from fusion.models.loading import ModelRef
from fusion.runtime.artifacts import artifact_key, fingerprint, refuse_other_key
from fusion.runtime.console import bar
from fusion.stages.context import Job
from fusion.stages.merge import MERGED
from fusion.training import BASELINE
from fusion_eval.results import Result
from fusion_eval.runners import heldout


def candidates(job: Job) -> dict[str, tuple[ModelRef, Template, str]]:
    """All models of the run in the order of the table: where each is, its template, and what it was made from."""
    found: dict[str, tuple[ModelRef, Template, str]] = {
        name: (model.ref, model.template, job.fingerprints[name])
        for name, model in job.models.items()
        if job.config.evaluation.original_models and job.backend(name).has_weights
    }
    trained = [BASELINE] if job.config.baseline else []
    for name in [*trained, *job.config.strategies]:
        folder = job.config.folder / "train" / (MERGED if name == "pairwise" else name)
        found[name] = (ModelRef(str(folder / "model")), job.config.pivot.template, artifact_key(folder))
    return found


def evaluate_one(job: Job, name: str, where: tuple[ModelRef, Template, str], how: heldout.HeldoutSettings) -> bool:
    """Put the held-out examples to one model; whether there was something to do."""
    ref, template, identity = where
    file = job.config.folder / "eval" / name / "heldout.json"
    ids = fingerprint({"ids": [example.id for example in job.heldout]})
    key = {"model": identity, "template": template, "examples": ids, **asdict(how)}
    if file.exists():
        refuse_other_key(file, Result.load(file).provenance["key"], key, "fusion evaluate")
        return False
    with bar(f"held-out, {name}", heldout.count_requests(job.heldout, how)) as advance:
        samples = heldout.score(ref, job.heldout, template, how, progress=advance)
    provenance = {"key": key, **_provenance(job)}
    Result(model=name, suite="heldout", path=ref.path, provenance=provenance, samples=samples).save(file)
    return True


def _provenance(job: Job) -> dict[str, Any]:
    record = job.record.read()
    return {"versions": record["versions"], "seed": job.config.seed}
