"""Progress bars and messages on the terminal."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from typing_extensions import override

from fusion.runtime import distributed

console = Console()
_training_bars: list[Progress] = []
"""Bars of trainings that have begun and not ended; an error ends a training without telling its callbacks."""


def quiet() -> None:
    """Turn off the progress bars and notices of libraries, and in all but the main process our own output.

    For the command line, not for import.
    """
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    os.environ["HF_DATASETS_DISABLE_PROGRESS_BARS"] = (
        "1"  # read when datasets is imported, which most commands never do
    )
    # a filter, for DeepSpeed sets its logger's level anew when it is imported
    logging.getLogger("DeepSpeed").addFilter(lambda record: record.levelno > logging.WARNING)
    if not distributed.is_main_process():
        logging.getLogger("fusion").setLevel(logging.ERROR)  # what the main process says, all would say
    console.quiet = not distributed.is_main_process()


def show(lines: Iterable[str]) -> None:
    """Print lines as they are, however long and whatever they hold."""
    for line in lines:
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def end_bars() -> None:
    """Stop the bars that an error left on the terminal, and show the cursor again."""
    while _training_bars:
        _training_bars.pop().stop()
    console.show_cursor(True)


@contextmanager
def bar(title: str, total: int) -> Iterator[Callable[..., None]]:
    """Show a progress bar. The yielded function advances it by so many units, and may set a new total."""
    columns = (
        TextColumn("  {task.description:<28}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, disable=console.quiet) as progress:
        task = progress.add_task(title, total=total)
        yield lambda units, total=None: progress.update(task, advance=units, total=total)


@contextmanager
def counter(title: str) -> Iterator[Callable[[str, int, int], None]]:
    """Show a bar for work that reports its own progress: call the yielded function with (stage, done, total)."""
    with bar(title, 0) as advance:
        reached = 0

        def report(stage: str, done: int, total: int) -> None:
            nonlocal reached
            advance(done - reached, total)
            reached = done

        yield report


def training_bar(title: str) -> list[Any]:
    """Callbacks that show a training's steps and loss in a bar, on the first process."""
    from transformers import TrainerCallback

    class TrainingBar(TrainerCallback):
        """Counts from the step that a resumed training starts at."""

        @override
        def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            self.loss = ""
            self.progress = Progress(
                TextColumn("  {task.description:<28}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
                TimeRemainingColumn(), TextColumn("{task.fields[loss]}"),
                console=console, disable=not state.is_world_process_zero,
            )  # fmt: skip
            self.task = self.progress.add_task(title, total=state.max_steps, completed=state.global_step, loss="")
            self.progress.start()
            _training_bars.append(self.progress)

        @override
        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            self.progress.update(self.task, completed=state.global_step)

        @override
        def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **_: Any) -> None:
            if logs and "loss" in logs:
                self.progress.update(self.task, loss=f"loss {float(logs['loss']):.3f}")

        @override
        def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            self.progress.stop()
            _training_bars.remove(self.progress)

    return [TrainingBar()]
