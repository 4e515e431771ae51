"""An entry of `evaluation` in a recipe that names a suite of benchmarks; an entry of data is as in a run's configuration."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from fusion.core.settings import Settings


class SuiteSettings(Settings):
    """A suite of benchmarks, as `fusion benchmark` takes it."""

    suite: str
    """Name of a suite, or a YAML file."""
    data: str | None = None
    """Folder with the benchmarks' files; else the hub."""
    limit: int | None = Field(default=None, ge=1)
    """Questions of each task; else as the suite says."""
    max_new_tokens: int | None = Field(default=None, ge=1)
    """Longest answer, in tokens; else as each task says."""
    template: Literal["auto", "chat", "plain"] | None = None
    """How prompts are written; else as the suite says."""
    scoring: Literal["fusion", "lm_eval"] | None = None
    """Whose rules say which answers are right; else as the suite says."""
    allow_code_execution: bool = False
    """Run the programs that models write, in a sandbox."""
