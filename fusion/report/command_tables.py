"""Tables of the command line: what a run is made of, and how its tokenizers meet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from math import isnan, nan
from pathlib import Path
from statistics import fmean
from typing import Any

from rich.console import RenderableType
from rich.table import Table

from fusion.alignment import AlignmentAudit, MatchRate
from fusion.analysis import Dissected, Overview
from fusion.analysis.concepts import CUT, SHARE
from fusion.analysis.overlays import spelling
from fusion.analysis.rescaling import Rescaling
from fusion.analysis.token_classes import TokenClass, Voice
from fusion.extras.draft import Acceptance
from fusion.responses import ResponseCounts


def overview_table(models: Sequence[Overview]) -> Table:
    """One line a model."""
    table = Table(
        "model", "type", "vocabulary", "prompts", "same tokens", "mapped tokens", "cache",
        title="Models", caption="same, mapped: share of a source's vocabulary that the pivot has, byte for byte or by the map",
    )  # fmt: skip
    for m in models:
        shares = ["" if share is None else f"{share:.1%}" for share in (m.exact, m.mapped)]
        table.add_row(m.name, m.model_type, f"{m.vocabulary:,}", m.template, *shares, m.cached)
    return table


def facts_table(folder: Path, facts: Mapping[str, str]) -> Table:
    """One line a fact."""
    table = Table("", "", title=str(folder), show_header=False)
    for name, value in facts.items():
        table.add_row(name, value)
    return table


def responses_table(counts: Sequence[ResponseCounts]) -> Table:
    """One line for each source and domain."""
    table = Table(
        "source", "domain", "prompts", "answers", "pass", "learned from",
        title="Responses", caption="answers: neither empty nor cut off; pass: the check of their data set",
    )  # fmt: skip
    for c in counts:
        share = f"{c.passed:,} ({c.passed / c.answers:.0%})" if c.answers else "0"
        table.add_row(c.source, c.domain, f"{c.prompts:,}", f"{c.answers:,}", share, f"{c.chosen:,}")
    return table


def audit_tables(name: str, audit: AlignmentAudit) -> list[RenderableType]:
    """Match rates by domain and by class of text, and the tokens that never match."""
    table = Table("", "rows", "matched", title=f"{name}: positions of the pivot that it can teach")
    for title, shares in (("by domain", audit.by_domain), ("by the text that follows", audit.by_class)):
        table.add_section()
        table.add_row(f"[bold]{title}[/]", "", "")
        for label, share in shares.items():
            table.add_row(label, f"{share.rows:,}", _rate(share))
    table.add_section()
    table.add_row("all", f"{audit.total.rows:,}", _rate(audit.total))
    never = ", ".join(f"{text!r} ({count})" for text, count in audit.unmatched_tokens[:12])
    return [table, f"never matched: {never or 'nothing'}\n"]


def rescaling_table(name: str, entries: Sequence[Rescaling]) -> Table:
    """One line for each domain and bin of the pivot's probability of the true token."""
    table = Table(
        title=f"{name}: gradient at the true token, as a factor of cross-entropy's",
        caption="near 1: no more than the text says; below 0: the true token is pulled down",
    )
    table.add_column("domain")
    for column in ("pivot's p", "rows", "10%", "median", "90%", "below 0"):
        table.add_column(column, justify="right")
    for e in entries:
        cells = (f"{e.low:g} to {e.high:g}", f"{e.rows:,}", f"{e.tenth:.2f}", f"{e.median:.2f}", f"{e.ninetieth:.2f}")
        table.add_row(e.domain, *cells, f"{e.negative:.1%}")
    return table


def acceptance_table(name: str, found: Sequence[Acceptance]) -> Table:
    """One line for each temperature."""
    depth = len(found[0].stands)
    table = Table(
        title=f"{name}: guesses that stand", caption="tokens a check: the model's own included, at most depth + 1"
    )
    for column in ("", "checks", "tokens a check", *(f"{n} stand" for n in range(1, depth + 1))):
        table.add_column(column, justify="right")
    for one in found:
        kind = f"sampled, temperature {one.temperature:g}" if one.temperature else "greedy"
        table.add_row(kind, f"{one.checks:,}", f"{one.length:.2f}", *(f"{share:.0%}" for share in one.stands))
    return table


SHOWN = 20
"""Tokens in the table of classes, the most frequent."""


def classes_table(name: str, entries: Sequence[TokenClass], tokenizer: Any) -> Table:
    """One line for each of the most frequent tokens, and the mean over all."""
    models = list(entries[0].voices) if entries else ["source"]
    table = Table(
        title=f"{name}: what is expected where a token follows, over {len(entries):,} tokens",
        caption="entropies in nats, of the mean distribution and of its part without the token: alike for all tokens, a source "
        "was smoothed; near 0, it is saturated. KL and order (Spearman): against the source's, over the tokens it names",
    )
    for column in ("token", "rows", *(f"{who} {what}" for who in models for what in ("entropy", "rest"))):
        table.add_column(column, justify="left" if column == "token" else "right")
    for column in (f"{who} {what}" for who in models[1:] for what in ("KL", "order")):
        table.add_column(column, justify="right")
    spell = spelling(tokenizer)
    for entry in entries[:SHOWN]:
        table.add_row(repr(spell(entry.token)), f"{entry.count:,}", *_voices(entry.voices))
    if entries:
        table.add_section()
        means = {who: _mean_voice([entry.voices[who] for entry in entries]) for who in models}
        table.add_row("mean", "", *_voices(means))
    return table


def _voices(voices: Mapping[str, Voice]) -> list[str]:
    """Entropies of every model, then how each but the first compares with the first."""
    entropies = [f"{value:.2f}" for voice in voices.values() for value in (voice.entropy, voice.rest)]
    others = list(voices.values())[1:]
    return [
        *entropies,
        *(cell for v in others for cell in (f"{v.divergence:.3f}", "" if isnan(v.order) else f"{v.order:.2f}")),
    ]


def _mean_voice(voices: Sequence[Voice]) -> Voice:
    """Each number's mean over those that are known."""
    known = [[value for voice in voices if not isnan(value := getattr(voice, f.name))] for f in fields(Voice)]
    return Voice(*(fmean(values) if values else nan for values in known))


def concepts_table(models: Mapping[str, Dissected], units: str) -> Table:
    """One line a concept: how often it holds, and how many units of each model stand for it."""
    one = next(iter(models.values()))
    hidden = [found.concept for found in one.found if found.bound <= CUT]
    table = Table(
        title=f"Units ({units}) whose {SHARE:.1%} largest values are where a concept holds: intersection over union > {CUT}",
        caption=f"over {one.places:,} places; bound: the greatest agreement that is possible at this prevalence"
        + (f". Too rare or too common here to be found by any unit: {', '.join(hidden)}" if hidden else ""),
    )
    table.add_column("concept")
    for column in ("holds", "bound", *(f"{who} {what}" for who in models for what in ("units", "best"))):
        table.add_column(column, justify="right")
    for lines in zip(*(model.found for model in models.values()), strict=True):
        cells = [cell for found in lines for cell in (str(found.detectors), f"{found.best:.3f}")]
        table.add_row(lines[0].concept, f"{lines[0].prevalence:.2%}", f"{lines[0].bound:.3f}", *cells)
    table.add_section()
    totals = [
        (str(sum(f.detectors for f in m.found)), f"{sum(f.detectors > 0 for f in m.found)} concepts")
        for m in models.values()
    ]
    table.add_row(
        "all units: " + ", ".join(f"{m.units:,}" for m in models.values()), "", "", *(c for t in totals for c in t)
    )
    return table


def _rate(share: MatchRate) -> str:
    return f"{share.rate:.1%}" if share.rows else ""
