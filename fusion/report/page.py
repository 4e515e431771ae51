"""One self-contained page about a run: nothing is fetched, light and dark, fit for print. Its figures lie beside it as PNG."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from fusion.report import units
from fusion.report.figures.curves import POINTS
from fusion.report.figures.drawing import colours, png, svg
from fusion.report.figures.gallery import Gallery, gallery
from fusion.report.gains import BEST, all_gains, bounded
from fusion.report.overlays import blocks
from fusion.report.record import Record, read_run
from fusion.report.sections import ANSWERS, OPEN, answers, cache_rows, cost_rows, glance, suite_section
from fusion.report.table import HELPING_CAPTION, helping_cells
from fusion_eval.results import write_atomically
from fusion_eval.statistics.bootstrap import RESAMPLES

TEMPLATES = Path(__file__).parent / "templates"


def write_report(run: Path, *, resamples: int = RESAMPLES) -> Path:
    """Write `report.html` and `report/<figure>.png` into the folder of a run; the page's path. Same run, same page.

    Only `run.json` must be there; the page says what it leaves out. Raises what `read_run` and `grid` raise.
    """
    text, drawn = page(read_run(run), resamples=resamples)
    _write_images(run / "report", drawn)
    write_atomically(run / "report.html", text)
    return run / "report.html"


def page(record: Record, *, resamples: int = RESAMPLES) -> tuple[str, Gallery]:
    """The page as text, and its figures; everything that comes from the run is escaped."""
    compared = all_gains(record, resamples=resamples)
    drawn = gallery(record, compared, palette(record), resamples=resamples)
    suites = [suite_section(record, name, compared, resamples) for name in record.results]
    domains = dict.fromkeys([*record.run.data.train, *record.run.data.heldout]) if record.run.data else {}
    text = (
        _templates()
        .get_template("page.html")
        .render(
            run=record.run,
            record=record,
            colours=palette(record),
            suites=suites,
            best_source=BEST,
            bounded=bounded,
            glance=glance(record, suites),
            figures={name: Markup(svg(one.figure, name, one.alt)) for name, one in drawn.items()},  # matplotlib escapes
            helping=[helping_cells(row) for row in record.run.helping],
            helping_caption=HELPING_CAPTION,
            data_domains=list(domains),
            overlays=[(one, {source: blocks(one, source) for source in one.pairs}) for one in record.overlays],
            overlay_data=[one.model_dump() for one in record.overlays],
            cost=cost_rows(record.run),
            caches=cache_rows(record.run),
            answers={suite: answers(results) for suite, results in record.results.items()},
            answers_each=ANSWERS,
            open_domains=OPEN,
            points=POINTS,
            seconds=sum(stage.seconds for stage in record.run.stages),
        )
    )
    return text, drawn


def palette(record: Record) -> dict[str, str]:
    """The colour of each model on the page."""
    run = record.run
    return colours(run.result, run.baseline, run.names("pivot"), [*run.names("source"), *record.models])


def _write_images(folder: Path, drawn: Gallery) -> None:
    """PNG of each figure; those of an earlier page that has more of them go."""
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("*.png"):
        if old.stem not in drawn:
            old.unlink()
    for name, one in drawn.items():
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
    for name in ("size", "grouped", "duration", "octets", "work", "percent", "visible", "minus"):
        environment.filters[name] = getattr(units, name)
    # the project's own files, which are not to be escaped
    environment.globals["raw"] = lambda name: Markup((TEMPLATES / name).read_text(encoding="utf-8"))
    return environment
