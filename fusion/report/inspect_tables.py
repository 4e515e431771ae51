"""Tables of `fusion inspect`: models, alignment, and what each source teaches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from math import isnan, nan
from statistics import fmean
from typing import Any

from rich.console import RenderableType

from fusion.alignment import AlignmentAudit, MatchRate
from fusion.analysis import Dissection, Overview
from fusion.analysis.concepts import ACTIVE_SHARE, IOU_THRESHOLD
from fusion.analysis.graph_distances import EXACT, UPPER, GraphDistances
from fusion.analysis.overlays import token_display
from fusion.analysis.rescaling import Rescaling
from fusion.analysis.token_classes import ClassPrediction, TokenClass
from fusion.runtime.console_table import ConsoleTable


def overview_table(models: Sequence[Overview]) -> ConsoleTable:
    """Return a table of the models of a run, a row for each: its type, vocabulary, prompts, tokens it shares, and cache."""
    table = ConsoleTable(
        "model", "type", "vocabulary", "prompts", "same tokens", "mapped tokens", "cache",
        title="Models", caption="same, mapped: share of a source's vocabulary that the pivot has, byte for byte or by the map",
    )  # fmt: skip
    for m in models:
        shares = ["" if share is None else f"{share:.1%}" for share in (m.exact, m.mapped)]
        table.add_row(m.name, m.model_type, f"{m.vocabulary:,}", m.template, *shares, m.cached)
    return table


def audit_tables(name: str, audit: AlignmentAudit) -> list[RenderableType]:
    """Match rates by domain and by class of text, and the tokens that never match."""
    table = ConsoleTable("", "rows", "matched", title=f"{name}: positions of the pivot that it can teach")
    for title, shares in (("by domain", audit.by_domain), ("by the text that follows", audit.by_class)):
        table.add_section()
        table.add_row(f"[bold]{title}[/]", "", "")
        for label, share in shares.items():
            table.add_row(label, f"{share.rows:,}", _rate(share))
    table.add_section()
    table.add_row("all", f"{audit.total.rows:,}", _rate(audit.total))
    never = ", ".join(f"{text!r} ({count})" for text, count in audit.unmatched_tokens[:12])
    return [table, f"never matched: {never or 'nothing'}\n"]


def rescaling_table(name: str, entries: Sequence[Rescaling]) -> ConsoleTable:
    """One line for each domain and bin of the pivot's probability of the true token."""
    table = ConsoleTable(
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


def graph_tables(name: str, distances: GraphDistances) -> list[RenderableType]:
    """Return a table of how far a source's graphs lie from the pivot's, a row for each way to compute it, and a sentence."""
    known, count = distances.values[EXACT], len(distances.values[EXACT])
    if not count:
        return [f"{name}: no example has rows of the pivot and of this source\n"]
    table = ConsoleTable(
        title=f"{name}: Gromov-Wasserstein distance of graphs of {distances.nodes} nodes, {count} examples",
        caption=f"gap: distance from {EXACT}, in % of it",
    )
    for column in ("", "median", "largest", "gap, median", "gap, worst", "seconds"):
        table.add_column(column, justify="right" if column else "left")
    for way, values in distances.values.items():
        gaps = (values - known)[known > 0] / known[known > 0] * 100
        gap = [f"{gaps.median():+.1f}%", f"{gaps[gaps.abs().argmax()]:+.1f}%"] if len(gaps) else ["", ""]
        table.add_row(way, f"{values.median():.3g}", f"{values.max():.3g}", *gap, f"{distances.seconds[way]:.2g}")
    return [table, f"{_graph_sentence(distances)}\n"]


def _graph_sentence(distances: GraphDistances) -> str:
    known, upper = distances.values[EXACT], distances.values[UPPER]
    best = int((upper <= known * (1 + 1e-6) + 1e-12).sum())
    more = f"POT found no better matching than the sorted one in {best} of {len(known)} examples"
    if best == len(known):
        return f"{more}: `solver: pot` would change nothing here."
    saved = float((1 - known / upper.clamp(min=1e-300)).max())
    return (
        f"{more}; elsewhere `solver: pot` finds a distance up to {saved:.0%} smaller. The true one may be smaller still, down "
        "to the lower bound."
    )


MAX_TOKENS = 20
"""Tokens in the table of classes, the most frequent."""


def classes_table(name: str, entries: Sequence[TokenClass], tokenizer: Any) -> ConsoleTable:
    """Return a table of mean predictions before the most frequent tokens, a row for each, and one for the mean over all."""
    models = list(entries[0].predictions) if entries else ["source"]
    table = ConsoleTable(
        title=f"{name}: what is expected where a token follows, over {len(entries):,} tokens",
        caption="entropies in nats, of the mean distribution and of its part without the token: alike for all tokens, a source "
        "was smoothed; near 0, it is saturated. KL and order (Spearman): against the source's, over the tokens it names",
    )
    for column in ("token", "rows", *(f"{who} {what}" for who in models for what in ("entropy", "rest"))):
        table.add_column(column, justify="left" if column == "token" else "right")
    for column in (f"{who} {what}" for who in models[1:] for what in ("KL", "order")):
        table.add_column(column, justify="right")
    spell = token_display(tokenizer)
    for entry in entries[:MAX_TOKENS]:
        table.add_row(repr(spell(entry.token)), f"{entry.count:,}", *_prediction_cells(entry.predictions))
    if entries:
        table.add_section()
        means = {who: _mean_prediction([entry.predictions[who] for entry in entries]) for who in models}
        table.add_row("mean", "", *_prediction_cells(means))
    return table


def _prediction_cells(predictions: Mapping[str, ClassPrediction]) -> list[str]:
    """Entropies of every model, then how each but the first compares with the first."""
    entropies = [
        f"{value:.2f}" for prediction in predictions.values() for value in (prediction.entropy, prediction.rest_entropy)
    ]
    others = list(predictions.values())[1:]
    return [
        *entropies,
        *(
            cell
            for v in others
            for cell in (f"{v.divergence:.3f}", "" if isnan(v.rank_correlation) else f"{v.rank_correlation:.2f}")
        ),
    ]


def _mean_prediction(predictions: Sequence[ClassPrediction]) -> ClassPrediction:
    """Return the mean of each number over the tokens for which it is known."""
    known = [
        [value for prediction in predictions if not isnan(value := getattr(prediction, f.name))]
        for f in fields(ClassPrediction)
    ]
    return ClassPrediction(*(fmean(values) if values else nan for values in known))


def concepts_table(models: Mapping[str, Dissection], units: str) -> ConsoleTable:
    """Return a table with a row for each concept: how often it holds, and how many units of each model detect it."""
    one = next(iter(models.values()))
    hidden = [found.concept for found in one.concepts if found.max_iou <= IOU_THRESHOLD]
    table = ConsoleTable(
        title=f"Units ({units}) whose {ACTIVE_SHARE:.1%} largest values are where a concept holds: "
        f"intersection over union > {IOU_THRESHOLD}",
        caption=f"over {one.places:,} places; bound: the greatest agreement that is possible at this prevalence"
        + (f". Too rare or too common here to be found by any unit: {', '.join(hidden)}" if hidden else ""),
    )
    table.add_column("concept")
    for column in ("holds", "bound", *(f"{who} {what}" for who in models for what in ("units", "best"))):
        table.add_column(column, justify="right")
    for lines in zip(*(model.concepts for model in models.values()), strict=True):
        cells = [cell for found in lines for cell in (str(found.detecting_units), f"{found.best_iou:.3f}")]
        table.add_row(lines[0].concept, f"{lines[0].prevalence:.2%}", f"{lines[0].max_iou:.3f}", *cells)
    table.add_section()
    totals = [
        (str(sum(f.detecting_units for f in m.concepts)), f"{sum(f.detecting_units > 0 for f in m.concepts)} concepts")
        for m in models.values()
    ]
    table.add_row(
        "all units: " + ", ".join(f"{m.units:,}" for m in models.values()), "", "", *(c for t in totals for c in t)
    )
    return table


def _rate(share: MatchRate) -> str:
    return f"{share.rate:.1%}" if share.rows else ""
