"""A program to launch: each process records its rank and arguments, and exits with the code it is given.

    python -m tests.helpers.recording_program FOLDER EXIT_CODE [ARGUMENT ...]

With EXIT_CODE `wait` it waits for a signal, records it, and exits with 7.
"""

import json
import os
import signal
import sys
import time
from pathlib import Path

if __name__ == "__main__":
    folder, code, *arguments = sys.argv[1:]
    rank, world = os.environ.get("RANK", "0"), os.environ.get("WORLD_SIZE", "1")
    for number in (signal.SIGINT, signal.SIGTERM) if code == "wait" else ():
        signal.signal(number, lambda n, _: ((Path(folder) / "signal").write_text(signal.Signals(n).name), os._exit(7)))
    (Path(folder) / f"{rank}.json").write_text(json.dumps({"world": world, "arguments": arguments}))
    while code == "wait":
        time.sleep(0.05)
    sys.exit(int(code))
