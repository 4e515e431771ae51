"""Run a spoiled input through the boundary of the command line, and judge what the user was told."""

from __future__ import annotations

import io
import re
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass, field, replace
from unittest.mock import patch

from fusion import cli
from fusion.runtime import console

SECONDS = 60
"""What takes longer hangs."""


class Hangs(BaseException):
    """Raised by the alarm; no `except Exception` may swallow it."""


@dataclass(frozen=True)
class Mutant:
    """One spoiled input, written when it is run."""

    kind: str
    what: str
    """What was done, and where."""
    prepare: Callable[[], list[str]]
    """Writes the files and returns the words of the command line."""
    names: tuple[str, ...] = ()
    """What its sentence should hold, any of these; empty where there is nothing to name."""
    original: tuple[str, Callable[[], list[str]]] | None = None
    """A name for the unspoiled input and what writes it; None where what ends well gives something of its own."""
    result: Callable[[], object] | None = None
    """What a run that ends well made, to compare with the original's; None compares what is printed."""


@dataclass
class Outcome:
    """What became of a mutant."""

    mutant: Mutant
    status: int
    said: str
    seconds: float
    escaped: BaseException | None = None
    printed: str = ""
    result: object = None

    @property
    def is_traceback(self) -> bool:
        """Whether a user sees a traceback, or an exception that nobody caught."""
        return self.escaped is not None or "Traceback (most recent call last)" in self.said + self.printed

    @property
    def is_named(self) -> bool:
        """Whether the message holds what was spoiled."""
        return not self.mutant.names or any(name in self.said for name in self.mutant.names)

    @property
    def cause(self) -> str:
        """The last line of a traceback and the place in our code, to group by."""
        ours = re.findall(r'File "[^"]*?((?:fusion|fusion_eval)/[^"]+)", line (\d+)', self.said)
        lines = [line for line in self.said.strip().splitlines() if not line.startswith("Error")]
        last = repr(self.escaped) if self.escaped else lines[-1] if lines else ""
        return f"{':'.join(ours[-1]) if ours else '?'} {last[:150]}"


def run(words: Iterable[str]) -> tuple[int, str, str, BaseException | None]:
    """Run the command in this process; return its status, what it printed, what it said, and what nobody caught."""
    out, err = io.StringIO(), io.StringIO()
    escaped, status = None, -1
    with patch.object(sys, "argv", ["fusion", *words]), redirect_stdout(out), redirect_stderr(err):
        signal.signal(signal.SIGALRM, _hangs)
        signal.alarm(SECONDS)
        try:
            with patch.object(console.console, "_width", 160):
                status = cli.run()
        except (SystemExit, GeneratorExit):
            raise
        except BaseException as error:  # such as a panic of a library in Rust
            escaped = error
        finally:
            signal.alarm(0)
    return status, out.getvalue(), err.getvalue(), escaped


def judge(mutant: Mutant) -> Outcome:
    """Run one mutant."""
    start = time.perf_counter()
    status, printed, said, escaped = run(mutant.prepare())
    result = mutant.result() if mutant.result is not None and status == 0 else printed
    return Outcome(mutant, status, said, time.perf_counter() - start, escaped, printed, result)


def _hangs(*_: object) -> None:
    raise Hangs(f"took more than {SECONDS} seconds")


@dataclass
class Report:
    """All outcomes, and the tables that are printed of them."""

    outcomes: list[Outcome] = field(default_factory=list)
    originals: dict[str, object] = field(default_factory=dict)
    """What unspoiled inputs give, by name."""

    def add(self, mutant: Mutant) -> Outcome:
        """Run a mutant, and where it ends well its original, once; keep and return the outcome."""
        outcome = judge(mutant)
        if outcome.status == 0 and mutant.original is not None and mutant.original[0] not in self.originals:
            self.originals[mutant.original[0]] = judge(replace(mutant, prepare=mutant.original[1])).result
        self.outcomes.append(outcome)
        return outcome

    def is_same(self, outcome: Outcome) -> bool:
        """Whether a mutant that ended well gave what the original gives."""
        name = outcome.mutant.original and outcome.mutant.original[0]
        return name is not None and outcome.result == self.originals.get(name)

    def tracebacks(self) -> list[Outcome]:
        """Mutants whose user sees a traceback."""
        return [outcome for outcome in self.outcomes if outcome.is_traceback]

    def errors(self) -> list[Outcome]:
        """Mutants that ended with a sentence."""
        return [outcome for outcome in self.outcomes if outcome.status != 0 and not outcome.is_traceback]

    def unnamed(self) -> list[Outcome]:
        """Mutants whose sentence does not name what was spoiled."""
        return [outcome for outcome in self.errors() if not outcome.is_named]

    def changed(self) -> list[Outcome]:
        """Mutants that ended well with something else than the original."""
        return [outcome for outcome in self.outcomes if outcome.status == 0 and not self.is_same(outcome)]

    def table(self) -> str:
        """Counts by kind."""
        lines = ["kind                  mutants  tracebacks  sentences  named  accepted: same  other"]
        for kind in dict.fromkeys(outcome.mutant.kind for outcome in self.outcomes):
            part = Report([o for o in self.outcomes if o.mutant.kind == kind], self.originals)
            counts = len(part.outcomes), len(part.tracebacks()), len(part.errors())
            named = len(part.errors()) - len(part.unnamed())
            accepted = sum(outcome.status == 0 for outcome in part.outcomes)
            lines.append(
                f"{kind:<20} {counts[0]:8} {counts[1]:11} {counts[2]:10} {named:6} "
                f"{accepted - len(part.changed()):15} {len(part.changed()):6}"
            )
        return "\n".join(lines)

    def details(self, most: int = 400) -> str:
        """The tracebacks by cause, the sentences that name nothing, and what was accepted with another result."""
        lines = ["", "Tracebacks:"]
        causes = Counter(f"{o.mutant.kind}: {o.cause}" for o in self.tracebacks())
        examples = {f"{o.mutant.kind}: {o.cause}": o.mutant.what for o in self.tracebacks()}
        lines += [f"{count:5}  {cause}   [{examples[cause]}]" for cause, count in causes.most_common(most)]
        lines += ["", "Sentences that do not name what was spoiled:"]
        lines += [
            f"  {o.mutant.kind}: {o.mutant.what} {o.mutant.names}: {o.said.strip()[:300]}"
            for o in self.unnamed()[:most]
        ]
        lines += ["", "Accepted, with another result:"]
        other = Counter(f"{o.mutant.kind}: {o.mutant.what}" for o in self.changed())
        lines += [f"{count:5}  {what}" for what, count in other.most_common(most)]
        slow = [o for o in self.outcomes if o.seconds > 10]
        lines += ["", "Slow:"] + [f"  {o.seconds:.0f} s  {o.mutant.kind}: {o.mutant.what}" for o in slow]
        return "\n".join(lines)
