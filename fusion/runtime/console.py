"""Progress and messages: bars on a terminal, lines elsewhere."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Column
from typing_extensions import override

from fusion.runtime import distributed
from fusion.runtime.progress_lines import ProgressLines

console = Console()
_listeners: list[Callable[[str], None]] = []
"""Who is told how far silent work is; the last one."""
_training_bars: list[Callable[[], None]] = []
"""What stops the bars of trainings that have begun and not ended; an error ends a training without telling its callbacks."""


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
    # what libraries say of each other's next releases
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"(transformers|peft)\b")
    if not distributed.is_main_process():
        logging.getLogger("fusion").setLevel(logging.ERROR)  # what the main process says, all would say
    console.quiet = not distributed.is_main_process()


def show(lines: Iterable[str]) -> None:
    """Print lines as they are, however long and whatever they hold."""
    for line in lines:
        console.print(line, markup=False, highlight=False, soft_wrap=True)


@contextmanager
def silence(listener: Callable[[str], None]) -> Iterator[None]:
    """Print nothing while the block runs, and tell a listener how far its work is: `training unified, 40 of 96 steps`."""
    before, console.quiet = console.quiet, True
    _listeners.append(listener)
    try:
        yield
    finally:
        console.quiet = before
        _listeners.pop()


def _silent_bar(title: str, known_total: int, unit: str, done: int = 0) -> Callable[..., None]:
    """What a bar is of which nothing is shown: a function of units done, and of a new total, that tells the listener."""

    def advance(units: int, total: int | None = None) -> None:
        nonlocal done, known_total
        done, known_total = done + units, known_total if total is None else total
        if _listeners:
            _listeners[-1](f"{title}, {done:,}{f' of {known_total:,}' if known_total else ''} {unit}".rstrip())

    advance(0)
    return advance


def end_bars() -> None:
    """Stop the bars that an error left on the terminal, and show the cursor again."""
    while _training_bars:
        _training_bars.pop()()
    console.show_cursor(True)


def draws_bars() -> bool:
    """Whether output is a terminal or a notebook, where a bar can move; elsewhere progress is told in lines."""
    return console.is_terminal or console.is_jupyter


@contextmanager
def bar(title: str, total: int, unit: str = "", done: int = 0) -> Iterator[Callable[..., None]]:
    """Show progress: a bar on a terminal, else a line a minute. Yields a function of units done, and of a new total.

    `unit` is the plural of what is counted, such as tokens; `done` are those of `total` that an earlier call did.
    """
    if console.quiet:
        yield _silent_bar(title, total, unit, done)
    elif not draws_bars():
        with ProgressLines(title, total, unit, console=console, initial=done) as lines:
            yield lines.advance
    else:
        with _moving_bar() as progress:
            task = progress.add_task(title, total=total, completed=done, note="")
            yield lambda units, total=None: progress.update(task, advance=units, total=total)


@contextmanager
def pending_bar(title: str, unit: str = "") -> Iterator[Callable[[int], Callable[..., None]]]:
    """A bar as `bar` shows it that begins once its total is known: call what is yielded with it; no bar where nobody does."""
    with ExitStack() as stack:
        yield lambda total: stack.enter_context(bar(title, total, unit))


def _moving_bar() -> Progress:
    # a notebook flushes stderr to draw; were that our bar's own, it would draw what it holds, which flushes it, without end
    redirect = not console.is_jupyter
    numbers = [
        column(table_column=Column(no_wrap=True))
        for column in (MofNCompleteColumn, TimeElapsedColumn, TimeRemainingColumn)
    ]
    note = TextColumn(
        "{task.fields[note]}", table_column=Column(overflow="fold")
    )  # wraps where it is narrow, numbers never
    return Progress(
        TextColumn("  {task.description:<28}"), BarColumn(), *numbers, note, console=console, redirect_stdout=redirect,
        redirect_stderr=redirect,
    )  # fmt: skip


@contextmanager
def counter(title: str, unit: str = "") -> Iterator[Callable[[str, int, int], None]]:
    """Show progress of work that reports its own: call the yielded function with (stage, done, total)."""
    with bar(title, 0, unit) as advance:
        reached = 0

        def report(stage: str, done: int, total: int) -> None:
            nonlocal reached
            advance(done - reached, total)
            reached = done

        yield report


def _training_notes(logs: Mapping[str, float]) -> dict[str, str]:
    """What an entry of a training's log says beside its progress: the loss, or how validation examples are read."""
    if "eval_bits_per_byte" in logs:
        bits, right = logs["eval_bits_per_byte"], 100 * logs["eval_mean_token_accuracy"]
        return {"validation": f"validation {bits:.3f} bits per byte, {right:.1f}% of tokens right"}
    return {"loss": f"loss {float(logs['loss']):.3f}"} if "loss" in logs else {}


def training_bar(title: str) -> list[Any]:
    """Callbacks that show a training's steps and loss, as `bar` does, on the first process."""
    from transformers import TrainerCallback

    class TrainingBar(TrainerCallback):
        """Counts from the step that a resumed training starts at."""

        @override
        def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            self.shown, self.note, self.stop = ExitStack(), lambda note: None, lambda: None
            self.done, self.said = state.global_step, {}
            if not state.is_world_process_zero:
                self.advance = lambda steps: None
            elif console.quiet:
                self.advance = _silent_bar(f"training {title}", state.max_steps, "steps", self.done)
            elif draws_bars():
                self.progress = progress = self.shown.enter_context(_moving_bar())
                task = progress.add_task(title, total=state.max_steps, completed=self.done, note="")
                self.advance = partial(progress.advance, task)
                self.note = lambda note: progress.update(task, note=note)
                self.stop = progress.stop
                _training_bars.append(self.stop)
            else:
                lines = ProgressLines(f"training {title}", state.max_steps, "steps", console=console, initial=self.done)
                self.shown.callback(lines.close)  # without its thread, which nothing would stop where a training fails
                self.advance, self.note = lines.advance, partial(setattr, lines, "note")
                self.stop = partial(lines.close, stopped=True)
                _training_bars.append(self.stop)

        @override
        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            self.advance(state.global_step - self.done)
            self.done = state.global_step

        @override
        def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **_: Any) -> None:
            if logs:
                self.said |= _training_notes(logs)
                self.note(", ".join(self.said.values()))

        @override
        def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            self.shown.close()
            if self.stop in _training_bars:
                _training_bars.remove(self.stop)

    return [TrainingBar()]
