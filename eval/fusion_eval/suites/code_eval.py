"""`code_eval`, the measure that lm-eval's own code tasks load from the hub, with our sandbox in its place."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from fusion.grading import sandbox


class SandboxedCodeEval:
    """The part of `evaluate`'s code_eval that lm-eval uses: one program for each reference, pass@1."""

    def compute(
        self, references: Sequence[str], predictions: Sequence[Sequence[str]], k: Sequence[int] = (1,)
    ) -> tuple[dict[str, float], dict[int, Any]]:
        """Share of problems whose program passes its tests, and why each ended. Raises ValueError for other than pass@1."""
        if list(k) != [1] or any(len(programs) != 1 for programs in predictions):
            raise ValueError("Only pass@1 with one program for each problem is measured here.")
        ends = [sandbox.run(f"{programs[0]}\n{tests}") for programs, tests in zip(predictions, references, strict=True)]
        share = sum(end.passed for end in ends) / len(ends)
        return {"pass@1": share}, {i: end.reason for i, end in enumerate(ends)}


@contextmanager
def sandboxed() -> Iterator[None]:
    """While task files are loaded: those that ask `evaluate` for code_eval get ours, everything else what it is."""
    import evaluate

    before = evaluate.load

    def load(path: str, *args: Any, **kwargs: Any) -> Any:
        return SandboxedCodeEval() if path == "code_eval" else before(path, *args, **kwargs)

    evaluate.load = load
    try:
        yield
    finally:
        evaluate.load = before
