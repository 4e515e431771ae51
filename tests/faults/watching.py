"""Commands that look at a run while it goes on: `fusion report`, `verify` and `plan`, one after another until it ends."""

from __future__ import annotations

import itertools
import os
import sys
from pathlib import Path

from tests.faults import kills
from tests.faults.tiny_run import TinyRun, in_child, write_config


def main(folder: str) -> None:
    """Run a tiny run in a child and look at it meanwhile; print how often, and exit with 1 where a look shows a traceback."""
    tiny, wrong, looks = TinyRun(Path(folder)), [], 0
    in_child(tiny.folder, lambda: write_config(tiny.folder / tiny.config))
    if (pid := os.fork()) == 0:
        ended = tiny.call("evaluate")
        os._exit(ended.get("status", 1))
    for reader in itertools.cycle(kills.READERS):
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            break
        looked, looks = tiny.look(reader), looks + 1
        wrong += kills.sentence(looked, [])[1] if looked.get("status") != 0 else []
    print(f"looked {looks} times; the run ended with {status}", *wrong, sep="\n")
    sys.exit(bool(wrong or status))
