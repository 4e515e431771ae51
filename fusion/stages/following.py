"""What stands in a run's folder behind something that is to be made again: it was made from that, and has to go with it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from fusion.config import Config
from fusion.stages.rounds.kept import PREFERENCES, ROUNDS, result_folder, round_folder
from fusion.training import BASELINE, MERGED, pairwise_name, trainings_of

Step = tuple[Path, Sequence[Path]]
"""A place in the folder of a run, and the places that it is made from."""


def following(config: Config, paths: Sequence[Path]) -> list[Path]:
    """Return what is there that was made from any of `paths`, at once or by way of something else; `paths` are not among it."""
    found = list(paths)
    for place, made_from in _steps(config):  # in the order in which they are made
        if place not in found and place.exists() and any(_is_in(each, one) for each in found for one in made_from):
            found.append(place)
    return found[len(paths) :]


def _is_in(path: Path, place: Path) -> bool:
    return path == place or place in path.parents


def _steps(config: Config) -> Iterator[Step]:
    folder, names = config.folder, [source.name for source in config.sources]
    answers, rows, chosen = folder / "responses", folder / "cache", folder / "responses" / "chosen"
    for place in sorted(answers.glob("*")):
        if place.name not in names:  # what is read of answers, ranked by them, or asked behind that
            yield place, [answers / name for name in names]
    yield chosen, [answers]
    for place in sorted(rows.glob("*")):
        yield place, [chosen]
    # without the baseline, which learns from no source and no answer of one
    for name in trainings_of(config.strategies, False, names):
        yield folder / "train" / name, [chosen, rows]
    yield folder / "train" / MERGED, [folder / "train" / pairwise_name(name) for name in names]
    start, validation = round_folder(config, 0), folder / ROUNDS / "validation"
    yield validation / "0", [start]
    for number in range(1, config.rounds.count + 1 if config.rounds else 1):
        yield from _in_order(folder / ROUNDS / str(number), ("responses", "texts", "cache", "train"), start)
        start = round_folder(config, number)
        yield validation / str(number), [start, validation / "0"]  # all are answered in one way
    yield from _in_order(folder / PREFERENCES, ("pairs", "cache", "train"), folder / ROUNDS if config.rounds else start)
    for name in [*([BASELINE] if config.baseline else []), *config.results]:
        # any round may be the one that is kept
        made = folder / ROUNDS if name == ROUNDS else result_folder(config, name)
        if name == config.fused:
            yield folder / "fused", [made]
        yield folder / "eval" / name / "heldout.json", [made]


def _in_order(folder: Path, names: Sequence[str], start: Path) -> Iterator[Step]:
    """Folders below `folder`, each made from those in front of it and from `start`."""
    earlier = [start]
    for name in names:
        places = sorted((folder / name).glob("*")) if name in ("cache", "train") else [folder / name]
        for place in places:
            yield place, list(earlier)
        earlier += places
