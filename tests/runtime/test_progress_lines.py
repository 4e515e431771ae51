"""Progress as lines, told by a clock that the tests move: a line a minute with what is done, what is left and how fast."""

import io
import re
import time

import pytest
from rich.console import Console
from transformers import TrainerControl, TrainerState

from fusion.runtime import console as module
from fusion.runtime.progress_lines import ProgressLines, rate_in_words, time_in_words


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self):
        self.seconds = 1000.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def output(monkeypatch):
    """What is printed to a console that is no terminal."""
    console = Console(file=io.StringIO(), width=40)
    monkeypatch.setattr(module, "console", console)
    return console.file


def lines_of(clock, output, total=40_000, unit="tokens", **options) -> ProgressLines:
    return ProgressLines("rows of coder", total, unit, console=Console(file=output, width=40), clock=clock, **options)


def work(lines: ProgressLines, clock: Clock, seconds: int, units: int) -> None:
    """Report `units` each second."""
    for _ in range(seconds):
        clock.seconds += 1
        lines.advance(units)


def test_a_line_a_minute_says_what_is_done_what_is_left_and_how_fast(clock, output):
    lines = lines_of(clock, output)
    work(lines, clock, 120, 100)
    assert output.getvalue().splitlines() == [
        "  rows of coder: 6,000 of 40,000 tokens, 100/s, 6 minutes left",
        "  rows of coder: 12,000 of 40,000 tokens, 100/s, 5 minutes left",
    ]


def test_work_shorter_than_a_minute_has_one_line_at_its_end(clock, output):
    with lines_of(clock, output) as lines:
        work(lines, clock, 50, 800)
    assert output.getvalue() == "  rows of coder: 40,000 of 40,000 tokens, in 50 seconds\n"


def test_work_that_fails_is_not_said_to_be_done(clock, output):
    def fails() -> None:
        with lines_of(clock, output) as lines:
            work(lines, clock, 5, 10)
            raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        fails()
    assert output.getvalue() == "  rows of coder: 50 of 40,000 tokens, stopped after 5 seconds\n"


def test_what_was_done_before_says_nothing_of_speed(clock, output):
    lines = lines_of(clock, output, initial=10_000)
    lines.advance(20_000)  # read from a cache, in no time
    work(lines, clock, 61, 10)
    assert "30,600 of 40,000 tokens, 10/s, 16 minutes left" in output.getvalue()


def test_speed_is_that_of_the_last_ten_minutes(clock, output):
    lines = lines_of(clock, output, total=10_000_000)
    work(lines, clock, 1200, 1000)
    work(lines, clock, 900, 10)
    assert ", 10/s," in output.getvalue().splitlines()[-1]


def test_while_nothing_is_reported_a_line_says_so(clock, output):
    lines = lines_of(clock, output, total=24, unit="runs", note="now kl, seed 0")
    clock.seconds += 300
    lines.print_if_due()
    assert output.getvalue() == "  rows of coder: 0 of 24 runs, nothing done for 5 minutes (now kl, seed 0)\n"


def test_the_thread_prints_while_nothing_is_reported(clock, output, monkeypatch):
    monkeypatch.setattr("fusion.runtime.progress_lines.EVERY", 0.01)
    with lines_of(clock, output):
        clock.seconds += 1
        for _ in range(500):
            if output.getvalue():
                break
            time.sleep(0.01)
    assert "nothing done for" in output.getvalue()


def test_an_unknown_total_is_not_shown(clock, output):
    lines = lines_of(clock, output, total=0)
    work(lines, clock, 60, 5)
    assert output.getvalue() == "  rows of coder: 300 tokens, 5/s\n"


@pytest.mark.parametrize(
    ("rate", "words"),
    [
        (3128, "3,100/s"),
        (1, "1/s"),
        (0.2, "12/minute"),
        (1 / 240, "15/hour"),
        (12_345_678, "12,000,000/s"),
        (1.26, "1.3/s"),
    ],
)
def test_rates_are_in_the_unit_in_which_they_are_at_least_one(rate, words):
    assert rate_in_words(rate) == words


@pytest.mark.parametrize(
    ("seconds", "words"), [(1, "1 second"), (89, "89 seconds"), (540, "9 minutes"), (7620, "2 h 7 min")]
)
def test_times_are_said_as_people_say_them(seconds, words):
    assert time_in_words(seconds) == words


def test_a_bar_is_lines_where_output_is_no_terminal_and_moves_on_one(output, monkeypatch):
    with module.bar("rows of coder", 40, "tokens") as advance:
        advance(40)
    assert output.getvalue() == "  rows of coder: 40 of 40 tokens, in 0 seconds\n"
    terminal = Console(file=io.StringIO(), width=120, force_terminal=True)
    monkeypatch.setattr(module, "console", terminal)
    with module.bar("rows of coder", 40, "tokens") as advance:
        advance(40)
    assert "40/40" in terminal.file.getvalue()
    assert "tokens" not in terminal.file.getvalue()


def test_a_counter_takes_its_total_from_the_work(output):
    with module.counter("merge", "tensors") as report:
        for done in range(1, 4):
            report("tensors", done, 3)
    assert output.getvalue() == "  merge: 3 of 3 tensors, in 0 seconds\n"


def test_a_quiet_console_prints_no_progress(output):
    module.console.quiet = True
    with module.bar("a", 1) as advance:
        advance(1)
    assert output.getvalue() == ""


def test_a_resumed_training_says_its_steps_and_its_loss(output):
    (shown,) = module.training_bar("unified")
    state = TrainerState(max_steps=30, global_step=20, is_world_process_zero=True)
    shown.on_train_begin(None, state, TrainerControl())
    for state.global_step in range(21, 31):
        shown.on_step_end(None, state, TrainerControl())
    shown.on_log(None, state, TrainerControl(), logs={"loss": 1.23456})
    shown.on_train_end(None, state, TrainerControl())
    assert output.getvalue() == "  training unified: 30 of 30 steps, in 0 seconds (loss 1.235)\n"


def test_a_training_that_is_watched_says_what_it_is_on_validation_examples_beside_its_loss(output):
    (shown,) = module.training_bar("unified")
    state = TrainerState(max_steps=2, is_world_process_zero=True)
    shown.on_train_begin(None, state, TrainerControl())
    watched = {"eval_bits_per_byte": 0.31249, "eval_mean_token_accuracy": 0.8271, "eval_bits_per_byte/a": 9.0}
    for logs in ({"loss": 2.0}, watched, {"loss": 1.5}):
        shown.on_log(None, state, TrainerControl(), logs=logs)
    shown.on_train_end(None, state, TrainerControl())
    assert output.getvalue().endswith("(loss 1.500, validation 0.312 bits per byte, 82.7% of tokens right)\n")


def test_a_training_that_an_error_ended_is_said_to_have_stopped(output):
    (shown,) = module.training_bar("unified")
    shown.on_train_begin(None, TrainerState(max_steps=30, is_world_process_zero=True), TrainerControl())
    shown.on_step_end(None, TrainerState(max_steps=30, global_step=3), TrainerControl())
    module.end_bars()
    assert output.getvalue() == "  training unified: 3 of 30 steps, stopped after 0 seconds\n"


def test_a_listener_hears_how_far_silent_work_is():
    heard = []
    with module.silence(heard.append), module.bar("rows of coder", 12_000, "tokens") as advance:
        advance(3_000)
        advance(0, total=9_000)
    assert heard == [
        f"rows of coder, {so_far} tokens" for so_far in ("0 of 12,000", "3,000 of 12,000", "3,000 of 9,000")
    ]
    assert not module.console.quiet


def test_what_is_said_of_a_standstill_is_its_whole_length():
    now, output = [0.0], io.StringIO()
    lines = ProgressLines("study", 4, "runs", console=Console(file=output), clock=lambda: now[0])
    for now[0] in map(float, range(0, 3600, 60)):
        lines.print_if_due()
    assert output.getvalue().endswith("nothing done for 59 minutes\n")


def test_while_its_note_changes_nothing_is_said_of_a_standstill_and_after_that_from_the_last_change():
    now, output = [0.0], io.StringIO()
    lines = ProgressLines("study", 4, "runs", console=Console(file=output), clock=lambda: now[0])
    for now[0], lines.note in ((60.0, "rows, 3 of 9"), (120.0, "rows, 5 of 9"), (180.0, "rows, 5 of 9")):
        lines.print_if_due()
    assert output.getvalue().splitlines() == [
        "  study: 0 of 4 runs (rows, 3 of 9)", "  study: 0 of 4 runs (rows, 5 of 9)",
        "  study: 0 of 4 runs, nothing done for 60 seconds (rows, 5 of 9)",
    ]  # fmt: skip


@pytest.mark.parametrize("columns", [80, 100, 140])
def test_a_moving_bar_cuts_no_number_whatever_is_said_behind_it(columns, monkeypatch):
    output = io.StringIO()
    monkeypatch.setattr(module, "console", Console(file=output, force_terminal=True, width=columns))
    note = "validation 0.093 bits per byte, 95.6% of tokens right, loss 0.079"
    with module._moving_bar() as progress:
        progress.add_task("unified", total=2052, completed=1108, note=note)
    text = re.sub(r"\x1b\[[?\d;]*[A-Za-z]", "", output.getvalue())
    assert "1108/2052" in text
    assert "…" not in text
    assert "".join(re.findall(r"\d\.\d+", text)).startswith("0.093")
