"""What each arm tried on validation data, what it chose, and whether it chose an end of what was tried."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from fusion.core.markdown import plain
from fusion.study.grid import Setting
from fusion_eval.results import MEAN, Result
from fusion_eval.statistics.comparison import summarise
from fusion_eval.statistics.metrics import METRICS


@dataclass
class TriedSettings:
    """The settings that one arm chooses among, with the results of their trials on the validation data."""

    settings: list[Setting]
    metric: str
    """The mean of this metric over domains and trials decides."""
    trials: int
    """Trials of each setting, one a seed."""
    found: dict[int, list[Result]] = field(default_factory=dict)
    """Number of a setting -> results of its trials."""

    def add(self, number: int, result: Result) -> None:
        """Take the result of a trial of a setting."""
        self.found.setdefault(number, []).append(result)

    @property
    def complete(self) -> bool:
        """Whether every trial has its result."""
        return sum(map(len, self.found.values())) == len(self.settings) * self.trials

    def value(self, number: int) -> float:
        """The metric of a setting, mean over domains and trials. Raises ValueError where it was not measured."""
        mean = summarise(self.found[number], resamples=2)[MEAN]
        if self.metric not in mean:
            raise ValueError(
                f"tuning.metric is {self.metric}, which tuning.heldout does not measure; it knows {', '.join(mean)}."
            )
        return mean[self.metric].value

    def best(self) -> int:
        """Number of the setting that did best, the first of equals."""
        sign = 1 if METRICS[self.metric].lower_is_better else -1
        return min(range(len(self.settings)), key=lambda number: (sign * self.value(number), number))

    def ends_chosen(self) -> list[str]:
        """Dotted keys of numbers of which the smallest or the largest that was tried was chosen."""
        chosen = self.settings[self.best()]
        return [key for key in chosen if _is_end(chosen[key], [setting[key] for setting in self.settings])]


def _is_end(chosen: object, tried: Sequence[object]) -> bool:
    numbers = {value for value in tried if isinstance(value, int | float) and not isinstance(value, bool)}
    return len(numbers) > 1 and chosen in (min(numbers), max(numbers))


def tuning_table(tried: dict[str, TriedSettings]) -> str:
    """A Markdown table of what each arm tried, the choice in bold; and which choices are ends of what was tried."""
    label = METRICS[next(iter(tried.values())).metric].label
    lines = [f"| arm | tried: {label} on validation data | chosen at an end |", "| --- | --- | --- |"]
    for arm, each in tried.items():
        lines.append(f"| {plain(arm)} | {_cells(each)} | {plain(', '.join(map(_short, each.ends_chosen())))} |")
    ends = any(each.ends_chosen() for each in tried.values())
    why = (
        "\n\nWhere the smallest or largest value that was tried was chosen, one beyond it may be better."
        if ends
        else ""
    )
    return "\n".join(lines) + why


def _cells(tried: TriedSettings) -> str:
    best = tried.best()
    cells = [f"{words(each)}: {METRICS[tried.metric].show(tried.value(n))}" for n, each in enumerate(tried.settings)]
    return "; ".join(f"**{plain(cell)}**" if n == best else plain(cell) for n, cell in enumerate(cells))


def words(setting: Setting) -> str:
    """A setting for people: the last parts of its keys, and their values."""
    return ", ".join(f"{_short(place)} {value}" for place, value in setting.items())


def _short(place: str) -> str:
    return place.rsplit(".", 1)[-1]
