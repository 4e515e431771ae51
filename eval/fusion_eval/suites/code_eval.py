"""A sandboxed replacement for the metric `code_eval`, which lm-eval's own code tasks load from the hub."""

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
        """Compute the share of problems whose program passes its tests, and why each failed or what it decided itself.

        Raises ValueError for other than pass@1.
        """
        if list(k) != [1] or any(len(programs) != 1 for programs in predictions):
            raise ValueError("Only pass@1 with one program for each problem is measured here.")
        results = [
            sandbox.judge_program(programs[0], tests) for programs, tests in zip(predictions, references, strict=True)
        ]
        share = sum(result.passed for result in results) / len(results)
        return {"pass@1": share}, {i: _remark(result) for i, result in enumerate(results)}


def _remark(result: sandbox.ProgramResult) -> str:
    return result.reason or (f"decided inside the program: {result.ran_inside}" if result.ran_inside else "")


@contextmanager
def sandboxed() -> Iterator[None]:
    """Make `evaluate.load("code_eval")` return `SandboxedCodeEval` inside the context, while task files are loaded."""
    import evaluate

    before = evaluate.load

    def load(path: str, *args: Any, **kwargs: Any) -> Any:
        return SandboxedCodeEval() if path == "code_eval" else before(path, *args, **kwargs)

    evaluate.load = load
    try:
        yield
    finally:
        evaluate.load = before
