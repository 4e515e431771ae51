"""The model card: README.md of the fused model, with the front matter the Hugging Face hub reads."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import EvalResult
from huggingface_hub.repocard_data import eval_results_to_model_index
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from fusion.report.facts import ModelFacts
from fusion.report.gains import AllGains, Gains, all_gains, bounded
from fusion.report.record import Record, read_run
from fusion.report.table import markdown, plain
from fusion.report.units import percent
from fusion.report.verdict import Outcome, judge
from fusion_eval.results import MEAN
from fusion_eval.statistics.bootstrap import RESAMPLES
from fusion_eval.statistics.comparison import summarise
from fusion_eval.statistics.metrics import METRICS

CONCLUSION: dict[Outcome, str] = {
    "better": "On these measures, fusing was worth it.",
    "no different": "So on this evidence plain fine-tuning, which is simpler, would have done as well.",
    "worse": "So on this evidence plain fine-tuning, which is simpler, is the better choice.",
    "mixed": "Which of the two is the better choice depends on the measure that matters to you.",
}
"""What follows from the comparison with plain fine-tuning."""
_HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")


def model_card(run: Path, *, resamples: int = RESAMPLES) -> str:
    """README.md for the folder of the fused model; same run, same card. Raises what `read_run` and `grid` raise."""
    record = read_run(run)
    facts, compared = record.run, all_gains(record, resamples=resamples)
    pivot = next((model for model in facts.models.values() if model.role == "pivot"), None)
    return _template().render(
        front=yaml.safe_dump(front_matter(record), sort_keys=False, allow_unicode=True),
        run=facts,
        pivot=pivot,
        sources=[model for model in facts.models.values() if model.role == "source"],
        merged=facts.result == "pairwise",
        licence=common_licence(facts.models),
        suites=[_suite(record, suite, compared, resamples) for suite in record.results],
        conclusion=CONCLUSION,
        config=record.config,
        fence=_fence(record.config or ""),
        measured=_measured(record),
    )


def front_matter(record: Record) -> dict[str, Any]:
    """What the hub reads. Base models and data sets are those of the hub; a licence stands there only if all share it."""
    models, merged = record.run.models, record.run.result == "pairwise"
    base = [model.id for model in models.values() if model.hub and _HUB_ID.fullmatch(model.id)]
    front: dict[str, Any] = {"library_name": "transformers", "pipeline_tag": "text-generation"}
    if licence := common_licence(models):
        front["license"] = licence.lower()
    if base:
        front |= {"base_model": base, "base_model_relation": "merge" if merged else "finetune"}
    if datasets := [id for id in (record.run.data.hub if record.run.data else []) if _HUB_ID.fullmatch(id)]:
        front["datasets"] = datasets
    front["tags"] = ["model-fusion", "knowledge-distillation", *(["merge"] if merged else [])]
    if results := eval_results(record):
        front["model-index"] = eval_results_to_model_index(" ".join(record.run.name.split()), results)
    return front


def eval_results(record: Record) -> list[EvalResult]:
    """What the fused model scored, in the hub's terms: each metric of each domain and of their mean, as the tables show it."""
    return [
        EvalResult(
            task_type="text-generation",
            dataset_type=suite,
            dataset_name=f"{suite}, {domain}",
            dataset_config=domain,
            metric_type=metric,
            metric_name=METRICS[metric].label,
            metric_value=float(METRICS[metric].show(interval.value)),
        )
        for suite in record.results
        if (result := record.result(suite)) is not None
        for domain, metrics in summarise(result, resamples=1).items()
        for metric, interval in metrics.items()
    ]


def common_licence(models: Mapping[str, ModelFacts]) -> str | None:
    """The licence of all models, or None where one states none or two differ."""
    stated = {model.licence for model in models.values()}
    return stated.pop() if len(stated) == 1 else None


def _suite(record: Record, name: str, compared: AllGains, resamples: int) -> dict[str, Any]:
    baseline = record.baseline(name)
    found, missing = judge(record, name, resamples=resamples)
    table = markdown(record.results[name], None if baseline is None else baseline.model, resamples=resamples)
    lines = [
        line for (suite, _), one in compared.items() if suite == name for line in _gain_lines(one, record.run.baseline)
    ]
    return {"verdict": found, "missing": missing, "table": table, "gains": lines}


def _gain_lines(numbers: Gains, baseline: str | None) -> list[str]:
    """How much of the gap was closed on the mean, and where the model got worse than what it came from.

    Where it got worse than plain fine-tuning is in the verdict already.
    """
    label, lines = METRICS[numbers.metric].label, []
    mean = next((row.closed for row in numbers.rows if row.domain == MEAN), None)
    if bounded(mean):
        share = f"{percent(mean.value)} ({percent(mean.low)} to {percent(mean.high)})"
        lines.append(
            f"{label}: {share} of the gap between {baseline or 'the pivot'} and the best source of each domain is closed."
        )
    worse = {other: domains for other, domains in numbers.regressions.items() if other != baseline}
    return lines + [f"{label}: {numbers.model} is worse than {name} in {', '.join(d)}." for name, d in worse.items()]


def _measured(record: Record) -> str:
    """The suites and their domains."""
    domains = {
        s: sorted({sample.domain for r in results for sample in r.samples}) for s, results in record.results.items()
    }
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
    loader = FileSystemLoader(Path(__file__).parent / "templates")
    environment = Environment(
        loader=loader, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, autoescape=False
    )
    environment.filters |= {"plain": plain, "code": _code, "counts": _counts}
    return environment.get_template("card.md.jinja")
