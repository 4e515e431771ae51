"""One self-contained page about a run: nothing is fetched, light and dark, fit for print; its figures also as PNG files."""

from __future__ import annotations

from dataclasses import asdict
from functools import cache
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from fusion.report import units
from fusion.report.differences import BEST_SOURCE, all_differences, bounded
from fusion.report.figures.curves import POINTS
from fusion.report.figures.drawing import colours, png, svg
from fusion.report.figures.run_figures import CURVES, ReportFigure, RunFigures, run_figures
from fusion.report.figures.validation_curves import VALIDATION_CURVES
from fusion.report.model_roles import evaluated_models, explanations, role
from fusion.report.preferences import learned_terms, sample_pairs
from fusion.report.rounds.scores import INTERVALS, generations, kept_sentence, round_rows, share
from fusion.report.rounds.section import round_samples
from fusion.report.run_contents import PREFERENCES, RunContents, read_run
from fusion.report.samples import JUST_FIRST, chosen_samples
from fusion.report.score_table import HELPING_CAPTION, helping_cells
from fusion.report.sections import (
    MAX_OPEN_DOMAINS,
    cache_rows,
    cost_rows,
    suite_section,
    summary_tiles,
)
from fusion.report.token_blocks import token_blocks
from fusion.runtime.run_file import RoundsFacts
from fusion_eval.results import write_atomically
from fusion_eval.statistics.bootstrap import RESAMPLES

TEMPLATES = Path(__file__).parent / "templates"


def write_report(run: Path, *, resamples: int = RESAMPLES) -> Path:
    """Write `report.html` and `report/<figure>.png` into the folder of a run; the page's path. Same run, same page.

    Only `run.json` must be there; the page says what it leaves out. Raises what `read_run` and `score_table` raise.
    """
    text, figures = render_page(read_run(run), resamples=resamples)
    _write_images(run / "report", figures)
    write_atomically(run / "report.html", text)
    return run / "report.html"


def render_page(contents: RunContents, *, resamples: int = RESAMPLES) -> tuple[str, RunFigures]:
    """The page as text, and its figures; everything that comes from the run is escaped."""
    compared = all_differences(contents, resamples=resamples)
    figures = run_figures(contents, compared, palette(contents), resamples=resamples)
    suites = [suite_section(contents, name, compared, resamples) for name in contents.results]
    logs = contents.logs.values()
    domains = (
        dict.fromkeys([*contents.run.data.train, *contents.run.data.heldout, *contents.run.data.validation])
        if contents.run.data
        else {}
    )
    text = (
        _templates()
        .get_template("page.html")
        .render(
            run=contents.run,
            contents=contents,
            colours=palette(contents),
            suites=suites,
            best_source=BEST_SOURCE,
            bounded=bounded,
            summary_tiles=summary_tiles(contents, suites),
            figures={name: _both_widths(name, one) for name, one in figures.items()},
            validation_examples=_validation_examples(contents),
            validation_from_start=any("eval_entropy" in e and e.get("step") == 0 for log in logs for e in log),
            validation_curves={
                f"validation-{key.removeprefix('eval_')}": curve.head for key, curve in VALIDATION_CURVES.items()
            },
            curves={f"training-{key}": head for key, head in CURVES.items()},
            roles={model: role(model, contents.run) for model in contents.models},
            explanations=explanations(evaluated_models(contents), contents.run),
            helping=[helping_cells(row) for row in contents.run.helping],
            helping_caption=HELPING_CAPTION,
            data_domains=list(domains),
            overlays=[(one, {source: token_blocks(one, source) for source in one.pairs}) for one in contents.overlays],
            overlay_data=[asdict(one) for one in contents.overlays],
            **_rounds(contents.run.rounds),
            sample_pairs=sample_pairs(contents.run.preferences),
            learned_terms=learned_terms(contents.logs.get(PREFERENCES, [])),
            cost=cost_rows(contents.run),
            caches=cache_rows(contents.run),
            answers={suite: chosen_samples(contents, suite) for suite in contents.results},
            just_first=JUST_FIRST,
            open_domains=MAX_OPEN_DOMAINS,
            points=POINTS,
            seconds=sum(stage.seconds for stage in contents.run.stages),
        )
    )
    return text, figures


def _validation_examples(contents: RunContents) -> str:
    """What the curves were read on, in words: how many examples, of each domain where there are several."""
    counts = contents.run.data.validation if contents.run.data else {}
    by_domain = f" ({', '.join(f'{count} of {domain}' for domain, count in counts.items())})" if len(counts) > 1 else ""
    return f"{sum(counts.values())} validation examples{by_domain}" if counts else "validation examples"


def _rounds(facts: RoundsFacts | None) -> dict[str, object]:
    """What the section on rounds shows; nothing where there were none."""
    if facts is None:
        return {}
    return {
        "kept_sentence": kept_sentence(facts),
        "round_rows": round_rows(facts),
        "round_samples": round_samples(facts),
        "round_intervals": INTERVALS,
        "generations": generations(facts),
        "share": share,
    }


def _both_widths(name: str, one: ReportFigure) -> Markup:
    """The figure drawn for a page and for a phone, of which the page shows the one that fits; matplotlib escapes."""
    wide, narrow = svg(one.figure, name, one.alt), svg(one.narrow, f"{name}-narrow", one.alt)
    return Markup(f'<div class="for-page">{wide}</div><div class="for-phone">{narrow}</div>')


def palette(contents: RunContents) -> dict[str, str]:
    """The colour of each model on the page."""
    run = contents.run
    return colours(
        run.result, run.baseline, run.names_by_role("pivot"), [*run.names_by_role("source"), *contents.models]
    )


def _write_images(folder: Path, figures: RunFigures) -> None:
    """Write each figure as PNG, and delete those of an earlier page that this one does not have."""
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("*.png"):
        if old.stem not in figures:
            old.unlink(missing_ok=True)  # another report may be written at the same time
    for name, one in figures.items():
        (folder / f"{name}.png").write_bytes(png(one.figure))


@cache
def _templates() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    for name in ("size", "grouped", "duration", "byte_size", "format_flops", "percent", "visible", "minus"):
        environment.filters[name] = getattr(units, name)
    # the project's own files, which are not to be escaped
    environment.globals["raw"] = lambda name: Markup((TEMPLATES / name).read_text(encoding="utf-8"))
    return environment
