"""The model card: README.md of the fused model, with the front matter the Hugging Face hub reads."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from fusion.report.record import ModelFacts, Record, read_run
from fusion.report.table import markdown, plain
from fusion.report.verdict import Outcome, judge
from fusion_eval.statistics import RESAMPLES

CONCLUSION: dict[Outcome, str] = {
    "better": "On these measures, fusing was worth it.",
    "no different": "So on this evidence plain fine-tuning, which is simpler, would have done as well.",
    "worse": "So on this evidence plain fine-tuning, which is simpler, is the better choice.",
    "mixed": "Which of the two is the better choice depends on the measure that matters to you.",
}
"""What follows from the comparison with plain fine-tuning."""


def model_card(run: Path, *, resamples: int = RESAMPLES) -> str:
    """README.md for the folder of the fused model; same run, same card. Raises what `read_run` and `grid` raise."""
    record = read_run(run)
    facts = record.run
    pivot = next((model for model in facts.models.values() if model.role == "pivot"), None)
    return _template().render(
        front=yaml.safe_dump(front_matter(record), sort_keys=False, allow_unicode=True),
        run=facts,
        pivot=pivot,
        sources=[model for model in facts.models.values() if model.role == "source"],
        merged=facts.result == "pairwise",
        licence=common_licence(facts.models),
        suites=[_suite(record, suite, resamples) for suite in record.results],
        conclusion=CONCLUSION,
        config=record.config,
        fence=_fence(record.config or ""),
        measured=_measured(record),
    )


def front_matter(record: Record) -> dict[str, Any]:
    """What the hub reads. Base models are those with a hub id; a licence stands there only if all models share it."""
    models, merged = record.run.models, record.run.result == "pairwise"
    base = [model.id for model in models.values() if re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*", model.id)]
    front: dict[str, Any] = {"library_name": "transformers", "pipeline_tag": "text-generation"}
    if licence := common_licence(models):
        front["license"] = licence.lower()
    if base:
        front |= {"base_model": base, "base_model_relation": "merge" if merged else "finetune"}
    return front | {"tags": ["model-fusion", "knowledge-distillation", *(["merge"] if merged else [])]}


def common_licence(models: Mapping[str, ModelFacts]) -> str | None:
    """The licence of all models, or None where one states none or two differ."""
    stated = {model.licence for model in models.values()}
    return stated.pop() if len(stated) == 1 else None


def _suite(record: Record, name: str, resamples: int) -> dict[str, Any]:
    baseline = record.baseline(name)
    found, missing = judge(record, name, resamples=resamples)
    table = markdown(record.results[name], None if baseline is None else baseline.model, resamples=resamples)
    return {"verdict": found, "missing": missing, "table": table}


def _measured(record: Record) -> str:
    """The suites and their domains."""
    domains = {s: sorted({item.domain for r in results for item in r.items}) for s, results in record.results.items()}
    return "; ".join(f"{suite} ({', '.join(found)})" for suite, found in domains.items()) or "nothing yet"


def _fence(text: str) -> str:
    """A fence longer than any run of backticks in the text, which could close it."""
    return "`" * max(3, 1 + max(map(len, re.findall("`+", text)), default=0))


def _code(text: str) -> str:
    return f"`{' '.join(text.split()).replace('`', '')}`"


def _counts(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in values.items()) or "none"


@cache
def _template() -> Any:
    loader = FileSystemLoader(Path(__file__).parent)
    environment = Environment(
        loader=loader, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, autoescape=False
    )
    environment.filters |= {"plain": plain, "code": _code, "counts": _counts}
    return environment.get_template("card.md.jinja")
