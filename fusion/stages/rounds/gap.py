"""What is left to gain in each domain: how much more often the best source's answers pass than the pivot's.

rounds/validation/N/pass_rates.json    by domain, the share of the pivot's answers to validation prompts that pass after round N
"""

from __future__ import annotations

import json
import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

from fusion.core.text_files import read_object
from fusion.responses import PASSES, read_eligibility
from fusion.runtime.artifacts import write_json
from fusion.runtime.run_file import RoundScore
from fusion.stages.context import CHOSEN, RunContext

REDO = "run `fusion rounds` again"


def pass_gaps(run: RunContext, number: int) -> dict[str, float] | None:
    """Return the gap of each domain before round `number`, from -1 to 1; None where no answer of the pivot is known yet.

    A domain in which either is not known counts as the mean of the others.
    """
    best, own = best_source_rates(run), pivot_rates(run, number)
    gaps = {domain: best[domain] - own[domain] for domain in best if domain in own}
    if not gaps:
        return None
    domains = {example.domain for example in run.original_examples}
    return {domain: gaps.get(domain, statistics.fmean(gaps.values())) for domain in domains}


def best_source_rates(run: RunContext) -> dict[str, float]:
    """Return, by domain, the share of the best source's answers to training prompts that passed their check.

    Prompts of whose answers no check can say anything do not count.
    """
    shares = read_eligibility(run.config.folder / CHOSEN / PASSES, run.responding.sources)
    by_domain: dict[str, list[tuple[float, ...]]] = defaultdict(list)
    judged = zip(run.original_examples, run.responding.judged, strict=True)
    for example in {example.prompt_id: example for example, counts in judged if counts}.values():
        by_domain[example.domain].append(shares[example.prompt_id])
    return {domain: max(map(statistics.fmean, zip(*of, strict=True))) for domain, of in by_domain.items()}


def pivot_rates(run: RunContext, number: int) -> dict[str, float]:
    """Return, by domain, the share of the pivot's answers that passed before round `number`.

    Those to validation prompts after the round before; in domains that have none, those to its training prompts, which the
    first round has not yet.
    """
    known: dict[str, float] = {}
    if number > 1:
        known |= _written_rates(run.config.folder / "rounds" / str(number - 1) / "texts" / "texts.jsonl")
    if run.validation_examples:
        known |= read_object(_pass_rates_file(run, number - 1), REDO)
    return known


def keep_pass_rates(run: RunContext, number: int, scores: Sequence[RoundScore]) -> None:
    """Write down how the pivot's answers to validation prompts did after round `number`."""
    rates: Mapping[str, float] = {score.domain: score.pass_at_1 for score in scores}
    write_json(_pass_rates_file(run, number), dict(rates))


def _pass_rates_file(run: RunContext, number: int) -> Path:
    return run.config.folder / "rounds" / "validation" / str(number) / "pass_rates.json"


def _written_rates(file: Path) -> dict[str, float]:
    passed: dict[str, list[bool]] = defaultdict(list)
    for line in file.read_text().split("\n"):
        if line:
            text = json.loads(line)
            if text["passed"] is not None:
                passed[text["example"]["domain"]].append(text["passed"])
    return {domain: statistics.fmean(of) for domain, of in passed.items()}
