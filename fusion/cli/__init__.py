"""The command `fusion`. Torch and its friends are imported by the command that needs them, so that help is quick."""

from __future__ import annotations

import atexit
import gc
import os
import sys
import threading
from contextlib import suppress

from fusion.cli import benchmark, caches, draft, merge, push, recipes, runs, verify  # noqa: F401  (each registers its commands)
from fusion.cli.app import app
from fusion.cli.boundary import tell, tell_of_thread

COLLECT_AFTER = 10_000
"""New objects before Python looks for cycles: the modules that a command imports are many times its usual 700, and stay."""


def main() -> None:
    """Run the command and leave at once: that Python takes apart what torch had loaded costs half a second."""
    status = 1  # what stays when an exception ends the program, which Python prints before it comes to `leave`

    def leave() -> None:
        with suppress(OSError):  # whoever read the output may be gone, as `| head` is
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(status)

    atexit.register(leave)  # the first to be registered is the last to be called: all others have had their turn
    gc.set_threshold(COLLECT_AFTER)
    status = run()
    sys.exit(status)


def run() -> int:
    """The command's exit status. What a user can mend is said in a sentence, a bug of ours with its traceback: see `boundary`.

    FUSION_TRACEBACK=1 shows where any error arose.
    """
    threading.excepthook = tell_of_thread
    try:
        app()
    except SystemExit as ended:
        if not isinstance(ended.code, int | None):
            raise  # a message, which Python prints
        return ended.code or 0
    except BrokenPipeError:
        return 1  # whoever reads our output has had enough, which is no error
    except Exception as error:
        tell(error, with_traceback=bool(os.environ.get("FUSION_TRACEBACK")))
        return 1
    return 0
