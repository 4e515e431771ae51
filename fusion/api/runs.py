"""A whole run from Python: `run`, what it is configured by, and what it made."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fusion import pipeline
from fusion.config import Config, loading
from fusion.core.text_files import read_object
from fusion.data.example import Example
from fusion.stages.context import RunContext
from fusion.stages.rounds.context import RoundContext
from fusion.stages.rounds.kept import round_folder
from fusion.stages.rounds.taken_out import texts_with_reads
from fusion_eval.results import Result
from fusion_eval.statistics.comparison import summarise

AnyConfig = Config | str | Path | Mapping[str, Any]
"""A configuration that was read, a YAML file, the name of a recipe of the package, or the keys of a YAML file."""


@dataclass(frozen=True, init=False)
class Run:
    """What a run of a configuration made, in its folder: `Run("runs/mine")` finds it again."""

    config: Config
    """As it was run, with every default filled in."""

    def __init__(self, run: Config | str | Path):
        """Take its folder, wherever it is now, or its configuration. Raises ValueError for what is no folder of a run."""
        object.__setattr__(self, "config", run if isinstance(run, Config) else _config_of(Path(run)))

    @property
    def folder(self) -> Path:
        """Where everything of the run is."""
        return self.config.folder

    @property
    def fused(self) -> Path:
        """The fused model: a folder that `from_pretrained` of transformers loads."""
        return self.folder / "fused"

    @property
    def report(self) -> Path:
        """The report, a page that needs nothing else."""
        return self.folder / "report.html"

    @property
    def record(self) -> dict[str, Any]:
        """What the run notes of itself in run.json: plan, lineage, times of its stages, what each source knows."""
        return read_object(self.folder / "run.json")

    @property
    def examples(self) -> list[Example]:
        """What was learned from, for a `FusionCollator` with the run's caches: the data, or the answers that sources wrote.

        Raises ValueError where sources are yet to write them.
        """
        return RunContext(self.config).train_examples

    @property
    def results(self) -> dict[str, Result]:
        """Each evaluated model's samples on the held-out examples, by its name, in the order of the report's table."""
        return {result.model: result for result in pipeline.results(RunContext(self.config))}

    def round_reads(self, number: int, reader: str) -> Iterator[dict[str, Any]]:
        """Return what a model said of each text that the pivot wrote in a round, one by one, as values that JSON can hold.

        A text has `id`, `prompt_id`, `domain`, `messages`, `text`, `ended`, `passed`, `reward`, `reader` and `tokens`. Each of
        `tokens`, of the reader's own, has `token_id`, `token` (as text), `bytes_before` (bytes of the text before it),
        `logprob` in nats (None where its server does not tell) and `top`: pairs of token id and log-probability, the likeliest
        first; the pivot has that of the text alone. The last token is the reader's own end of an answer, if it has one.
        `passed` is None where nothing tells right answers from wrong ones.

        Args:
            number: The round, from 1.
            reader: The name of a source, or `pivot` for the one that wrote.

        Raises:
            ValueError: Where the run has no such round or reader, no objective reads sources, or the round was not read yet.
        """
        rounds, names = self.config.rounds, ["pivot", *(source.name for source in self.config.sources)]
        if rounds is None or not 1 <= number <= rounds.count:
            raise ValueError(f"{self.config.name} has no round {number}; it has {rounds.count if rounds else 0}.")
        if reader not in names:
            raise ValueError(f"{self.config.name} has no reader {reader}; choose one of {', '.join(names)}.")
        context = RunContext(self.config)
        start = round_folder(self.config, number - 1) / "model"
        return texts_with_reads(RoundContext.of(context, number, start), reader)

    def table(self) -> list[dict[str, Any]]:
        """Return the results, a row for each model, domain and metric, as `pandas.DataFrame` takes them.

        `value` with the ends `low` and `high` of its 95% interval over `n` examples, none of them rounded; shares are from 0
        to 1.
        """
        return [row for name, result in self.results.items() for row in _rows(name, result)]


def run(config: AnyConfig, overrides: Mapping[str, Any] | None = None, *, until: str = "report") -> Run:
    """Do everything a configuration asks for, up to the stage `until`, and return what was made.

        run = fusion.run("quickstart", {"seed": 1, "training.max_steps": 100})
        pandas.DataFrame(run.table())

    What an earlier call has done in the same folder is not done again.

    Args:
        config: A YAML file, the name of a recipe (`fusion recipes` lists them), its keys as a dictionary, or a `Config`.
        overrides: Values by place, see `load_config`.
        until: The last stage: respond, extract, train, merge, rounds, evaluate or report.

    Raises:
        ConfigError: With every mistake of the configuration.
        ValueError: Where a stage cannot be done.
    """
    checked = load_config(config, overrides)
    pipeline.run(checked, until)
    return Run(checked)


def _config_of(folder: Path) -> Config:
    """The configuration of the run in a folder, which says where the run was made and is read for where it is now."""
    file = folder / "config.yaml"
    if not file.is_file():
        raise ValueError(
            f"{folder} is no folder of a run (it has no config.yaml). Give the one that `fusion run` made, such as runs/mine."
        )
    place = folder.resolve()
    return load_config(file, {"runs": str(place.parent), "name": place.name})


def load_config(config: AnyConfig, overrides: Mapping[str, Any] | None = None) -> Config:
    """Check a configuration, with some of its values changed, and fill in every default.

    Args:
        config: What `run` takes.
        overrides: Values by place: `{"training.max_steps": 5}`, or nested as in the file. A name counts as the place of an
            entry of a list: `{"sources.coder.path": ...}`.

    Raises:
        ConfigError: With every mistake.
    """
    origin = "configuration" if isinstance(config, (Config, Mapping)) else str(config)
    raw, overridden = _keys(config), {}
    for place, value in dict(overrides or {}).items():
        if isinstance(value, Mapping) and "." not in place:
            raw = loading.laid_over(raw, {place: dict(value)})
        else:
            given = f"overrides[{place!r}]"
            overridden[loading.set_value(raw, place, value, given)] = given
    return loading.parse(raw, origin, overridden)


def _keys(config: AnyConfig) -> dict[str, Any]:
    """The keys of a configuration, which may be changed."""
    if isinstance(config, Config):
        return config.model_dump(mode="json")
    if isinstance(config, Mapping):
        raw = copy.deepcopy(dict(config))
        return loading.laid_over(loading.read(raw.pop("extends")), raw) if "extends" in raw else raw
    if not isinstance(config, (str, Path)):
        raise ValueError(
            f"A configuration is a YAML file, the name of a recipe, a dictionary or a Config; got a {type(config).__name__}."
        )
    return loading.read(config)


def _rows(model: str, result: Result) -> Iterator[dict[str, Any]]:
    for domain, metrics in summarise(result).items():
        for metric, each in metrics.items():
            interval = {"value": each.value, "low": each.low, "high": each.high, "n": each.n}
            yield {"model": model, "domain": domain, "metric": metric} | interval
