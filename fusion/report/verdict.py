"""Sentences that follow from the numbers: is the fused model better than plain fine-tuning, and does a source help?"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal

from fusion.report.run_contents import RunContents
from fusion.runtime.run_file import Helping, RunFile
from fusion_eval.results import MEAN, Result
from fusion_eval.statistics.bootstrap import RESAMPLES
from fusion_eval.statistics.comparison import compare, summarise
from fusion_eval.statistics.intervals import Interval
from fusion_eval.statistics.metrics import METRICS

EQUAL = 0.01
"""Nats per byte within which source and pivot count as equal: a factor of e in the likelihood of 100 bytes."""

ComparisonLabel = Literal["better", "no different", "worse", "mixed"]


@dataclass(frozen=True)
class Verdict:
    """How one model compares with another on one suite."""

    outcome: ComparisonLabel
    """Over all metrics, each averaged over domains; `mixed` where one is better and another worse."""
    headline: str
    details: list[str]
    """One sentence for each metric, then one for each domain that got worse."""
    below_pivot: list[str] = field(default_factory=list)
    """Domains in which the model is shown to be worse than the untouched pivot, in any metric."""
    caution: str = ""
    """What else than fusing may have made the difference; empty where both learned the same texts."""


def verdict(result: Result, baseline: Result, pivot: Result | None = None, *, resamples: int = RESAMPLES) -> Verdict:
    """Compare `result` with `baseline`; a difference counts where its paired 95% interval excludes 0.

    Where the untouched `pivot` is given, the domains in which the result fell below it are part of the headline: a model
    that beats plain fine-tuning may still have lost what its pivot knew.
    Raises ValueError when the models were measured on different items, or result and baseline share no metric.
    """
    differences = compare(result, baseline, resamples=resamples)
    if not differences:
        raise ValueError(f"{result.model} and {baseline.model} have no metric in common; evaluate both the same way.")
    outcome = _together([_outcome(metric, found) for metric, found in differences[MEAN].items()])
    domains = len(differences) - 1
    over = "in the one domain" if domains == 1 else f"on the mean over {domains} domains"
    headline = f"{result.model} is {comparison_phrase(outcome)} {baseline.model} {over} of {result.suite}"
    from_pivot = {} if pivot is None else compare(result, pivot, resamples=resamples)
    below = _worse_domains(from_pivot)
    if pivot is not None and below:
        joint = "but" if outcome == "better" else "and"
        headline += f", {joint} worse than the untouched {pivot.model} in {_named(below)}"
    scores, baseline_scores = (summarise(one, resamples=resamples)[MEAN] for one in (result, baseline))
    details = [
        f"{METRICS[metric].label}{_where(metric, differences)}: {METRICS[metric].show(scores[metric].value)} against "
        f"{METRICS[metric].show(baseline_scores[metric].value)}; {_difference(metric, found)}."
        for metric, found in differences[MEAN].items()
    ]
    details += _regressions(differences, baseline.model)
    if pivot is not None:
        details += _regressions(from_pivot, f"the untouched {pivot.model}")
    return Verdict(outcome, f"{headline}.", details, below)


def suite_verdict(contents: RunContents, suite: str, *, resamples: int = RESAMPLES) -> tuple[Verdict | None, str]:
    """The fused model of a run against its baseline on one suite; or None, and a sentence on what is missing for it."""
    for role, name in [("result", contents.run.result), ("baseline", contents.run.baseline)]:
        if name is None:
            return None, f"run.json names no {role} among the evaluated models."
        if all(result.model != name for result in contents.results[suite]):
            return None, f"{name}, which run.json names as {role}, was not evaluated on it."
    result, baseline = contents.result(suite), contents.baseline(suite)
    if result is None or baseline is None or result is baseline:
        return None, "the result and the baseline are the same model."
    pivot = next((one for one in contents.results_by_role(suite, "pivot") if one not in (result, baseline)), None)
    found = verdict(result, baseline, pivot, resamples=resamples)
    return replace(found, caution=_caution(contents.run, result.model, baseline.model)), ""


def _caution(run: RunFile, result: str, baseline: str) -> str:
    """Where the two learned different texts: how many each, and what the comparison therefore does not tell."""
    answers, own = sum(run.chosen_responses.values()), sum(run.data.fine_tuned.values()) if run.data else 0
    if not answers or not own:  # without responses of the data, plain fine-tuning learns the sources' answers, too
        return ""
    texts = f"{result} learned {answers:,} answers that sources wrote, {baseline} the {own:,} responses "
    parts = "that the data have: part of the difference, and often most of it, are these answers."
    if not run.learns_predictions:
        return f"{texts}{parts}"
    return f"{texts}{parts} What the sources' predictions add, a run with cross_entropy for its only objective shows."


def comparison_phrase(outcome: ComparisonLabel) -> str:
    """The outcome as it stands before the name of the other model."""
    return {
        "better": "better than",
        "no different": "not shown to differ from",
        "worse": "worse than",
        "mixed": "better in one metric and worse in another than",
    }[outcome]


def mark(metric: str, difference: Interval) -> str:
    """★ where the difference shows a better model, ▼ where it shows a worse one, nothing where it shows none."""
    return {"better": "★", "worse": "▼"}.get(_outcome(metric, difference), "")


def helping_verdict(row: Helping) -> str:
    """What the source knows of this domain, against the pivot, by the log-probability both give to the true text."""
    if row.gold_source is None or row.gold_pivot is None:
        return "not measured"
    difference = row.gold_source - row.gold_pivot
    if abs(difference) <= EQUAL:
        return "about equal"
    return "knows more" if difference > 0 else "knows less"


def _outcome(metric: str, difference: Interval) -> ComparisonLabel:
    if not difference.excludes(0):
        return "no different"
    return "better" if METRICS[metric].better(difference.value) else "worse"


def _together(outcomes: list[ComparisonLabel]) -> ComparisonLabel:
    seen = set(outcomes) - {"no different"}
    if not seen:
        return "no different"
    return "mixed" if len(seen) > 1 else seen.pop()


def _where(metric: str, differences: dict[str, dict[str, Interval]]) -> str:
    """The domains that a mean is over, where a metric was not measured in all of them."""
    having = [domain for domain, found in differences.items() if domain != MEAN and metric in found]
    return "" if len(having) == len(differences) - 1 else f" ({', '.join(having)})"


def _difference(metric: str, found: Interval) -> str:
    value, low, high = map(METRICS[metric].show_signed, (found.value, found.low, found.high))
    return f"difference {value}, 95% interval {low} to {high}, n = {found.n}: {_outcome(metric, found)}"


def _worse_domains(differences: dict[str, dict[str, Interval]]) -> list[str]:
    return [
        domain
        for domain, metrics in differences.items()
        if domain != MEAN and any(_outcome(metric, found) == "worse" for metric, found in metrics.items())
    ]


def _named(domains: list[str]) -> str:
    """Domains with the word before them: a source may have the same name."""
    return f"domain {domains[0]}" if len(domains) == 1 else f"domains {', '.join(domains)}"


def _regressions(differences: dict[str, dict[str, Interval]], baseline: str) -> list[str]:
    return [
        f"In domain {domain} it got worse than {baseline} ({METRICS[metric].label}: {_difference(metric, found)})."
        for domain, metrics in differences.items()
        for metric, found in metrics.items()
        if domain != MEAN and _outcome(metric, found) == "worse"
    ]
