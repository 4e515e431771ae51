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

from fusion.core.markdown import code, fence, plain, without_home
from fusion.report.differences import MetricDifferences, SuiteDifferences, all_differences, bounded
from fusion.report.model_roles import evaluated_models, explanations
from fusion.report.rounds.scores import kept_sentence
from fusion.report.run_contents import RunContents, read_run
from fusion.report.score_table import markdown
from fusion.report.units import grouped, percent
from fusion.report.verdict import ComparisonLabel, suite_verdict
from fusion.runtime.card_metadata import License, base_model_metadata, common_license, license_metadata
from fusion.runtime.run_file import ModelFacts, RunFile
from fusion_eval.results import MEAN
from fusion_eval.statistics.bootstrap import RESAMPLES
from fusion_eval.statistics.comparison import summarise
from fusion_eval.statistics.metrics import METRICS

CONCLUSION: dict[ComparisonLabel, str] = {
    "better": "On these measures, fusing was worth it.",
    "no different": "So on this evidence plain fine-tuning, which is simpler, would have done as well.",
    "worse": "So on this evidence plain fine-tuning, which is simpler, is the better choice.",
    "mixed": "Which of the two is the better choice depends on the measure that matters to you.",
}
"""What follows from the comparison with plain fine-tuning."""
_HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")


def model_card(run: Path, *, resamples: int = RESAMPLES) -> str:
    """README.md for the folder of the fused model; same run, same card. Raises what `read_run` and `score_table` raise."""
    contents = read_run(run)
    facts, compared = contents.run, all_differences(contents, resamples=resamples)
    pivot = next((model for model in facts.models.values() if model.role == "pivot"), None)
    return _template().render(
        front=yaml.safe_dump(front_matter(contents), sort_keys=False, allow_unicode=True),
        run=facts,
        pivot=pivot,
        sources=[model for model in facts.models.values() if model.role == "source"],
        merged=_is_merged(facts),
        texts="answers that sources wrote" if facts.chosen_responses else "text",
        rounds=facts.rounds,
        kept_sentence=None if facts.rounds is None else kept_sentence(facts.rounds),
        license=_license(facts.models),
        suites=[_suite(contents, suite, compared, resamples) for suite in contents.results],
        conclusion=CONCLUSION,
        explanations=explanations(evaluated_models(contents), facts),
        config=None if contents.config is None else without_home(contents.config),
        fence=fence(contents.config or ""),
        measured=_measured(contents),
    )


def front_matter(contents: RunContents) -> dict[str, Any]:
    """What the hub reads. Base models and data sets are those of the hub; a license stands there only if all share it."""
    models, merged = contents.run.models, _is_merged(contents.run)
    base = [model.id for model in models.values() if model.hub and _HUB_ID.fullmatch(model.id)]
    front: dict[str, Any] = {"library_name": "transformers", "pipeline_tag": "text-generation"}
    front |= license_metadata(_license(models)) | base_model_metadata(base, "merge" if merged else "finetune")
    if datasets := [
        id for id in (contents.run.data.hub_datasets if contents.run.data else []) if _HUB_ID.fullmatch(id)
    ]:
        front["datasets"] = datasets
    front["tags"] = ["model-fusion", "knowledge-distillation", *(["merge"] if merged else [])]
    if results := eval_results(contents):
        front["model-index"] = eval_results_to_model_index(" ".join(contents.run.name.split()), results)
    return front


def _is_merged(run: RunFile) -> bool:
    """Whether the fused model is a merge, or went on from one in rounds."""
    return run.result == "pairwise" or (run.rounds is not None and run.rounds.start == "pairwise")


def eval_results(contents: RunContents) -> list[EvalResult]:
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
        for suite in contents.results
        if (result := contents.result(suite)) is not None
        for domain, metrics in summarise(result, resamples=1).items()
        for metric, interval in metrics.items()
    ]


def _license(models: Mapping[str, ModelFacts]) -> License | None:
    """The license of all models, or None where one states none or two differ."""
    return common_license([License(model.license.lower()) if model.license else None for model in models.values()])


def _shown_id(model: ModelFacts) -> str:
    """The hub id of a model, or the name of its folder: where that lies is of no use to readers, and may tell who they read."""
    return model.id if model.hub else Path(model.id).name or model.id


def _suite(contents: RunContents, name: str, compared: SuiteDifferences, resamples: int) -> dict[str, Any]:
    baseline = contents.baseline(name)
    found, missing = suite_verdict(contents, name, resamples=resamples)
    table = markdown(contents.results[name], None if baseline is None else baseline.model, resamples=resamples)
    lines = [
        line
        for (suite, _), one in compared.items()
        if suite == name
        for line in _difference_lines(one, contents.run.baseline, judged=found is not None)
    ]
    return {"verdict": found, "missing": missing, "table": table, "differences": lines}


def _difference_lines(numbers: MetricDifferences, baseline: str | None, *, judged: bool) -> list[str]:
    """How much of the gap was closed on the mean, and, where no verdict says it, where the model got worse than others."""
    label, lines = METRICS[numbers.metric].label, []
    mean = next((row.gap_closed for row in numbers.rows if row.domain == MEAN), None)
    if bounded(mean):
        share = f"{percent(mean.value)} ({percent(mean.low)} to {percent(mean.high)})"
        lines.append(
            f"{label}: {share} of the gap between {baseline or 'the pivot'} and the best source of each domain is closed."
        )
    worse = {} if judged else numbers.regressions
    return lines + [f"{label}: {numbers.model} is worse than {name} in {', '.join(d)}." for name, d in worse.items()]


def _measured(contents: RunContents) -> str:
    """The suites and their domains."""
    domains = {
        s: sorted({sample.domain for r in results for sample in r.samples}) for s, results in contents.results.items()
    }
    return "; ".join(f"{suite} ({', '.join(found)})" for suite, found in domains.items()) or "nothing yet"


def _counts(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in values.items()) or "none"


@cache
def _template() -> Any:
    loader = FileSystemLoader(Path(__file__).parent / "templates")
    environment = Environment(
        loader=loader, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, autoescape=False
    )
    environment.filters |= {"plain": plain, "code": code, "counts": _counts, "shown_id": _shown_id, "grouped": grouped}
    return environment.get_template("model_card.md.jinja")
